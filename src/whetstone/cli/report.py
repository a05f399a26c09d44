"""``whet report``: render the reports of a run again, from its rows."""

from pathlib import Path
from typing import Annotated

import typer

from whetstone.cli.common import JsonOption, RunsOption, print_json, resolve_run, status

__all__ = ["report"]


def report(
    run: Annotated[str, typer.Argument(help="A run, by name or folder.")],
    runs: RunsOption = Path("runs"),
    as_json: JsonOption = False,
) -> None:
    """Write index.html, report.md and report.json again from the rows alone.

    Example: whet report demo
    """
    from rich.console import Console

    from whetstone.report.machine import as_json as to_json
    from whetstone.report.terminal import print_summary
    from whetstone.report.write import write_report

    found = resolve_run(run, runs)
    with found.lock(), status.status("writing the report"):
        summary = write_report(found)
    if as_json:
        print_json(to_json(summary))
    else:
        print_summary(Console(), summary, found.report / "index.html")
