"""How answers of a chat appear: streamed as plain text, in two columns, or as JSON lines."""

import asyncio
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Protocol

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.table import Table
from rich.text import Text

from whetstone.cli.provenance import RANDOM_WEIGHTS
from whetstone.errors import UserError
from whetstone.report.format import printable

if TYPE_CHECKING:
    from whetstone.engine.conversation import Conversation, Turn
    from whetstone.engine.provenance import Provenance

__all__ = ["NARROWEST_COLUMNS", "Columns", "JsonLines", "Plain", "Side", "View", "end_note"]

NARROWEST_COLUMNS = 80
"""A terminal that is narrower shows two answers one after the other."""

_LINES_AROUND = 4
"""Lines that a growing answer leaves free, so that the view never scrolls."""


@dataclass(frozen=True, slots=True)
class Side:
    """One of the models that are talked to."""

    conversation: "Conversation"
    provenance: "Provenance"


class View(Protocol):
    """Asks and shows."""

    def ask(self, sides: Sequence[Side], question: str) -> bool:
        """Asks all sides and shows their answers as they come.

        Returns:
            Whether an answer was cancelled.

        Raises:
            UserError: It cannot be asked; the histories are as they were.
        """
        ...


class Plain:
    """Streams one answer after the other, as text."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def ask(self, sides: Sequence[Side], question: str) -> bool:
        """Asks one side after the other; what is cancelled is only the answer that is running."""
        for side in sides:
            side.conversation.request(question)
        cancelled = False
        for number, side in enumerate(sides):
            if len(sides) > 1:
                self._console.print(Text(f"── {side.provenance.ref}", style="bold"), soft_wrap=True)
            if side.provenance.random_weights:
                self._console.print(Text(RANDOM_WEIGHTS, style="bold red"), soft_wrap=True)
            try:
                cancelled |= _asked([side], question, [self._write])
            except UserError:
                # Every history holds the same questions.
                for earlier in sides[:number]:
                    earlier.conversation.undo()
                raise
            self._console.out("")
            if note := _note(side):
                self._console.print(Text(note, style="dim"), soft_wrap=True)
        return cancelled

    def _write(self, text: str) -> None:
        self._console.out(printable(text), end="", highlight=False)


class Columns:
    """Streams the answers of two sides beside each other."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def ask(self, sides: Sequence[Side], question: str) -> bool:
        """Asks both sides at once; while they answer, the ends of their texts are shown, and then the whole."""
        for side in sides:
            side.conversation.request(question)
        grown: list[list[str]] = [[] for _ in sides]
        with Live(_Growing(sides, grown), console=self._console, transient=True, vertical_overflow="crop"):
            cancelled = _asked(sides, question, [pieces.append for pieces in grown])
        self._console.print(_beside(sides, [_said(pieces) for pieces in grown], ends=True))
        return cancelled


class JsonLines:
    """Writes one JSON object a question."""

    def __init__(self) -> None:
        self._turn = 0

    def ask(self, sides: Sequence[Side], question: str) -> bool:
        """Asks all sides at once; a question that cannot be asked gives an object, too, which says why."""
        self._turn += 1
        try:
            cancelled = _asked(sides, question, [lambda _: None for _ in sides])
        except UserError as error:
            self._write({"turn": self._turn, "question": question, "error": str(error)})
            raise
        self._write({"turn": self._turn, "question": question, "answers": [_answer_row(side) for side in sides]})
        return cancelled

    def _write(self, row: dict[str, Any]) -> None:
        sys.stdout.write(json.dumps(row, ensure_ascii=False) + "\n")
        sys.stdout.flush()


def end_note(turn: "Turn") -> str:
    """Why an answer is not whole; "" where it is."""
    completion = turn.completion
    match completion.finish_reason:
        case "length" if turn.fills_context:
            return "(cut off: the context is full; /reset forgets the history)"
        case "length":
            return f"(cut off after {completion.usage.new_tokens:,} tokens; --max-new-tokens N allows more)"
        case "cancelled":
            return "(cancelled)"
        case "deadline" | "error":
            return f"(failed: {completion.error or completion.finish_reason}; /retry asks again)"
        case _:
            return ""


class _Growing:
    """The ends of answers that are still coming, as high as the terminal."""

    def __init__(self, sides: Sequence[Side], grown: Sequence[Sequence[str]]) -> None:
        self._sides = sides
        self._grown = grown

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width = options.max_width // len(self._sides) - 2
        height = max(1, console.height - _LINES_AROUND)
        shown = []
        for pieces in self._grown:
            lines = _said(pieces).wrap(console, width)
            shown.append(Text("\n").join(lines[-height:]))
        yield _beside(self._sides, shown)


def _asked(sides: Sequence[Side], question: str, tells: Sequence[Callable[[str], None]]) -> bool:
    from whetstone.engine.conversation import ask_all

    # The runner turns the first Ctrl-C into a cancellation of what it runs.
    return asyncio.run(ask_all([side.conversation for side in sides], question, tells))


def _said(pieces: Sequence[str]) -> Text:
    return Text(printable("".join(pieces)))


def _beside(sides: Sequence[Side], texts: Sequence[Text], *, ends: bool = False) -> Table:
    table = Table.grid(padding=(0, 2, 0, 0), expand=True)
    for _ in sides:
        table.add_column(ratio=1)
    table.add_row(*(Text(side.provenance.ref, style="bold") for side in sides))
    if any(side.provenance.random_weights for side in sides):
        warnings = (RANDOM_WEIGHTS if side.provenance.random_weights else "" for side in sides)
        table.add_row(*(Text(warning, style="bold red") for warning in warnings))
    table.add_row(*texts)
    if ends:
        table.add_row(*(Text(_note(side), style="dim") for side in sides))
    return table


def _note(side: Side) -> str:
    turns = side.conversation.turns
    return end_note(turns[-1]) if turns else ""


def _answer_row(side: Side) -> dict[str, Any]:
    turn = side.conversation.turns[-1]
    completion = turn.completion
    return {
        "ref": side.provenance.ref,
        "text": completion.text,
        "finish_reason": completion.finish_reason,
        "error": completion.error,
        **asdict(completion.usage),
        "first_token_s": turn.first_token_s,
        "tokens_per_s": turn.tokens_per_s,
        "duration_s": completion.timing.end_s - completion.timing.queued_s,
        "seed": turn.seed,
        "sha256": side.provenance.sha256,
        "random_weights": side.provenance.random_weights,
    }
