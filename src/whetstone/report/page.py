"""The report as one HTML page that opens from a file: no network, no other file, nothing that a text can break.

Notable: every number goes through :class:`~whetstone.report.claims.Claims`, so it carries its path in ``report.json``
and its unrounded value; texts of models and data sets are escaped by Jinja, and a content security policy lets the
browser run only the one script whose hash it names.
"""

import json

from markupsafe import Markup

from whetstone.evaluate.sample import BASE
from whetstone.judge_section import HELD_OUT
from whetstone.report import format as written
from whetstone.report import frame
from whetstone.report.arms import VARIANTS_CAPTION, arm_words, batch_words
from whetstone.report.changes import ChangeView, view_change
from whetstone.report.charts import training_svg
from whetstone.report.claims import Claims, suite_path
from whetstone.report.cost_charts import TELEMETRY, telemetry_svg, tradeoff_svg
from whetstone.report.forest import forest_of
from whetstone.report.listing import suite_listing
from whetstone.report.machine import as_json
from whetstone.report.suite_summary import BASELINES
from whetstone.report.summary import Summary
from whetstone.report.training import RETENTION_CAPTION, retention_paths, settings_words
from whetstone.verdict.proofs import SAME_PROMPTS

__all__ = ["render_page"]

_SCRIPTS = ("page.js", "browser_data.js", "browser.js")
_TELEMETRY_SIZE = (235, 110)
_TELEMETRY_WRITERS = {
    "tokens_per_s": written.rate,
    "memory_bytes": written.byte_size,
    "gradient_norm": written.significant,
    "learning_rate": written.significant,
}
_CURVE_SIZES = {"wide": (760, 240), "narrow": (215, 190)}
"""A drawing of text cannot reflow, so the curve is drawn for a desk and for a phone."""


def render_page(summary: Summary) -> str:
    """Renders the whole page."""
    report = as_json(summary)
    claims = Claims(report)
    return frame.render(
        "index.html.j2",
        scripts=_SCRIPTS,
        arm_words=arm_words(summary.manifest),
        arms=summary.arm_names,
        baselines=BASELINES,
        batch_words=batch_words(summary.manifest),
        changes=_listed_changes(summary, claims),
        claim=claims.html,
        config=json.dumps(report["manifest"]["experiment"], indent=2, ensure_ascii=False),
        curves=_curves(summary),
        extra_arms={arm.name: arm.model for arm in summary.manifest.experiment.judge.arms},
        forest=forest_of(summary),
        manifest=summary.manifest,
        listing=_listing(summary),
        metrics=summary.held_out.metrics,
        primary=_primary(summary),
        prompts_gate=_prompts_gate(summary),
        report=report,
        retention=retention_paths(summary.manifest),
        retention_caption=RETENTION_CAPTION,
        suite_path=suite_path,
        settings=settings_words(summary.manifest),
        summary=summary,
        telemetry=_telemetry(summary),
        telemetry_titles=TELEMETRY,
        telemetry_writers=_TELEMETRY_WRITERS,
        tradeoff_charts=_trade_off(summary),
        training_table=[index for index, _ in enumerate(summary.training)],
        value=claims.value,
        variants_caption=VARIANTS_CAPTION,
    )


def _primary(summary: Summary) -> dict[str, object]:
    rules = summary.manifest.experiment.judge.must_improve
    over = [rule.over for rule in rules if rule.suite == HELD_OUT]
    return {"metric": summary.primary, "over": over[0] if over else BASE}


def _prompts_gate(summary: Summary) -> str | None:
    """Where the report holds the gate on the prompts' hashes."""
    names = [gate.name for gate in summary.verdict.gates]
    return f"gates.{names.index(SAME_PROMPTS)}" if SAME_PROMPTS in names else None


def _listing(summary: Summary) -> Markup:
    """What the script knows of the examples; as JSON without the sign that could end its element."""
    arms = tuple(arm for arm in summary.arm_names if any(arm in suite.evidence.arms for suite in summary.all_suites))
    content = {
        "arms": arms,
        "suites": [suite_listing(suite, arms, summary.listing.places[suite.name]) for suite in summary.all_suites],
    }
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return Markup(text.replace("<", "\\u003c"))


def _listed_changes(summary: Summary, claims: Claims) -> list[ChangeView]:
    """Regressions first: they are what a reader has to know."""
    held_out = summary.held_out
    broken = held_out.broken[: claims.value("changes.broken.listed")]
    fixed = held_out.fixed[: claims.value("changes.fixed.listed")]
    return [
        *(view_change(held_out.change(index), "broken") for index in broken),
        *(view_change(held_out.change(index), "fixed") for index in fixed),
    ]


def _curves(summary: Summary) -> dict[str, Markup]:
    """The chart by size; its texts are our own words and numbers, so it is safe as it is."""
    drawn = {size: training_svg(summary, width=width, height=height) for size, (width, height) in _CURVE_SIZES.items()}
    return {size: Markup(svg) for size, svg in drawn.items() if svg is not None}


def _trade_off(summary: Summary) -> dict[str, Markup]:
    drawn = {
        size: tradeoff_svg(summary, width=width, height=height, memory=size == "wide")
        for size, (width, height) in _CURVE_SIZES.items()
    }
    return {size: Markup(svg) for size, svg in drawn.items() if svg is not None}


def _telemetry(summary: Summary) -> dict[str, Markup | None]:
    width, height = _TELEMETRY_SIZE
    drawn = {key: telemetry_svg(summary.training, key, width=width, height=height) for key in TELEMETRY}
    return {key: None if svg is None else Markup(svg) for key, svg in drawn.items()}
