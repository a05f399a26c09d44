"""The charts of a training: each series over the optimiser steps, where it was recorded."""

from collections.abc import Callable
from dataclasses import dataclass

from whetstone.report.kinds.lines import Axes, Line, lines_svg
from whetstone.report.kinds.training.schema import Row, TrainingReport

__all__ = ["CHARTS", "Chart", "draw_loss", "draw_small"]

_STEP = "Optimiser step"
_SMALL = (330, 160)
_GIB = 1024**3


@dataclass(frozen=True, slots=True)
class Series:
    """A line of a chart; ``value`` gives None where a row does not have it."""

    name: str
    value: Callable[[Row], float | None]
    colour: str = "accent"


@dataclass(frozen=True, slots=True)
class Chart:
    """A small chart.

    Attributes:
        name: Of its file, without the ending.
        title: For the reader.
        unit: Of its values.
        series: Its lines.
        y_format: How numbers are written.
        from_zero: Whether the axis begins at zero.
    """

    name: str
    title: str
    unit: str
    series: tuple[Series, ...]
    y_format: str = ""
    from_zero: bool = True


def _gib(value: int | None) -> float | None:
    return None if value is None else value / _GIB


def _million(origin: str) -> Callable[[Row], float | None]:
    def value(row: Row) -> float | None:
        counted = row.loss_tokens_by_origin
        return None if counted is None or origin not in counted else counted[origin] / 1e6

    return value


CHARTS = (
    Chart("learning-rate", "Learning rate", "", (Series("", lambda row: row.learning_rate),), ".1e"),
    Chart("gradient-norm", "Gradient norm before clipping", "", (Series("", lambda row: row.gradient_norm),)),
    Chart(
        "tokens-per-second",
        "Speed",
        "tokens per second",
        (
            Series("rows", lambda row: row.tokens_per_s),
            Series("computed", lambda row: row.computed_tokens_per_s, "open"),
        ),
    ),
    Chart(
        "loss-tokens",
        "Tokens learned from, by origin",
        "million tokens",
        (Series("task", _million("task")), Series("replay", _million("replay"), "open")),
    ),
    Chart(
        "memory",
        "Memory",
        "GiB",
        (
            Series("peak", lambda row: _gib(row.memory_bytes)),
            Series("process", lambda row: _gib(row.process_memory_bytes), "open"),
            Series("GPU", lambda row: _gib(row.gpu_memory_bytes), "good"),
        ),
    ),
    Chart(
        "load",
        "Load (of the process: in percent of one core)",
        "percent",
        (
            Series("process", lambda row: row.cpu_percent),
            Series("machine", lambda row: row.system_cpu_percent, "open"),
            Series("GPU", lambda row: row.gpu_percent, "good"),
        ),
    ),
    Chart(
        "temperature",
        "Temperature",
        "°C",
        (
            Series("processor", lambda row: row.cpu_temperature_c),
            Series("GPU", lambda row: row.gpu_temperature_c, "good"),
        ),
        from_zero=False,
    ),
    Chart("power", "Power of the GPU", "W", (Series("", lambda row: row.gpu_power_w, "good"),)),
)


def draw_loss(report: TrainingReport, *, width: int, height: int) -> str | None:
    """Training and validation loss; None where neither was logged."""
    rows = report.rows or ()
    # The losses of preferences and rewards are no cross-entropies.
    title = "Loss" if report.run.method in ("dpo", "orpo", "grpo") else "Loss per token (nats)"
    lines = [
        _line(Series("training", lambda row: row.loss), rows),
        _line(Series("validation", lambda row: row.validation_loss, "open"), rows, marked=True),
    ]
    return lines_svg(lines, Axes(_STEP, title), width=width, height=height)


def draw_small(report: TrainingReport) -> dict[str, str | None]:
    """All other charts by name; None where nothing was recorded."""
    rows = report.rows or ()
    width, height = _SMALL
    return {
        chart.name: lines_svg(
            [_line(series, rows) for series in chart.series],
            Axes(_STEP, chart.unit, chart.y_format, chart.from_zero),
            width=width,
            height=height,
        )
        for chart in CHARTS
    }


def _line(series: Series, rows: tuple[Row, ...], *, marked: bool = False) -> Line:
    points = [(float(row.step), value) for row in rows if (value := series.value(row)) is not None]
    return Line(series.name, points, series.colour, marked)
