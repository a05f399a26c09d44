"""The report on one screen of a terminal: verdict, gates, arms, what got fixed and what broke.

Readable without colour: states are words, taken-out words stand in ``[-…-]`` and put-in words in ``{+…+}``, as in
``git diff --word-diff``.
"""

import textwrap
from collections.abc import Sequence
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from whetstone.evaluate.sample import BASE
from whetstone.report import format as written
from whetstone.report.arms import variant_words
from whetstone.report.changes import Answer, view_change
from whetstone.report.claims import Claims, suite_path, suite_title, unguarded_loss
from whetstone.report.difference import Piece
from whetstone.report.machine import as_json
from whetstone.report.suite_summary import SuiteSummary
from whetstone.report.summary import Summary
from whetstone.report.training import forgotten_sentence, retention_paths, retention_words, settings_words

__all__ = ["print_summary"]

_STYLES = {
    "SHIP": "bold green",
    "REJECT": "bold red",
    "INCONCLUSIVE": "bold yellow",
    "passed": "green",
    "failed": "bold red",
    "open": "yellow",
    "same": "",
    "removed": "red strike",
    "added": "green underline",
}
_RATES = (
    ("over_edit", "over edit"),
    ("copy_rate", "copied"),
    ("extra_text", "extra text"),
    ("empty", "empty"),
    ("too_short", "too short"),
)
_BAR_CELLS = 10
_NAME_CELLS = 10
_ADVICE_SHOWN = 2
_WIDE = 96
"""Columns from which there is room for bars."""


def print_summary(console: Console, summary: Summary, report: Path | None = None) -> None:
    """Prints the summary.

    Args:
        console: Where to.
        summary: What to print.
        report: The page, for the last line; without it the line names the file inside the run.
    """
    claims = Claims(as_json(summary))
    judgement = summary.manifest.judgement
    outcome = summary.verdict.outcome
    console.print(Text.assemble((outcome, _STYLES[outcome]), f"  {summary.manifest.name}"))
    frozen = f"{judgement.rule_hash}, frozen {judgement.frozen_at}" if judgement else written.UNMEASURED
    level = claims.text("verdict.confidence", written.level)
    console.print(Text(f"rule {frozen}; intervals of {level}", style="dim"))
    arms = _arms(summary, claims, wide=console.width >= _WIDE)
    console.print(_gates(summary, claims), "", arms, "", _flips(claims), sep="\n")
    for arm in summary.manifest.experiment.judge.arms:
        console.print(Text.assemble(("variant   ", "bold"), variant_words(summary, claims, arm.name)))
    for suite in summary.suites:
        console.print(Text.assemble(("suite     ", "bold"), _suite(suite, claims)))
    for about, said in _training(summary, claims):
        console.print(Text.assemble((f"{about:<9} ", "bold"), written.printable(said)))
    advice = [one for one in claims.value("recommendations") if one["state"] == "advised"]
    for one in advice[:_ADVICE_SHOWN]:
        console.print(Text.assemble(("next      ", "bold"), written.printable(written.sentence(one["text"]))))
    for line in _changes(summary):
        line.truncate(console.width, overflow="ellipsis")
        console.print(line)
    where = report or f"report/index.html in the run {summary.manifest.name}"
    console.print(Text(f"report  {where}", style="bold", overflow="fold"))


def _gates(summary: Summary, claims: Claims) -> Table:
    table = Table.grid(padding=(0, 1))
    for gate in summary.verdict.gates:
        text = Text.assemble((f"{gate.name}: ", "bold"), written.sentence(gate.reason))
        if gate.remedy:
            text.append(f" {written.sentence(gate.remedy)}", style="italic")
        table.add_row(Text(gate.state, style=_STYLES[gate.state]), text)
    for suite, found in summary.unguarded_losses:
        title = suite_title(suite, found.metric.title)
        loss = Text.assemble((f"Outside the rule: {title}: ", "bold"), unguarded_loss(claims, suite, found))
        table.add_row(Text("worse", style=_STYLES["failed"]), loss)
    paths = retention_paths(summary.manifest)
    for record in summary.forgotten:
        said = forgotten_sentence(claims, paths[record.source])
        loss = Text.assemble((f"Outside the rule: {record.source}: ", "bold"), said)
        table.add_row(Text("worse", style=_STYLES["failed"]), loss)
    return table


