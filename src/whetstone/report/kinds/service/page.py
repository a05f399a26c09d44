"""The report of a server under load as one HTML page."""

from markupsafe import Markup

from whetstone.report.claims import Claims
from whetstone.report.frame import render
from whetstone.report.kinds.service.charts import SATURATION, TITLES, by_level, saturation
from whetstone.report.kinds.service.schema import ServiceReport

__all__ = ["latency", "rate", "render_service"]

_SIZES = {"wide": (840, 240), "narrow": (285, 190)}


def latency(seconds: float) -> str:
    """A latency to three digits: ``0.412 ms``, ``41.2 ms``, ``4.12 s``."""
    digits, unit = (seconds, "s") if seconds >= 0.9995 else (1000 * seconds, "ms")
    decimals = 0 if digits >= 99.95 else 1 if digits >= 9.995 else 2 if digits >= 0.9995 else 3
    return f"{digits:,.{decimals}f}\N{NO-BREAK SPACE}{unit}"


def rate(value: float) -> str:
    """Requests a second, to three digits or more."""
    decimals = 0 if value >= 100 else 1 if value >= 10 else 2
    return f"{value:,.{decimals}f}"


def render_service(report: ServiceReport, drawn: dict[str, dict[str, str | None]]) -> str:
    """Renders the page.

    Args:
        report: What it says.
        drawn: The charts of each load by its path in the report; names of models are text in them, which the drawing
            library escapes.
    """
    claims = Claims(report.model_dump(mode="json"))
    slower, fuller = (
        {size: draw(report, width=width, height=height) for size, (width, height) in _SIZES.items()}
        for draw in (by_level, saturation)
    )
    return render(
        "service.html.j2",
        report=report,
        claim=claims.html,
        value=claims.value,
        drawn={
            path: {name: None if svg is None else Markup(svg) for name, svg in charts.items()}
            for path, charts in drawn.items()
        },
        levels=_by_subject(slower),
        saturation=_by_subject(fuller),
        saturation_title=SATURATION,
        plain=lambda value: f"{value:.3g}",
        rate=rate,
        short=latency,
        titles=TITLES,
    )


def _by_subject(sizes: dict[str, dict[str, str]]) -> dict[str, dict[str, Markup]]:
    return {about: {size: Markup(charts[about]) for size, charts in sizes.items()} for about in sizes["wide"]}
