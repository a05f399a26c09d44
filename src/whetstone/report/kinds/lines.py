"""Line charts of what was measured over steps or over time, in the look of the other charts."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from whetstone.report.charts import svg_of

if TYPE_CHECKING:
    import altair

__all__ = ["Axes", "Line", "lines_svg"]

_LABEL_PIXELS = 6.6
_LABEL_GAP = 18


@dataclass(frozen=True, slots=True)
class Line:
    """One thing that was measured, where it was.

    Attributes:
        name: Written at its end; nothing is written for the only line of a chart.
        points: Abscissa and value, in order.
        colour: A name of the palette.
        marked: Each point is marked, for few points.
    """

    name: str
    points: Sequence[tuple[float, float]]
    colour: str = "accent"
    marked: bool = False


@dataclass(frozen=True, slots=True)
class Axes:
    """What the axes are called and how their numbers are written (a format of D3, empty for the usual one)."""

    x: str
    y: str
    y_format: str = ""
    from_zero: bool = False


def lines_svg(lines: Sequence[Line], axes: Axes, *, width: int, height: int) -> str | None:
    """Draws the lines that have points; None where none has.

    Args:
        lines: What was measured.
        axes: Of all of them.
        width: Of the plot together with the names at the ends of its lines, in pixels.
        height: Of the plot.
    """
    import altair
    from altair.utils.schemapi import debug_mode

    measured = [line for line in lines if line.points]
    if not measured:
        return None
    named = len(measured) > 1
    room = round(_LABEL_GAP + _LABEL_PIXELS * max(len(line.name) for line in measured)) if named else 0
    offsets = _label_offsets(measured, height, from_zero=axes.from_zero)
    # Altair checks each part against the schema of Vega-Lite, which takes several times as long as drawing.
    with debug_mode(False):
        layers = [
            layer
            for line, offset in zip(measured, offsets, strict=True)
            for layer in _layers(line, axes, offset, named=named)
        ]
        return svg_of(altair.layer(*layers).properties(width=width - room, height=height))


def _layers(line: Line, axes: Axes, offset: float, *, named: bool) -> "list[altair.Chart]":
    import altair

    values = [{"x": x, "y": y} for x, y in line.points]
    colour = f"var(--{line.colour})"
    chart = altair.Chart(altair.Data(values=values)).encode(
        x=altair.X("x:Q", title=axes.x, scale=altair.Scale(nice=False), axis=altair.Axis(grid=False, tickCount=3)),
        y=altair.Y(
            "y:Q",
            title=axes.y,
            scale=altair.Scale(zero=axes.from_zero),
            axis=altair.Axis(tickCount=4, **({"format": axes.y_format} if axes.y_format else {})),
        ),
    )
    layers = [chart.mark_line(color=colour, strokeWidth=2)]
    if line.marked or len(values) == 1:
        layers.append(chart.mark_point(color=colour, fill="var(--paper)", opacity=1, strokeWidth=2))
    if named:
        end = altair.Chart(altair.Data(values=values[-1:])).encode(x="x:Q", y="y:Q")
        layers.append(end.mark_text(align="left", dx=9, dy=offset, fontSize=12.5, color=colour, text=line.name))
    return layers


def _label_offsets(lines: Sequence[Line], height: int, *, from_zero: bool) -> list[float]:
    """How far each name is moved from the end of its line, so that no two names stand on each other."""
    values = [y for line in lines for _, y in line.points] + ([0.0] if from_zero else [])
    extent = (max(values) - min(values)) or 1.0
    ends = [(max(values) - line.points[-1][1]) / extent * height for line in lines]
    order = sorted(range(len(lines)), key=lambda index: ends[index])
    placed, last = dict[int, float](), float("-inf")
    for index in order:
        last = max(ends[index], last + 15)
        placed[index] = last
    return [placed[index] - ends[index] for index in range(len(lines))]
