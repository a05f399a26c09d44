"""Writes the report of a run: the page, Markdown with its charts, and JSON."""

from whetstone.files import write_atomic, write_json
from whetstone.report.charts import forest_svg, standalone, training_svg
from whetstone.report.cost_charts import tradeoff_svg
from whetstone.report.machine import as_json
from whetstone.report.markdown import render_markdown
from whetstone.report.page import render_page
from whetstone.report.summary import Summary, summarise
from whetstone.run import Run

__all__ = ["write_report"]

_CURVE_WIDTH, _CURVE_HEIGHT = 640, 220
_PLOT_HEIGHT = 300


def write_report(run: Run) -> Summary:
    """Summarises a run and writes ``report/``; each file appears whole, and no chart of an earlier report stays.

    Raises:
        UserError: There are no samples, rows are damaged, or a file cannot be written.
    """
    summary = summarise(run)
    charts = {
        "forest.svg": forest_svg(summary),
        "training.svg": training_svg(summary, width=_CURVE_WIDTH, height=_CURVE_HEIGHT),
        "tradeoff.svg": tradeoff_svg(summary, width=_CURVE_WIDTH, height=_PLOT_HEIGHT, memory=True),
    }
    # A PDF of the page that was there before would say something else.
    (run.report / "report.pdf").unlink(missing_ok=True)
    for name, svg in charts.items():
        if svg is None:
            (run.report / name).unlink(missing_ok=True)
        else:
            write_atomic(run.report / name, standalone(svg))
    write_json(run.report / "report.json", as_json(summary))
    write_atomic(run.report / "report.md", render_markdown(summary))
    write_atomic(run.report / "index.html", render_page(summary))
    return summary
