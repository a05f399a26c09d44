"""Writes the report of a server under load."""

from pathlib import Path

from whetstone.report.kinds.files import Document, write_document
from whetstone.report.kinds.service.charts import draw_load, saturation
from whetstone.report.kinds.service.markdown import markdown_service
from whetstone.report.kinds.service.page import render_service
from whetstone.report.kinds.service.schema import Objective, ServiceReport
from whetstone.report.kinds.service.summarise import summarise_service

__all__ = ["write_service_report"]

_LEVELS = (600, 220)


def write_service_report(requests: Path, folder: Path, title: str, objective: Objective | None) -> ServiceReport:
    """Reads measured requests, and writes ``index.html``, ``report.md`` with charts, ``report.json``.

    Args:
        requests: The rows, ``requests.jsonl``.
        folder: Where to write.
        title: Of the report.
        objective: What a good answer keeps to; None where nobody stated it.

    Raises:
        UserError: The rows are missing or damaged, or a file cannot be written.
    """
    report = summarise_service(requests, title, objective)
    drawn = {f"loads.{index}": draw_load(load) for index, load in enumerate(report.loads)}
    charts = {
        f"{path.replace('loads.', 'load-')}-{name}": svg for path, of in drawn.items() for name, svg in of.items()
    }
    width, height = _LEVELS
    levels = saturation(report, width=width, height=height)
    charts |= {f"load-levels-{index}": svg for index, svg in enumerate(levels.values())}
    # An earlier report may have had more loads.
    stale = {file.stem for file in folder.glob("load-*-*.svg")} - charts.keys()
    charts |= dict.fromkeys(stale)
    write_document(
        folder,
        Document(
            machine=report.model_dump(mode="json"),
            page=render_service(report, drawn),
            markdown=markdown_service(report, charts),
            charts=charts,
        ),
    )
    return report
