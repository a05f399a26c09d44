"""``whet check``: what would go wrong, before a token is trained."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from whetstone.cli.common import JsonOption, print_json, resolve_experiment, working

if TYPE_CHECKING:
    from whetstone.data.finding import Finding
    from whetstone.data.sources import SourceSummary
    from whetstone.train.audit import TokenView
    from whetstone.train.check import Checked
    from whetstone.train.estimate import MemoryEstimate
    from whetstone.train.lengths import PartLengths
    from whetstone.train.probe import SpeedEstimate

__all__ = ["check", "print_findings"]

_STYLES = {"error": "bold red", "warning": "yellow", "note": "cyan"}


def check(
    experiment: Annotated[str, typer.Argument(help="An experiment file, or the name of a recipe.")],
    show: Annotated[int, typer.Option(min=0, help="Print so many rows token by token; learned ones are green.")] = 0,
    probe: Annotated[
        bool, typer.Option("--probe/--no-probe", help="Train three steps, and throw them away, to foresee the time.")
    ] = True,
    as_json: JsonOption = False,
) -> None:
    """Check data, template, lengths and memory before a token is trained.

    Exit code 0: nothing stops training; 2: something does.

    Example: whet check grammar.yaml --show 3
    """
    from whetstone.train.check import check as run_checks
    from whetstone.train.check import view_rows
    from whetstone.train.foresee import measure_speed

    chosen = resolve_experiment(experiment, None)
    with working() as say:
        checked = run_checks(chosen, say)
        stopping = checked.stopping(chosen)
        fits = checked.memory is None or checked.memory.fits
        speed = measure_speed(chosen, checked, say) if probe and fits and not stopping else None
    views = view_rows(chosen, checked, show)
    if as_json:
        rows = [[{"text": t.text, "learned": t.learned, "special": t.special} for t in view] for view in views]
        print_json({**checked.as_json(), "speed": speed.as_row() if speed else None, "rows": rows, "ok": not stopping})
    else:
        console = Console()
        _print(console, checked, speed, views)
        console.print(_conclusion(stopping, experiment))
    if stopping:
        raise typer.Exit(2)


def print_findings(console: Console, findings: "list[Finding] | tuple[Finding, ...]") -> None:
    """Prints findings with their examples and mends; nothing where there are none."""
    if not findings:
        return
    table = Table.grid(padding=(0, 1))
    for finding in findings:
        lines: list[RenderableType] = [Text.assemble((f"{finding.code}  ", "bold"), finding.message)]
        lines += [Text(f"  {example}", style="dim") for example in finding.examples]
        lines.append(Text(f"  {finding.mend}", style="italic"))
        table.add_row(Text(finding.severity, style=_STYLES[finding.severity]), Group(*lines))
    console.print(table)


def _print(console: Console, checked: "Checked", speed: "SpeedEstimate | None", views: "list[list[TokenView]]") -> None:
    from whetstone.cli.data_view import bars

    console.print(_sources(checked.sources))
    console.print("", _parts(checked.lengths), "", sep="\n", crop=False)
    trained = checked.lengths[0]
    console.print(Text(f"tokens of a row of {trained.part}; {trained.limit_tokens:,} are allowed"))
    console.print(bars(trained.histogram, trained.limit_tokens))
    for view in views:
        console.print("", _tokens(view), sep="\n")
    if checked.memory is not None:
        console.print("", _memory(checked.memory), sep="\n")
    if speed is not None:
        console.print(_speed(speed))
    console.print("")
    print_findings(console, checked.findings)


def _sources(sources: "tuple[SourceSummary, ...]") -> Table:
    table = Table("source", "format", box=None, header_style="bold", padding=(0, 1, 0, 0))
    for heading in ("rows", "examples", "skipped"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("not used")
    for source in sources:
        name = Path(source.name).name if Path(source.name).is_absolute() else source.name
        counts = (f"{count:,}" for count in (source.rows, source.examples, len(source.skipped)))
        table.add_row(name, source.format, *counts, ", ".join(source.unused))
    return table


def _parts(lengths: "tuple[PartLengths, ...]") -> Table:
    """A line a part, as wide as its numbers are: a number that is cut is another number."""
    headings = ("part", "examples", "groups", "rows", "tokens", "learned", "median", "95 %", "longest", "too long")
    rows = []
    for part in lengths:
        row = part.row_tokens
        lengths_of_rows = (row.median, row.p95, row.maximum) if row else (0, 0, 0)
        numbers = (
            part.examples,
            part.groups,
            part.rows,
            part.tokens,
            part.loss_tokens,
            *lengths_of_rows,
            part.too_long,
        )
        rows.append((part.part, *(f"{number:,.0f}" for number in numbers)))
    table = Table(box=None, header_style="bold", padding=(0, 1, 0, 0))
    for number, heading in enumerate(headings):
        width = max(len(cells[number]) for cells in (headings, *rows))
        table.add_column(heading, justify="right" if number else "left", min_width=width, no_wrap=True)
    for cells, part in zip(rows, lengths, strict=True):
        table.add_row(*cells[:-1], Text(cells[-1], style="bold red" if part.too_long else ""))
    return table


def _tokens(view: "list[TokenView]") -> Text:
    text = Text()
    for token in view:
        style = "bold green" if token.learned else "dim"
        text.append(token.text, style=f"{style} reverse" if token.special else style)
        text.append("│", style="bright_black")
    return text


def _memory(memory: "MemoryEstimate") -> Table:
    from whetstone.report.format import byte_size

    table = Table.grid(padding=(0, 2))
    table.add_column()
    table.add_column(justify="right")
    table.add_row("parameters", f"{memory.total_parameters:,}")
    table.add_row("that train", f"{memory.trainable_parameters:,}")
    parts = {
        "weights": memory.weights_bytes,
        "gradients": memory.gradients_bytes,
        "optimiser": memory.optimiser_bytes,
        "activations": memory.activations_bytes,
        "logits": memory.logits_bytes,
        "allocator": memory.allocator_bytes,
        "program": memory.runtime_bytes,
    }
    for name, size in parts.items():
        if size:
            table.add_row(name, byte_size(size))
    style = "bold" if memory.fits else "bold red"
    table.add_row(Text(f"peak on {memory.device}", style=style), Text(byte_size(memory.peak_bytes), style=style))
    table.add_row("there is", byte_size(memory.held_bytes + memory.available_bytes))
    return table


def _speed(speed: "SpeedEstimate") -> Text:
    from whetstone.report.format import duration

    return Text(
        f"about {duration(speed.epoch_s)} an epoch, {duration(speed.training_s)} in all: "
        f"{speed.tokens_per_s:,.0f} tokens/s over {speed.measured_steps} steps that were thrown away"
    )


def _conclusion(stopping: "list[Finding]", experiment: str) -> Text:
    if not stopping:
        return Text(f"nothing stops training; next: whet tune {experiment}", style="bold green")
    codes = ", ".join(finding.code for finding in stopping)
    return Text(f"training would stop: {codes}", style="bold red")
