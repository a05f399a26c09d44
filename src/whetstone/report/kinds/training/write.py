"""Writes the report of a training into its run."""

from pathlib import Path

from whetstone.report.kinds.files import Document, write_document
from whetstone.report.kinds.training.charts import draw_loss, draw_small
from whetstone.report.kinds.training.evidence import load
from whetstone.report.kinds.training.markdown import markdown_training
from whetstone.report.kinds.training.page import render_training
from whetstone.report.kinds.training.schema import TrainingReport
from whetstone.report.kinds.training.summarise import summarise_training
from whetstone.run import Run

__all__ = ["write_training_report"]

_WIDTH, _HEIGHT = 720, 240


def write_training_report(run: Run, folder: Path) -> TrainingReport:
    """Reads what the training of a run left, and writes ``index.html``, ``report.md`` with charts, ``report.json``.

    Args:
        run: The run.
        folder: Where to write.

    Raises:
        UserError: A file of the run is damaged, or one cannot be written.
    """
    report = summarise_training(load(run))
    small = draw_small(report)
    charts = {"loss": draw_loss(report, width=_WIDTH, height=_HEIGHT), **small}
    write_document(
        folder,
        Document(
            machine=report.model_dump(mode="json"),
            page=render_training(report, small),
            markdown=markdown_training(report, charts),
            charts=charts,
        ),
    )
    return report
