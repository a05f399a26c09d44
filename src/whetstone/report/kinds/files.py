"""Writes a report of any kind: the page, Markdown with its charts, and JSON."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from whetstone.files import write_atomic, write_json
from whetstone.report.charts import standalone

__all__ = ["Document", "write_document"]


@dataclass(frozen=True, slots=True)
class Document:
    """A report in all its forms.

    Attributes:
        machine: ``report.json``.
        page: ``index.html``.
        markdown: ``report.md``, which refers to the charts by their names.
        charts: Each chart by its name without ``.svg``; None removes what an earlier report left.
    """

    machine: dict[str, Any]
    page: str
    markdown: str
    charts: dict[str, str | None]


def write_document(folder: Path, document: Document) -> None:
    """Writes a report; each file appears whole, the page last.

    Raises:
        UserError: A file cannot be written.
    """
    for name, svg in document.charts.items():
        path = folder / f"{name}.svg"
        if svg is None:
            path.unlink(missing_ok=True)
        else:
            write_atomic(path, standalone(svg))
    # A PDF of the page that was there before would say something else.
    (folder / "report.pdf").unlink(missing_ok=True)
    write_json(folder / "report.json", document.machine)
    write_atomic(folder / "report.md", document.markdown)
    write_atomic(folder / "index.html", document.page)
