"""Writes the report of a campaign."""

from collections.abc import Sequence
from pathlib import Path

from whetstone.report.kinds.campaign.charts import forest_svg
from whetstone.report.kinds.campaign.markdown import markdown_campaign
from whetstone.report.kinds.campaign.page import render_campaign
from whetstone.report.kinds.campaign.read import read_runs
from whetstone.report.kinds.campaign.schema import CampaignReport
from whetstone.report.kinds.campaign.summarise import summarise_campaign
from whetstone.report.kinds.files import Document, write_document
from whetstone.run import Run

__all__ = ["write_campaign_report"]


def write_campaign_report(runs: Sequence[Run], folder: Path) -> CampaignReport:
    """Reads judged runs, and writes ``index.html``, ``report.md`` with ``forest.svg``, and ``report.json``.

    Args:
        runs: Two or more, each once.
        folder: Where to write.

    Raises:
        UserError: Fewer than two runs, one given twice, or a file cannot be written.
    """
    report = summarise_campaign(read_runs(runs))
    drawn = {"wide": forest_svg(report), "narrow": forest_svg(report, narrow=True)}
    charts = {"forest": drawn["wide"]}
    write_document(
        folder,
        Document(
            machine=report.model_dump(mode="json"),
            page=render_campaign(report, drawn),
            markdown=markdown_campaign(report, charts),
            charts=charts,
        ),
    )
    return report
