"""Charts for files and for the page: the forest plot of paired differences, and the training curve.

Notable: Altair draws with CSS variables for colours, so the same SVG follows the light and the dark mode of the page
that holds it; :func:`standalone` makes it a file that follows the viewer's mode by itself. Altair is imported when a
chart is drawn, because importing it takes longer than most commands.
"""

import re
from typing import TYPE_CHECKING, Any

from whetstone.evaluate.metrics.metric import Metric
from whetstone.report.forest import Effect, Forest, forest_of
from whetstone.report.format import bare_difference, difference
from whetstone.report.palette import DARK, LIGHT
from whetstone.report.suite_summary import BASELINES
from whetstone.report.summary import Summary
from whetstone.stats.comparison import Comparison

if TYPE_CHECKING:
    import altair

__all__ = ["forest_svg", "standalone", "svg_of", "training_svg"]

_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, Helvetica, Arial, sans-serif"
_PLOT_WIDTH = 380
_SIGNED_LABEL = "datum.value > 0 ? '+' + datum.label : datum.label"


def forest_svg(summary: Summary) -> str | None:
    """The forest plot with its numbers written beside it; None when the tuned arm was compared with nothing."""
    import altair

    forest = forest_of(summary)
    groups = {
        f"Tuned against {over}": [(_metric_label(one.metric), one) for one in forest.effects if one.baseline == over]
        for over in BASELINES
    }
    groups[f"Beside the rule, {_metric_label(summary.primary).lower()}"] = [
        (f"{one.candidate} against {one.baseline}", one) for one in forest.variants
    ]
    panels = []
    for title, effects in groups.items():
        rows = [_forest_row(label, one, one.comparison) for label, one in effects if one.comparison and one.on_scale]
        if rows:
            panels.append(_forest_panel(rows, title, forest))
    return svg_of(altair.vconcat(*panels, spacing=28)) if panels else None


def training_svg(summary: Summary, *, width: int, height: int) -> str | None:
    """Training and validation loss by step; None when nothing was logged."""
    import altair

    if not summary.losses:
        return None
    # The losses of preferences and rewards are no cross-entropies.
    title = "Loss" if summary.manifest.experiment.tune.preferences else "Loss per token (nats)"
    layers = [
        *_curve("loss", "training", title, colour="var(--accent)", label_offset=6),
        *_curve("validation_loss", "validation", title, colour="var(--open)", label_offset=-6),
    ]
    data = altair.Data(values=list(summary.losses))
    return svg_of(altair.layer(*layers, data=data).properties(width=width, height=height))


def standalone(svg: str) -> str:
    """Makes a chart a file: light colours for any viewer, dark ones for viewers that ask for them."""
    for name, colour in LIGHT.items():
        svg = svg.replace(f"var(--{name})", colour)
    dark = "".join(
        f'[fill="{LIGHT[name]}"]{{fill:{DARK[name]}}}[stroke="{LIGHT[name]}"]{{stroke:{DARK[name]}}}' for name in LIGHT
    )
    style = f"<style>@media (prefers-color-scheme:dark){{{dark}}}</style>"
    return re.sub(r"(<svg[^>]*>)", lambda opening: opening[1] + style, svg, count=1) + "\n"


def _metric_label(metric: Metric) -> str:
    return metric.title + (" ↓" if metric.direction == "lower" else "")


def _forest_row(label: str, effect: Effect, found: Comparison) -> dict[str, Any]:
    unit, interval = effect.metric.unit, found.paired.interval
    bare = bare_difference(unit)
    scale = 100 if unit == "share" else 1
    return {
        "metric": label,
        "gain": scale * found.gain,
        "low": scale * found.gain_low,
        "high": scale * found.gain_high,
        "margin": None if effect.margin is None else -scale * effect.margin,
        "direction": effect.direction,
        "numbers": f"{difference(unit)(found.paired.difference)} [{bare(interval.low)}, {bare(interval.high)}]",
        "n": f"n = {found.paired.n}",
    }


