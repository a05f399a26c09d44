"""``whet audit``: what a report claims, against what its own numbers bear out."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from whetstone.audit.finding import WIDEST_POINTS
from whetstone.cli.common import JsonOption, print_json, working
from whetstone.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console

    from whetstone.audit.audit import Audit
    from whetstone.audit.finding import Finding

__all__ = ["audit"]

_STYLES = {"impossible": "bold red", "contradicted": "red", "unsupported": "yellow", "weak": "cyan"}
_MEANINGS = {
    "impossible": "no data can give it",
    "contradicted": "other numbers of the report say otherwise",
    "unsupported": "nothing in the report could give it",
    "weak": "it may be true; the report shows too little to tell",
}


def audit(
    report: Annotated[Path, typer.Argument(help="A report in Markdown, whoever wrote it.")],
    points: Annotated[
        float, typer.Option(min=0, max=100, help="The widest 95 % interval that a rate may leave unsaid, in points.")
    ] = WIDEST_POINTS,
    as_json: JsonOption = False,
) -> None:
    """Find claims in a report that its own numbers do not bear out.

    Reads the report alone: what it says of nothing but itself cannot be checked. Exit code 0: nothing is flagged;
    1: something is; 2: the report cannot be read.

    Example: whet audit RESULTS.md
    """
    from rich.console import Console

    from whetstone.audit.audit import audit as run_audit

    text = _read(report)
    with working() as say:
        say("reading the claims")
        audited = run_audit(text, points)
    if as_json:
        print_json({"report": str(report), **audited.as_row()})
    else:
        _print(Console(highlight=False), report, audited)
    if audited.findings:
        raise typer.Exit(1)


def _read(path: Path) -> str:
    """The text of a report; anything that is no text is refused in one line."""
    if path.suffix.lower() in (".json", ".jsonl", ".html", ".htm", ".pdf", ".ipynb"):
        raise UserError(f"{path}: is not Markdown; give the report as .md")
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); give a Markdown file") from None
    if b"\0" in raw:
        raise UserError(f"{path}: is binary; give a Markdown file")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise UserError(f"{path}: line {line} is not UTF-8; save it as UTF-8") from None


def _print(console: "Console", path: Path, audited: "Audit") -> None:
    from rich.text import Text

    from whetstone.audit.finding import SEVERITIES

    for severity in SEVERITIES:
        found = [finding for finding in audited.findings if finding.severity == severity]
        if found:
            heading = Text.assemble((severity, _STYLES[severity]), f": {_MEANINGS[severity]}")
            console.print(heading)
            _print_table(console, found)
            console.print()
    console.print(Text(_conclusion(path, audited), style="bold" if audited.findings else "bold green"), soft_wrap=True)


def _print_table(console: "Console", findings: "list[Finding]") -> None:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    from whetstone.report.format import printable

    table = Table("line", "claim", "why", box=None, header_style="bold", padding=(0, 2, 1, 0))
    table.columns[0].justify = "right"
    table.columns[1].ratio, table.columns[2].ratio = 2, 3
    for finding in findings:
        claim = Group(
            Text(printable(finding.claim.said), style="bold"), Text(printable(finding.claim.quote), style="dim")
        )
        why = Group(
            Text(printable(finding.arithmetic)),
            Text(f"{printable(finding.mend)}  [{finding.rule}]", style="italic"),
        )
        table.add_row(f"{finding.claim.line:,}", claim, why)
    console.print(table)


def _conclusion(path: Path, audited: "Audit") -> str:
    if not audited.claims:
        return f"{path}: no claim was found"
    return (
        f"{path}: {audited.claims:,} claims, {audited.flagged:,} flagged, {audited.supported:,} supported by the "
        f"report's own numbers, {audited.unchecked:,} that cannot be checked"
    )
