"""``whet chat``: talk to a model, or to two of them side by side."""

import contextlib
import itertools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.text import Text

from whetstone.cli.common import JsonOption, RunsOption, status, working
from whetstone.cli.provenance import RANDOM_WEIGHTS, provenance_line
from whetstone.cli.sampling_options import (
    DeviceOption,
    MinPOption,
    NewTokensOption,
    RefArgument,
    RepetitionPenaltyOption,
    SeedOption,
    SystemOption,
    TestModeOption,
    TopKOption,
    TopPOption,
)
from whetstone.errors import UserError

if TYPE_CHECKING:
    from whetstone.cli.chat_views import Side, View

__all__ = ["chat"]


def chat(
    ref: RefArgument,
    against: Annotated[
        str | None, typer.Option("--against", help="Ask this model, too, and show both answers side by side.")
    ] = None,
    system: SystemOption = None,
    temperature: Annotated[float, typer.Option("--temperature", min=0.0, help="0 takes the likeliest token.")] = 0.7,
    top_p: TopPOption = 1.0,
    top_k: TopKOption = None,
    min_p: MinPOption = 0.0,
    repetition_penalty: RepetitionPenaltyOption = 1.0,
    max_new_tokens: NewTokensOption = None,
    seed: SeedOption = 0,
    runs: RunsOption = Path("runs"),
    device: DeviceOption = "auto",
    test_mode: TestModeOption = False,
    save_to: Annotated[Path, typer.Option("--save-to", help="Where /save keeps examples to train on.")] = Path(
        "chat-examples.jsonl"
    ),
    as_json: JsonOption = False,
) -> None:
    """Talk to a model; /help lists what else can be done there, and Ctrl-C cancels an answer.

    Lines that are piped in are asked one by one; with --json, each gives one JSON object on a line of its own.
    Exit code 0; 2 if a question that was piped in could not be asked.

    Example: whet chat run:demo --against run:demo#base
    """
    from whetstone.cli.chat_session import Chat
    from whetstone.cli.chat_views import Side
    from whetstone.engine.api import Sampling
    from whetstone.engine.conversation import Answering, Conversation
    from whetstone.engine.open import open_engines
    from whetstone.engine.room import USUAL_NEW_TOKENS

    sampling = Sampling(temperature, top_p, top_k, min_p, repetition_penalty)
    answering = Answering(sampling, max_new_tokens or USUAL_NEW_TOKENS, seed)
    typed = sys.stdin.isatty()
    with contextlib.ExitStack() as stack:
        with working() as say:
            refs = list(filter(None, (ref, against)))
            say(f"open {' and '.join(refs)}")
            # Together, so that a tuned model and its base share one copy of the weights.
            opened = open_engines(refs, runs=runs, device=device, test_mode=test_mode)
        for one in opened:
            stack.callback(one.close)
        sides = [Side(Conversation(one, answering, system), one.provenance) for one in opened]
        _introduce(sides)
        talk = Chat(sides, _view(len(sides), as_json=as_json), _notice, save_to)
        talk.run(_typed_lines() if typed else _piped_lines())
    if talk.refused and not typed:
        raise typer.Exit(2)


def _introduce(sides: "list[Side]") -> None:
    for side in sides:
        _notice(provenance_line(side.provenance))
        if side.provenance.random_weights:
            status.print(Text(RANDOM_WEIGHTS, style="bold red"), soft_wrap=True)


def _notice(line: str) -> None:
    status.print(Text(line, style="dim"), soft_wrap=True)


def _view(sides: int, *, as_json: bool) -> "View":
    from whetstone.cli.chat_views import NARROWEST_COLUMNS, Columns, JsonLines, Plain

    if as_json:
        return JsonLines()
    console = Console()
    beside = sides > 1 and console.is_terminal and console.width >= NARROWEST_COLUMNS
    return Columns(console) if beside else Plain(console)


def _typed_lines() -> Callable[[], str]:
    """Lines from the terminal, which can be edited and called back."""
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401  (input() uses it once it is imported)

    return lambda: input("\n> ")


def _piped_lines() -> Callable[[], str]:
    """Lines from standard input, which must be UTF-8."""
    numbers = itertools.count(1)

    def read() -> str:
        # Bytes, because a text stream decodes ahead, and could not say which line is at fault.
        line = sys.stdin.buffer.readline()
        number = next(numbers)
        if not line:
            raise EOFError
        try:
            return line.decode()
        except UnicodeDecodeError as error:
            raise UserError(
                f"standard input, line {number}: expected UTF-8, found byte 0x{line[error.start]:02x}; send UTF-8"
            ) from None

    return read
