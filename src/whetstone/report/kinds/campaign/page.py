"""The report of a campaign as one HTML page."""

from markupsafe import Markup

from whetstone.report.claims import Claims
from whetstone.report.frame import render
from whetstone.report.kinds.advice import writer
from whetstone.report.kinds.campaign import words
from whetstone.report.kinds.campaign.schema import CampaignReport

__all__ = ["render_campaign"]


def render_campaign(report: CampaignReport, drawn: dict[str, str | None]) -> str:
    """Renders the page.

    Args:
        report: What it says.
        drawn: The forest plot by its size, ``wide`` and ``narrow``; names of runs are text in it, which the drawing
            library escapes.
    """
    return render(
        "campaign.html.j2",
        report=report,
        claim=Claims(report.model_dump(mode="json")).html,
        drawn={size: Markup(svg) for size, svg in drawn.items() if svg is not None},
        tones={"SHIP": "good", "REJECT": "bad", "INCONCLUSIVE": "open"},
        words=words,
        writer=writer,
    )
