"""The forest plot of a campaign: the difference of each run, in a panel for each group of runs."""

from typing import TYPE_CHECKING, Any

from whetstone.report import format as written
from whetstone.report.charts import svg_of
from whetstone.report.kinds.campaign.schema import CampaignReport, RunGroup

if TYPE_CHECKING:
    import altair

__all__ = ["forest_svg", "in_points"]

_WIDE, _NARROW = 380, 150
_WIDE_LABEL, _NARROW_LABEL = 230, 110


def forest_svg(report: CampaignReport, *, narrow: bool = False) -> str | None:
    """Draws it; None where no run is measured. Each panel has its own scale, for no two can be compared.

    Args:
        report: What it says.
        narrow: For a phone: without the numbers beside the plot.
    """
    import altair

    panels = [_panel(report, group, narrow=narrow) for group in report.groups]
    return svg_of(altair.vconcat(*panels, spacing=28)) if panels else None


def in_points(unit: str) -> bool:
    """Whether a metric goes from 0 to 1, and differences of it are written in points."""
    return unit in ("share", "score")


def _rows(report: CampaignReport, group: RunGroup) -> list[dict[str, Any]]:
    scale = group.primary.sign * (100 if in_points(group.primary.unit) else 1)
    bare = written.bare_difference(group.primary.unit)
    rows = []
    for index in group.runs:
        run = report.runs[index]
        if run.measured is None:
            continue
        effect = run.measured.effect
        low, high = sorted((scale * effect.interval.low, scale * effect.interval.high))
        numbers = written.difference(group.primary.unit)(effect.difference)
        rows.append(
            {
                "run": run.name,
                "gain": scale * effect.difference,
                "low": low,
                "high": high,
                "direction": "better" if low > 0 else "worse" if high < 0 else "unclear",
                "numbers": f"{numbers} [{bare(effect.interval.low)}, {bare(effect.interval.high)}]",
                "n": f"n = {effect.n}",
            }
        )
    return rows


def _panel(report: CampaignReport, group: RunGroup, *, narrow: bool) -> "altair.LayerChart":
    import altair

    rows, width = _rows(report, group), _NARROW if narrow else _WIDE
    axis = altair.Axis(
        labelFontSize=13,
        labelPadding=12,
        labelLimit=_NARROW_LABEL if narrow else _WIDE_LABEL,
        labelColor="var(--ink)",
    )
    base = altair.Chart(altair.Data(values=rows)).encode(
        y=altair.Y("run:N", sort=[row["run"] for row in rows], title=None, axis=axis)
    )
    unit = "points" if in_points(group.primary.unit) else group.primary.unit
    x = altair.X(
        "low:Q",
        title=unit if narrow else f"{unit}; right of zero is better",
        axis=altair.Axis(tickCount=3 if narrow else 6, labelExpr="datum.value > 0 ? '+' + datum.label : datum.label"),
    )
    zero = altair.Chart(altair.Data(values=[{"zero": 0}])).mark_rule(color="var(--muted)", strokeWidth=1.5)
    layers = [
        zero.encode(x="zero:Q"),
        base.mark_rule(strokeWidth=3, strokeCap="round").encode(x=x, x2="high:Q", color=_coloured("var(--muted)")),
        base.mark_point(size=70, opacity=1, strokeWidth=2).encode(
            x="gain:Q", stroke=_coloured("var(--muted)"), fill=_coloured("var(--paper)")
        ),
    ]
    if not narrow:
        text = base.mark_text(align="left", fontSize=12.5)
        layers += [
            text.encode(x=altair.value(width + 20), text="numbers:N", color=altair.value("var(--ink)")),
            text.encode(x=altair.value(width + 225), text="n:N", color=altair.value("var(--muted)")),
        ]
    title = group.primary.title if narrow else f"{group.primary.title}, examples {group.data_hash}"
    return altair.layer(*layers).properties(width=width, height=altair.Step(30), title=title)


def _coloured(unclear: str) -> dict[str, Any]:
    colours = ["var(--good)", "var(--bad)", unclear]
    return {
        "field": "direction",
        "type": "nominal",
        "scale": {"domain": ["better", "worse", "unclear"], "range": colours},
        "legend": None,
    }
