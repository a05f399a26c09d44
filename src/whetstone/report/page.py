"""The report as one HTML page that opens from a file: no network, no other file, nothing that a text can break.

Notable: every number goes through :class:`~whetstone.report.claims.Claims`, so it carries its path in ``report.json``
and its unrounded value; texts of models and data sets are escaped by Jinja, and a content security policy lets the
browser run only the one script whose hash it names.
"""

import base64
import functools
import hashlib
import importlib.resources
import json

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from whetstone.report import format as written
from whetstone.report.arms import VARIANTS_CAPTION, arm_words, batch_words
from whetstone.report.changes import ChangeView, view_change
from whetstone.report.charts import training_svg
from whetstone.report.claims import Claims, suite_path
from whetstone.report.forest import forest_of
from whetstone.report.machine import as_json
from whetstone.report.palette import DARK, LIGHT
from whetstone.report.suite_summary import BASELINES
from whetstone.report.summary import Summary
from whetstone.report.training import RETENTION_CAPTION, retention_paths, settings_words

__all__ = ["render_page"]

_CURVE_SIZES = {"wide": (760, 240), "narrow": (215, 190)}
"""A drawing of text cannot reflow, so the curve is drawn for a desk and for a phone."""


def render_page(summary: Summary) -> str:
    """Renders the whole page."""
    report = as_json(summary)
    claims = Claims(report)
    script = (importlib.resources.files("whetstone.report") / "templates" / "page.js").read_text(encoding="utf-8")
    template = _environment().get_template("index.html.j2")
    return template.render(
        arm_words=arm_words(summary.manifest),
        arms=summary.arm_names,
        baselines=BASELINES,
        batch_words=batch_words(summary.manifest),
        changes=_listed_changes(summary, claims),
        claim=claims.html,
        config=json.dumps(report["manifest"]["experiment"], indent=2, ensure_ascii=False),
        curves=_curves(summary),
        dark=DARK,
        extra_arms={arm.name: arm.model for arm in summary.manifest.experiment.judge.arms},
        forest=forest_of(summary),
        light=LIGHT,
        manifest=summary.manifest,
        metrics=summary.held_out.metrics,
        primary=_primary(summary),
        report=report,
        retention=retention_paths(summary.manifest),
        retention_caption=RETENTION_CAPTION,
        script=Markup(script),
        suite_path=suite_path,
        settings=settings_words(summary.manifest),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        training_table=[index for index, _ in enumerate(summary.training)],
        value=claims.value,
        variants_caption=VARIANTS_CAPTION,
        written=written,
    )


@functools.cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("whetstone.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _primary(summary: Summary) -> dict[str, object]:
    return {"metric": summary.primary, "over": summary.manifest.experiment.judge.must_improve[0].over}


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