def _arms(summary: Summary, claims: Claims, *, wide: bool) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1 if wide else 0, 0, 0), pad_edge=False)
    table.add_column("arm", no_wrap=True)
    table.add_column("n", justify="right")
    table.add_column("exact match", no_wrap=True)
    if wide:
        table.add_column("", no_wrap=True)
    for _, title in _RATES:
        table.add_column(title, justify="right")
    table.add_column("tokens/s", justify="right", min_width=8)
    for arm in summary.arm_names:
        exact, name = f"arms.{arm}.exact_match", "\n".join(textwrap.wrap(arm, _NAME_CELLS))
        if claims.value(exact) is None:
            table.add_row(name, "", Text(written.UNMEASURED, style="italic"))
            continue
        bars = [_bar(claims.value(f"{exact}.mean"))] if wide else []
        rates = [claims.text(f"arms.{arm}.{name}.mean", written.share) for name, _ in _RATES]
        speed = claims.text(f"speed.{arm}.tokens_per_s", written.rate)
        table.add_row(name, claims.text(f"{exact}.n", written.count), _estimate(claims, exact), *bars, *rates, speed)
    return table


def _estimate(claims: Claims, path: str) -> str:
    mean = claims.text(f"{path}.mean", written.share)
    if claims.value(f"{path}.interval") is None:
        return mean
    low, high = (claims.text(f"{path}.interval.{end}", written.bare_score("share")) for end in ("low", "high"))
    return f"{mean} [{low}, {high}]"


def _bar(mean: float) -> Text:
    filled = round(mean * _BAR_CELLS)
    return Text.assemble(("█" * filled, "cyan"), ("░" * (_BAR_CELLS - filled), "dim"))


def _flips(claims: Claims) -> Text:
    if claims.value("flips") is None:
        return Text(f"fixed and broken: {written.UNMEASURED}")
    counts = {name: claims.text(f"flips.{name}", written.count) for name in claims.value("flips")}
    p = claims.text("comparisons.exact_match.base.p_value", written.p_value)
    method = claims.text("comparisons.exact_match.base.p_method")
    noise = written.UNMEASURED
    if claims.value("noise_floor") is not None:
        unit = claims.value(f"metrics.{claims.value('noise_floor.metric')}.unit")
        noise = claims.text("noise_floor.difference", written.difference(unit))
    return Text.assemble(
        (f"fixed {counts['fixed']}", "green"),
        ", ",
        (f"broken {counts['broken']}", "red"),
        f", right before and after {counts['both_right']}, wrong before and after {counts['both_wrong']}: "
        f"p {p} ({method}); noise floor {noise}",
    )


def _training(summary: Summary, claims: Claims) -> list[tuple[str, str]]:
    """What training used, what it left of the base, and what went otherwise than asked."""
    settings = settings_words(summary.manifest)
    lines = [] if settings is None else [("training", settings)]
    lines += [("retention", retention_words(claims, path)) for path in retention_paths(summary.manifest).values()]
    judgement = summary.manifest.judgement
    if judgement is not None and judgement.no_few_shot is not None:
        lines.append(("few-shot", f"left out: {judgement.no_few_shot}"))
    return [*lines, *(("note", note) for note in summary.manifest.notes)]


def _suite(suite: SuiteSummary, claims: Claims) -> str:
    """The first metric of a suite that can be won, on one line."""
    unit, path = suite.primary.unit, f"{suite_path(suite.name)}comparisons.{suite.primary.name}.base"
    if claims.value(path) is None:
        return f"{suite.name}: {written.UNMEASURED}"
    tuned, base = (claims.text(f"{path}.{arm}_mean", written.score(unit)) for arm in ("candidate", "baseline"))
    low, high = (claims.text(f"{path}.interval.{end}", written.bare_difference(unit)) for end in ("low", "high"))
    moved, n = claims.text(f"{path}.difference", written.difference(unit)), claims.text(f"{path}.n", written.count)
    title = suite.primary.title.lower()
    return f"{suite.name}: {title} {tuned} against {base} of the base: {moved} [{low}, {high}], n = {n}"


def _changes(summary: Summary) -> list[Text]:
    """The worst regression and the first fix, a line a text."""
    if summary.comparison("exact_match", BASE) is None:
        return []
    held_out = summary.held_out
    views = [view_change(held_out.change(index), "broken") for index in held_out.broken[:1]]
    views += [view_change(held_out.change(index), "fixed") for index in held_out.fixed[:1]]
    lines = []
    for view in views:
        title = "worst regression" if view.kind == "broken" else "a fix"
        lines.append(Text(f"{title}, {written.one_line(view.example)}, against the {view.against}", style="bold"))
        lines.append(Text(f"  input  {written.one_line(view.input)}"))
        lines.extend(_answer(answer) for answer in view.answers)
    return lines


def _answer(answer: Answer) -> Text:
    line = Text(f"  {answer.who.lower():<5}  ")
    if not answer.pieces:
        return line.append("(empty)", style="italic")
    return line.append_text(_words(answer.pieces))


def _words(pieces: Sequence[Piece]) -> Text:
    marks = {"same": ("", ""), "removed": ("[-", "-]"), "added": ("{+", "+}")}
    return Text(" ").join(
        Text("".join((marks[piece.kind][0], written.printable(piece.text), marks[piece.kind][1])), _STYLES[piece.kind])
        for piece in pieces
    )
