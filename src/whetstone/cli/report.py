"""``whet report``: render the reports of a run again, from its rows."""

from pathlib import Path
from typing import Annotated

import typer

from whetstone.cli.common import JsonOption, RunsOption, resolve_run, show_summary, status

__all__ = ["report"]


def report(
    run: Annotated[str, typer.Argument(help="A run, by name or folder.")],
    runs: RunsOption = Path("runs"),
    as_json: JsonOption = False,
) -> None:
    """Write index.html, report.md and report.json again from the rows alone.

    Example: whet report demo
    """
    from whetstone.report.write import write_report

    found = resolve_run(run, runs)
    with found.lock(), status.status("writing the report"):
        summary = write_report(found)
    show_summary(summary, found, as_json=as_json)
