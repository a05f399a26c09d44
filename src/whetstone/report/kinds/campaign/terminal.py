"""The report of a campaign on one screen of a terminal."""

from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from whetstone.report import format as written
from whetstone.report.claims import Claims
from whetstone.report.kinds.campaign import words
from whetstone.report.kinds.campaign.schema import CampaignReport, RunGroup

__all__ = ["print_campaign"]

_VERDICTS = {"SHIP": "green", "REJECT": "bold red", "INCONCLUSIVE": "yellow"}
_STYLES = {"bad": "bold red", "open": "yellow", "good": "green"}
_WORDS = {"bad": "mend", "open": "consider", "good": "fine"}
_MOST_ADVICE = 4


def print_campaign(console: Console, report: CampaignReport, page: Path) -> None:
    """Prints the runs by what they can be compared on, the recipes, and where the rest is.

    Args:
        console: Where to.
        report: What to print.
        page: The page, for the last line.
    """
    claims = Claims(report.model_dump(mode="json"))
    console.print(Text.assemble(("CAMPAIGN", "bold"), f"  {len(report.runs)} runs"))
    for index, group in enumerate(report.groups):
        about = f"examples {group.data_hash}"
        console.print(Text.assemble(("\n" + group.primary.title, "bold"), "  ", (about, "dim")))
        console.print(_runs(report, group, claims))
        if group.best is not None:
            level = claims.text(f"groups.{index}.best.interval.level", written.level)
            found = words.between(claims, f"groups.{index}.best", group.primary)
            name = written.printable(report.runs[group.best.run].name)
            console.print(Text(f"best of {group.best.runs}  {name}: {found}, {level} for having been chosen"))
    for index in words.unmeasured_runs(report):
        run = report.runs[index]
        said = f"{written.UNMEASURED}: {written.one_line(run.reason or '')}"
        console.print(Text.assemble((f"\n{written.printable(run.name)}  ", "bold"), said))
    for index, recipe in enumerate(report.recipes):
        path, primary = f"recipes.{index}", report.groups[recipe.group].primary
        share = claims.text(f"{path}.seed_share", written.share)
        said = f"{words.between(claims, path, primary)}, {share} of the variance due to seeds"
        about = f"\n{recipe.seed_count} seeds  {written.printable(words.names(report, recipe.runs))}: "
        console.print(Text.assemble((about, "bold"), said))
    if report.advice:
        console.print()
        console.print(_advice(report))
    console.print(Text(f"report  {page}", style="bold", overflow="fold"))


def _runs(report: CampaignReport, group: RunGroup, claims: Claims) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 2, 0, 0), pad_edge=False)
    for name in ("run", "base to tuned", "difference", "n", "training", "verdict"):
        table.add_column(name, justify="left" if name in ("run", "verdict") else "right", overflow="fold")
    score = written.score(group.primary.unit)
    for index in group.runs:
        path = f"runs.{index}"
        before, after = (claims.text(f"{path}.measured.effect.{arm}_mean", score) for arm in ("baseline", "candidate"))
        verdict = claims.text(f"{path}.measured.verdict")
        table.add_row(
            Text(written.printable(report.runs[index].name)),
            f"{before} to {after}",
            words.between(claims, f"{path}.measured.effect", group.primary).replace(" (", "\n(", 1),
            claims.text(f"{path}.measured.effect.n", written.count),
            claims.text(f"{path}.training.duration_s", written.duration),
            Text(verdict, style=_VERDICTS[verdict]),
        )
    return table


def _advice(report: CampaignReport) -> Table:
    table = Table.grid(padding=(0, 1))
    for one in report.advice[:_MOST_ADVICE]:
        text = Text.assemble((f"{written.printable(one.title)}. ", "bold"), f"{one.text()} ", (one.action, "italic"))
        table.add_row(Text(_WORDS[one.tone], style=_STYLES[one.tone]), text)
    if len(report.advice) > _MOST_ADVICE:
        table.add_row("", Text("more in the report", style="dim"))
    return table
