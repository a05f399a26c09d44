"""Charts of what an answer and a training take: quality against latency, and the telemetry of a training."""

import itertools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from whetstone.report import format as written
from whetstone.report.charts import svg_of
from whetstone.report.summary import Summary
from whetstone.report.tradeoff import TradeOffPoint

if TYPE_CHECKING:
    pass

__all__ = ["TELEMETRY", "telemetry_svg", "tradeoff_svg"]

TELEMETRY = {
    "tokens_per_s": "Tokens per second",
    "memory_bytes": "Peak memory (GiB)",
    "gradient_norm": "Gradient norm",
    "learning_rate": "Learning rate",
}
"""What is drawn of the rows of ``metrics.jsonl`` beside the losses, with the titles of the charts."""
_SCALES = {"memory_bytes": 2.0**-30}
_LINE_PX = 16
"""The least distance of two labels, from base line to base line."""


def tradeoff_svg(summary: Summary, *, width: int, height: int, memory: bool) -> str | None:
    """Latency to the right, quality upwards, the Pareto front as a staircase; None when no speed was measured.

    Args:
        summary: What the report says.
        width: Of the plot.
        height: Of the plot.
        memory: Write each arm's memory beside its name, where there is room for it.
    """
    import altair

    found = summary.tradeoff
    if not found.points:
        return None
    unit = found.metric.unit
    scale = 100 if unit in ("share", "score") else 1
    low, high = _padded([scale * point.quality for point in found.points])
    slowest = max(point.latency_p50_s for point in found.points)
    x = altair.X(
        "latency:Q",
        title="Median seconds to an answer",
        scale=altair.Scale(domain=[0, 1.06 * slowest], nice=False),
        axis=altair.Axis(grid=False, tickCount=4),
    )
    y = altair.Y(
        "quality:Q",
        title=f"{found.metric.title} ({'better when lower' if found.metric.direction == 'lower' else _unit(unit)})",
        scale=altair.Scale(domain=[low, high], nice=False, zero=False),
        axis=altair.Axis(tickCount=4),
    )
    labels = _label_heights(found.points, scale, low, high, height)
    rows = [
        {
            "arm": point.arm,
            "latency": point.latency_p50_s,
            "quality": scale * point.quality,
            "front": point.beaten_by is None,
            "label": _label(point, memory=memory),
            "label_at": at,
            "left": point.latency_p50_s > 0.55 * slowest,
        }
        for point, at in zip(found.points, labels, strict=True)
    ]
    chart = altair.Chart(altair.Data(values=rows)).encode(x=x, y=y)
    front = chart.transform_filter("datum.front").mark_line(
        interpolate="step-after", color="var(--accent)", strokeDash=[4, 3], strokeWidth=1.5
    )
    marks = [
        chart.transform_filter(f"datum.front == {str(on).lower()}").mark_point(
            shape=shape, size=80, color=colour, fill=fill, opacity=1, strokeWidth=2
        )
        for on, shape, colour, fill in (
            (True, "circle", "var(--accent)", "var(--accent)"),
            (False, "square", "var(--muted)", "var(--paper)"),
        )
    ]
    texts = [
        chart.transform_filter(f"datum.left == {str(left).lower()}")
        .mark_text(align="right" if left else "left", dx=-11 if left else 11, fontSize=12.5, color="var(--ink)")
        .encode(y=altair.Y("label_at:Q"), text="label:N")
        for left in (True, False)
    ]
    return svg_of(altair.layer(front, *marks, *texts).properties(width=width, height=height))


def telemetry_svg(training: Sequence[dict[str, Any]], key: str, *, width: int, height: int) -> str | None:
    """One measurement by step; None when it is in no row.

    Args:
        training: The rows of ``metrics.jsonl``.
        key: One of ``TELEMETRY``.
        width: Of the plot.
        height: Of the plot.
    """
    import altair

    scale = _SCALES.get(key, 1.0)
    rows = [
        {"step": row["step"], "value": scale * row[key]}
        for row in training
        if row.get(key) is not None and math.isfinite(row[key])
    ]
    if not rows:
        return None
    chart = altair.Chart(altair.Data(values=rows)).encode(
        x=altair.X("step:Q", title="Optimiser step", axis=altair.Axis(grid=False, tickCount=4)),
        y=altair.Y(
            "value:Q",
            title=None,
            axis=altair.Axis(tickCount=3, format="~g"),
            scale=altair.Scale(domain=_padded([row["value"] for row in rows]), nice=False, zero=False),
        ),
    )
    layers = [chart.mark_line(color="var(--accent)", strokeWidth=2)]
    if len(rows) == 1:
        layers = [chart.mark_point(color="var(--accent)")]
    return svg_of(altair.layer(*layers).properties(width=width, height=height))


def _padded(values: Sequence[float]) -> tuple[float, float]:
    spread = max(values) - min(values)
    padding = 0.12 * spread if spread else 0.05 * abs(values[0]) or 1.0
    return min(values) - padding, max(values) + padding


def _unit(unit: str) -> str:
    return {"share": "%", "score": "of 100"}.get(unit, unit)


def _label(point: TradeOffPoint, *, memory: bool) -> str:
    if not memory or point.memory_bytes is None:
        return point.arm
    return f"{point.arm}, {written.byte_size(point.memory_bytes)}"


def _label_heights(points: Sequence[TradeOffPoint], scale: float, low: float, high: float, height: int) -> list[float]:
    """Where the labels stand: beside their points, or as far above or below as leaves every one readable."""
    line = _LINE_PX * (high - low) / height
    order = sorted(range(len(points)), key=lambda index: points[index].quality)
    heights = [scale * point.quality for point in points]
    for below, above in itertools.pairwise(order):
        heights[above] = max(heights[above], heights[below] + line)
    ceiling = high - line / 2
    for index in reversed(order):
        heights[index] = min(heights[index], ceiling)
        ceiling = heights[index] - line
    return heights
