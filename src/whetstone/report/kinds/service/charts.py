"""The charts of a server under load: latencies and requests in flight over time; latency and throughput by load."""

from collections.abc import Callable, Sequence

from whetstone.report.kinds.lines import Axes, Line, lines_svg
from whetstone.report.kinds.service.schema import Load, ServiceReport, Slice

__all__ = ["SATURATION", "TITLES", "by_level", "draw_load", "saturation"]

TITLES = {
    "e2e": "End-to-end latency, by when requests fell due",
    "ttft": "Time to first token, by when requests fell due",
    "in-flight": "Requests in flight",
}
SATURATION = "Generated tokens a second by load"
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
    return _over_levels(
        report,
        "seconds",
        lambda loads: [
            _percentile("p50", "accent", [(load.level, load.latencies.e2e.p50.estimate) for load in loads]),
            _percentile("p90", "open", [(load.level, load.latencies.e2e.p90.estimate) for load in loads]),
            _percentile("p99", "bad", [(load.level, load.latencies.e2e.p99.estimate) for load in loads]),
        ],
        (width, height),
    )


def saturation(report: ServiceReport, *, width: int, height: int) -> dict[str, str]:
    """Generated tokens a second over the level of the load: where it no longer rises, the server is saturated."""
    return _over_levels(
        report,
        "tokens a second",
        lambda loads: [Line("", [(load.level, load.tokens_per_s) for load in loads], marked=True)],
        (width, height),
    )


def _over_levels(
    report: ServiceReport, unit: str, lines: Callable[[Sequence[Load]], Sequence[Line]], size: tuple[int, int]
) -> dict[str, str]:
    """A chart for each model and process that has two levels or more, by what it is about."""
    levels = {"closed": "clients in a closed loop", "poisson": "requests/s of a Poisson process"}
    found: dict[tuple[str, str], list[Load]] = {}
    for load in report.loads:
        found.setdefault((load.model, levels[load.process]), []).append(load)
    drawn = {
        f"{model}, {level}": lines_svg(lines(loads), Axes(level, unit, from_zero=True), width=size[0], height=size[1])
        for (model, level), loads in found.items()
        if len(loads) > 1
    }
    return {about: svg for about, svg in drawn.items() if svg is not None}


def _percentile(name: str, colour: str, estimates: Sequence[tuple[float, float | None]]) -> Line:
    return Line(name, [(level, found) for level, found in estimates if found is not None], colour, marked=True)


def _over_time(timeline: Sequence[Slice], value: Callable[[Slice], float | None]) -> list[tuple[float, float]]:
    middles = [((one.start_s + one.end_s) / 2, value(one)) for one in timeline]
    return [(middle, found) for middle, found in middles if found is not None]
