"""How examples and their numbers look in a terminal."""

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from whetstone.data.example import Example
from whetstone.data.finding import excerpt
from whetstone.data.statistics import Bin, Lengths, Spread, Statistics
from whetstone.report.format import printable, share

if TYPE_CHECKING:
    from whetstone.data.sources import SourceSummary

__all__ = ["bars", "example_panel", "print_parts", "print_statistics", "source_line", "source_lines_to_paste"]

_LONGEST_TEXT_CHARS = 2000
_LONGEST_LIST_CHARS = 200
_BAR_CHARS = 40
_EIGHTHS = " ▏▎▍▌▋▊▉"
_CATEGORIES_SHOWN = 20


def source_line(summary: "SourceSummary") -> Text:
    """What was read, on one line."""
    skipped = f", {len(summary.skipped):,} left out" if summary.skipped else ""
    unused = f"; not used: {excerpt(', '.join(summary.unused), _LONGEST_LIST_CHARS)}" if summary.unused else ""
    counts = f"{summary.rows:,} rows, {summary.examples:,} examples{skipped}"
    return Text(f"{summary.name}: format {summary.format}, {counts}{unused}")


def example_panel(example: Example) -> Panel:
    """One example as it would be learned: the turns, the references, and what it belongs to."""
    body = Text()
    for turn in example.messages:
        body.append(f"{turn.role}  ", "bold cyan").append(_shown(turn.content)).append("\n")
    for number, reference in enumerate(example.references, 1):
        name = "text" if not example.messages else "answer" if number == 1 else f"or ({number})"
        body.append(f"{name}  ", "bold green").append(_shown(reference)).append("\n")
    body.append(f"group {printable(example.group)}, category {printable(example.category)}", "dim")
    return Panel(body, title=Text(printable(example.id)), title_align="left")


def print_statistics(console: Console, part: str, statistics: Statistics) -> None:
    """The numbers of one part."""
    if part != "all":
        console.print(Text(f"\n{part}", "bold"))
    facts = Table.grid(padding=(0, 2))
    facts.add_row("examples", f"{statistics.examples:,}")
    facts.add_row("groups", f"{statistics.groups:,}")
    if statistics.identity_share is not None:
        facts.add_row("answer is the source", share(statistics.identity_share))
    console.print(facts)
    spreads = Table("", box=None)
    for name in ("min", "median", "p95", "max"):
        spreads.add_column(name, justify="right")
    for label, spread in _spreads(statistics):
        values = (spread.minimum, spread.median, spread.p95, spread.maximum)
        spreads.add_row(label, *(f"{value:,.0f}" if value == int(value) else f"{value:,.1f}" for value in values))
    console.print(spreads)
    console.print(_categories(statistics.categories, statistics.examples))
    for label, lengths in (("prompt", statistics.prompt), ("answer", statistics.answer)):
        if lengths is not None:
            console.print(Text(f"words in the {label}"))
            console.print(bars(lengths.histogram))


def print_parts(console: Console, parts: Mapping[str, Sequence[Example]]) -> None:
    """How many rows and groups of the largest categories are in each part, and of the others together."""
    table = Table("rows / groups", *parts, box=None)
    categories = Counter(example.category for part in parts.values() for example in part)
    shown = {name for name, _ in categories.most_common(_CATEGORIES_SHOWN)}
    members: dict[tuple[str | None, str], list[Example]] = {}
    for part, examples in parts.items():
        for example in examples:
            kind = example.category if example.category in shown else None
            members.setdefault((kind, part), []).append(example)
    for category, _ in categories.most_common(_CATEGORIES_SHOWN):
        cells = (_rows_and_groups(members.get((category, part), ())) for part in parts)
        table.add_row(Text(printable(category)), *cells)
    if len(categories) > _CATEGORIES_SHOWN:
        cells = (_rows_and_groups(members.get((None, part), ())) for part in parts)
        table.add_row(f"{len(categories) - _CATEGORIES_SHOWN:,} others", *cells)
    if len(categories) > 1:
        table.add_row("together", *(_rows_and_groups(part) for part in parts.values()))
    console.print(table)


def bars(bins: Sequence[Bin], limit: int | None = None) -> Table:
    """A histogram, a line a bin; bins beyond a limit are red."""
    most = max((one.count for one in bins), default=0)
    table = Table.grid(padding=(0, 1))
    table.add_column(justify="right")
    table.add_column(justify="right")
    for one in bins:
        label = f"{one.start:,}" if one.start == one.end else f"{one.start:,}-{one.end:,}"
        style = "red" if limit is not None and one.start > limit else "cyan"
        table.add_row(f"  {label}", f"{one.count:,}", Text(_bar(one.count / most), style))
    return table


def source_lines_to_paste(paths: Mapping[str, str]) -> str:
    """The line of an experiment's data section that names the parts."""
    parts = ", ".join(f"{name}: {_yaml(path)}" for name, path in paths.items())
    return f"source: {{{parts}}}"


def _yaml(path: str) -> str:
    """A path as YAML, in quotes where it needs them (JSON's are right in YAML too)."""
    return path if re.fullmatch(r"[A-Za-z/][\w./-]*", path) else json.dumps(path, ensure_ascii=False)


def _shown(text: str) -> str:
    more = len(text) - _LONGEST_TEXT_CHARS
    return printable(text) if more <= 0 else f"{printable(text[:_LONGEST_TEXT_CHARS])}… ({more:,} characters more)"


def _spreads(statistics: Statistics) -> list[tuple[str, Spread]]:
    def both(label: str, lengths: Lengths | None) -> list[tuple[str, Spread]]:
        if lengths is None:
            return []
        return [(f"{label}, characters", lengths.characters), (f"{label}, words", lengths.words)]

    return [
        *both("prompt", statistics.prompt),
        *both("answer", statistics.answer),
        ("references of an example", statistics.references),
        ("turns of a prompt", statistics.turns),
        ("examples of a group", statistics.group_sizes),
    ]


def _categories(categories: Mapping[str, int], total: int) -> Table:
    table = Table("category", box=None)
    table.add_column("examples", justify="right")
    table.add_column("share", justify="right")
    for name, count in list(categories.items())[:_CATEGORIES_SHOWN]:
        table.add_row(Text(printable(name)), f"{count:,}", share(count / total))
    if len(categories) > _CATEGORIES_SHOWN:
        rest = sum(list(categories.values())[_CATEGORIES_SHOWN:])
        table.add_row(f"{len(categories) - _CATEGORIES_SHOWN:,} others", f"{rest:,}", share(rest / total))
    return table


def _bar(part: float) -> str:
    """A bar in eighths of a character; what is there is seen."""
    eighths = max(round(part * _BAR_CHARS * 8), 1) if part else 0
    return "█" * (eighths // 8) + _EIGHTHS[eighths % 8].strip()


def _rows_and_groups(examples: Sequence[Example]) -> str:
    return f"{len(examples):,} / {len({example.group for example in examples}):,}"
