"""The charts of a server under load: latencies and requests in flight over time, and latency by load."""

from collections.abc import Callable, Sequence

from whetstone.report.kinds.lines import Axes, Line, lines_svg
from whetstone.report.kinds.service.schema import Load, ServiceReport, Slice

__all__ = ["TITLES", "by_level", "draw_load"]

TITLES = {
    "e2e": "End-to-end latency, by when requests fell due",
    "ttft": "Time to first token, by when requests fell due",
    "in-flight": "Requests in flight",
}
_SMALL = (330, 160)
_TIME = "Seconds since the benchmark began"


def draw_load(load: Load) -> dict[str, str | None]:
    """The charts of one load by name; None where nothing was measured."""
    width, height = _SMALL
    latencies: dict[str, tuple[Callable[[Slice], float | None], Callable[[Slice], float | None]]] = {
        "e2e": (lambda one: one.e2e_median_s, lambda one: one.e2e_slowest_s),
        "ttft": (lambda one: one.ttft_median_s, lambda one: one.ttft_slowest_s),
    }
    drawn = {
        name: lines_svg(
            [
                Line("slowest", _over_time(load.timeline, slowest), "open"),
                Line("median", _over_time(load.timeline, middle)),
            ],
            Axes(_TIME, "seconds", from_zero=True),
            width=width,
            height=height,
        )
        for name, (middle, slowest) in latencies.items()
    }
    busy = Line("", _over_time(load.timeline, lambda one: one.in_flight))
    axes = Axes(_TIME, "requests", from_zero=True)
    return {**drawn, "in-flight": lines_svg([busy], axes, width=width, height=height)}


def by_level(report: ServiceReport, *, width: int, height: int) -> dict[str, str]:
    """End-to-end percentiles over the level of the load, for each model and process with two levels or more."""
    units = {"closed": "clients in a closed loop", "poisson": "requests/s of a Poisson process"}
    found: dict[tuple[str, str], list[Load]] = {}
    for load in report.loads:
        found.setdefault((load.model, units[load.process]), []).append(load)
    drawn = {
        f"{model}, {unit}": lines_svg(
            [
                _percentile("p50", "accent", [(load.level, load.latencies.e2e.p50.estimate) for load in loads]),
                _percentile("p90", "open", [(load.level, load.latencies.e2e.p90.estimate) for load in loads]),
                _percentile("p99", "bad", [(load.level, load.latencies.e2e.p99.estimate) for load in loads]),
            ],
            Axes(unit, "seconds", from_zero=True),
            width=width,
            height=height,
        )
        for (model, unit), loads in found.items()
        if len(loads) > 1
    }
    return {about: svg for about, svg in drawn.items() if svg is not None}


def _percentile(name: str, colour: str, estimates: Sequence[tuple[float, float | None]]) -> Line:
    return Line(name, [(level, found) for level, found in estimates if found is not None], colour, marked=True)


def _over_time(timeline: Sequence[Slice], value: Callable[[Slice], float | None]) -> list[tuple[float, float]]:
    middles = [((one.start_s + one.end_s) / 2, value(one)) for one in timeline]
    return [(middle, found) for middle, found in middles if found is not None]
