"""The report of a training on one screen of a terminal."""

from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from whetstone.report import format as written
from whetstone.report.claims import Claims
from whetstone.report.kinds.training.schema import TrainingReport
from whetstone.report.sparkline import sparkline
from whetstone.report.training import retention_interval

__all__ = ["print_training"]

_LABEL_CELLS = 12
_STYLES = {"bad": "bold red", "open": "yellow", "good": "green"}
_WORDS = {"bad": "mend", "open": "consider", "good": "fine"}
_MOST_ADVICE = 6


def print_training(console: Console, report: TrainingReport, page: Path) -> None:
    """Prints what matters most, and where the rest is.

    Args:
        console: Where to.
        report: What to print.
        page: The page, for the last line.
    """
    claims = Claims(report.model_dump(mode="json"))
    state = "ended" if report.run.finished else "not ended"
    console.print(
        Text.assemble(("TRAINING", "bold"), f"  {report.run.name}  ", (f"{report.run.method}, {state}", "dim"))
    )
    for label, values, said in _curves(report, claims):
        line = Text.assemble((f"{label:<{_LABEL_CELLS}}", "bold"))
        width = console.width - _LABEL_CELLS - len(said) - 2
        # A curve that is too narrow to have a shape is left out; the numbers are not.
        drawn = sparkline(values, min(60, width)) + "  " if values and width >= 8 else ""
        console.print(line.append(drawn, "cyan").append(said))
    console.print(_took(claims))
    for record in range(len(report.retention)):
        console.print(Text.assemble((f"{'retention':<{_LABEL_CELLS}}", "bold"), _retained(claims, record)))
    if report.check is not None:
        console.print(Text.assemble((f"{'data':<{_LABEL_CELLS}}", "bold"), _data(report, claims)))
    console.print(_advice(report))
    console.print(Text(f"report  {page}", style="bold", overflow="fold"))


def _curves(report: TrainingReport, claims: Claims) -> Iterator[tuple[str, list[float], str]]:
    rows = report.rows or ()
    loss, validation = (
        claims.text("loss.last.value", written.decimal),
        claims.text("validation.last.value", written.decimal),
    )
    if report.loss is not None:
        loss = f"{claims.text('loss.first.value', written.decimal)} to {loss}"
    if report.validation is not None:
        best, step = (
            claims.text("validation.best.value", written.decimal),
            claims.text("validation.best.step", written.count),
        )
        validation = f"{validation}, best {best} at step {step}"
    rate = claims.text("progress.tokens_per_s", written.rate)
    yield "loss", [row.loss for row in rows if row.loss is not None], loss
    yield "validation", [row.validation_loss for row in rows if row.validation_loss is not None], validation
    yield (
        "tokens/s",
        [row.tokens_per_s for row in rows if row.tokens_per_s is not None],
        f"{rate}, median" if report.progress and report.progress.tokens_per_s is not None else rate,
    )


def _took(claims: Claims) -> Text:
    step, steps = (claims.text(f"progress.{name}", written.count) for name in ("step", "steps"))
    duration = claims.text("progress.duration_s", written.duration)
    tokens = claims.text("progress.loss_tokens", written.count)
    memory = claims.text("progress.peak_memory_bytes", written.byte_size)
    if claims.value("progress") is None:
        return Text.assemble((f"{'took':<{_LABEL_CELLS}}", "bold"), written.UNMEASURED)
    said = f"{step} of {steps} steps in {duration}, {tokens} tokens learned from, peak memory {memory}"
    return Text.assemble((f"{'took':<{_LABEL_CELLS}}", "bold"), said)


def _retained(claims: Claims, index: int) -> str:
    path = f"retention.{index}"
    difference = claims.text(f"{path}.difference", written.decimal_difference)
    interval = retention_interval(claims, path)
    return f"{written.printable(claims.text(f'{path}.source'))}: {difference} nats per token ({interval})"


def _data(report: TrainingReport, claims: Claims) -> str:
    parts = report.check.parts if report.check else ()
    counts = [f"{part.part} {claims.text(f'check.parts.{i}.rows', written.count)} rows" for i, part in enumerate(parts)]
    findings = report.check.findings if report.check else ()
    kinds = [
        f"{severity} {found.code}"
        for severity in ("error", "warning")
        for found in findings
        if found.severity == severity
    ]
    return ", ".join(counts) + "; " + (", ".join(kinds) if kinds else "no error, no warning")


def _advice(report: TrainingReport) -> Table | Text:
    if not report.advice:
        said = "No rule found anything to change." if report.rows else f"What the rules look at: {written.UNMEASURED}."
        return Text(said)
    table = Table.grid(padding=(0, 1))
    for one in report.advice[:_MOST_ADVICE]:
        text = Text.assemble((f"{one.title}. ", "bold"), f"{one.text()} ", (one.action, "italic"))
        table.add_row(Text(_WORDS[one.tone], style=_STYLES[one.tone]), text)
    if len(report.advice) > _MOST_ADVICE:
        table.add_row("", Text("more in the report", style="dim"))
    return table