def _forest_panel(rows: list[dict[str, Any]], title: str, forest: Forest) -> "altair.LayerChart":
    import altair

    labels = altair.Axis(labelFontSize=13, labelPadding=12, labelLimit=260, labelColor="var(--ink)")
    order = [row["metric"] for row in rows]
    base = altair.Chart(altair.Data(values=rows)).encode(y=altair.Y("metric:N", sort=order, title=None, axis=labels))
    x = altair.X(
        "low:Q",
        scale=altair.Scale(domain=[100 * forest.low, 100 * forest.high], nice=False),
        title="points; right of zero is better (↓ lower is better)",
        axis=altair.Axis(values=[100 * tick for tick in forest.ticks], labelExpr=_SIGNED_LABEL),
    )
    zero = altair.Chart(altair.Data(values=[{"zero": 0}])).mark_rule(color="var(--muted)", strokeWidth=1.5)
    margin = base.transform_filter("isValid(datum.margin)").mark_tick(color="var(--open)", opacity=1, size=18)
    text = base.mark_text(align="left", fontSize=12.5)
    return altair.layer(
        zero.encode(x="zero:Q"),
        margin.encode(x="margin:Q"),
        base.mark_rule(strokeWidth=3, strokeCap="round").encode(x=x, x2="high:Q", color=_by_direction("var(--muted)")),
        base.mark_point(size=70, opacity=1, strokeWidth=2).encode(
            x="gain:Q", stroke=_by_direction("var(--muted)"), fill=_by_direction("var(--paper)")
        ),
        text.encode(x=altair.value(_PLOT_WIDTH + 20), text="numbers:N", color=altair.value("var(--ink)")),
        text.encode(x=altair.value(_PLOT_WIDTH + 225), text="n:N", color=altair.value("var(--muted)")),
    ).properties(width=_PLOT_WIDTH, height=altair.Step(30), title=title)


def _by_direction(unclear: str) -> dict[str, Any]:
    colours = ["var(--good)", "var(--bad)", unclear]
    return {
        "field": "direction",
        "type": "nominal",
        "scale": {"domain": ["better", "worse", "unclear"], "range": colours},
        "legend": None,
    }


def _curve(key: str, name: str, title: str, *, colour: str, label_offset: int) -> "list[altair.Chart]":
    """One loss with its name at its end; the few points of validation are marked, for a line hides where they are."""
    import altair

    measured = altair.Chart().transform_filter(f"isValid(datum.{key})")
    curve = measured.encode(
        x=altair.X("step:Q", title="Optimiser step", axis=altair.Axis(grid=False, tickCount=4)),
        y=altair.Y(
            f"{key}:Q",
            title=title,
            scale=altair.Scale(zero=False),
            axis=altair.Axis(tickCount=4),
        ),
    )
    end = measured.encode(x="max(step):Q", y=altair.Y(f"{key}:Q", aggregate=altair.ArgmaxDef(argmax="step")))
    return [
        curve.mark_line(color=colour, strokeWidth=2),
        curve.mark_point(color=colour, fill="var(--paper)", opacity=float(key != "loss"), strokeWidth=2),
        end.mark_text(align="left", dx=9, dy=label_offset, fontSize=12.5, color=colour, text=name),
    ]


def svg_of(chart: "altair.VConcatChart | altair.LayerChart") -> str:
    """A chart in the look that all charts of the reports have; its colours are CSS variables."""
    import vl_convert

    configured = (
        chart.configure(background="transparent", font=_FONT, padding=8)
        .configure_view(stroke=None)
        .configure_title(anchor="start", fontSize=14, fontWeight=600, color="var(--ink)", offset=12)
        .configure_axis(
            labelColor="var(--muted)",
            titleColor="var(--muted)",
            titleFontWeight="normal",
            titlePadding=10,
            labelFontSize=12,
            titleFontSize=12,
            gridColor="var(--line)",
            domain=False,
            ticks=False,
            labelPadding=8,
        )
    )
    return str(vl_convert.vegalite_to_svg(configured.to_json()))
