"""A chat, line by line: questions go to the models, lines that begin with a slash steer."""

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from whetstone.cli.chat_views import Side, View, end_note
from whetstone.errors import UserError
from whetstone.report.format import count, duration, rate

__all__ = ["Chat", "append_row"]

_HELP = """\
/save [2]      keep the conversation up to the last answer as an example to train on ('2': of the second model)
/system TEXT   set the system turn of what comes; without TEXT there is none
/retry         ask the last question again
/undo          forget the last question and its answer
/reset         forget all questions and answers
/stats         tokens and times of the last answer
/quit          end (so do Ctrl-D, and Ctrl-C twice); Ctrl-C while an answer comes cancels that answer
//TEXT         ask something that begins with a slash"""


class Chat:
    """What is done with each line.

    Attributes:
        refused: How many questions could not be asked.
    """

    def __init__(self, sides: Sequence[Side], view: View, notice: Callable[[str], None], examples: Path) -> None:
        """Begins without a history.

        Args:
            sides: Who is asked.
            view: Asks and shows.
            notice: Told what is not an answer.
            examples: Where ``/save`` appends.
        """
        self._sides = sides
        self._view = view
        self._notice = notice
        self._examples = examples
        self.refused = 0

    def run(self, read: Callable[[], str]) -> None:
        """Takes lines until the end: ``/quit``, the end of the input, or a second Ctrl-C.

        Args:
            read: Gives the next line; raises EOFError at the end and KeyboardInterrupt for Ctrl-C.
        """
        interrupts = 0
        while True:
            try:
                line = read()
            except EOFError:
                return
            except KeyboardInterrupt:
                interrupts += 1
                if interrupts > 1:
                    return
                self._notice("\nCtrl-C again, or Ctrl-D, ends the chat")
                continue
            if line.strip() == "/quit":
                return
            try:
                interrupts = int(self.line(line))
            except KeyboardInterrupt:
                interrupts = 1

    def line(self, line: str) -> bool:
        """Does what a line says, ``/quit`` excepted; what cannot be done is said in one line.

        Returns:
            Whether an answer was cancelled.
        """
        text = line.strip()
        if not text:
            return False
        try:
            if text.startswith("//"):
                return self._ask(text[1:])
            if text.startswith("/"):
                command, _, rest = text.partition(" ")
                return self._command(command, rest.strip())
            return self._ask(text)
        except UserError as error:
            self._notice(f"error: {' '.join(str(error).split())}")
            return False

    def _command(self, command: str, rest: str) -> bool:
        match command:
            case "/save":
                self._save(rest)
            case "/system":
                self._system(rest)
            case "/retry":
                return self._retry()
            case "/undo":
                undone = [side.conversation.undo() for side in self._sides]
                self._notice("nothing to forget" if undone[0] is None else f"forgotten: {undone[0].question}")
            case "/reset":
                for side in self._sides:
                    side.conversation.reset()
                self._notice("the history is forgotten; the system turn stays")
            case "/stats":
                self._stats()
            case "/help":
                self._notice(_HELP)
            case _:
                raise UserError(f"{command}: no such command; /help names them, and //TEXT asks what begins with '/'")
        return False

    def _ask(self, question: str) -> bool:
        try:
            return self._view.ask(self._sides, question)
        except UserError as error:
            self.refused += 1
            raise UserError(
                f"not asked, nothing is lost: {error}; /reset forgets the history, /undo one turn"
            ) from None

    def _retry(self) -> bool:
        undone = [side.conversation.undo() for side in self._sides]
        if undone[0] is None:
            raise UserError("nothing was asked yet; ask something first")
        try:
            return self._ask(undone[0].question)
        except UserError:
            for side, turn in zip(self._sides, undone, strict=True):
                if turn is not None:
                    side.conversation.restore(turn)
            raise

    def _system(self, text: str) -> None:
        for side in self._sides:
            side.conversation.system = text or None
        self._notice(f"system turn: {text}" if text else "no system turn")

    def _save(self, which: str) -> None:
        known = [str(number) for number in range(1, len(self._sides) + 1)]
        if (which or "1") not in known:
            raise UserError(f"/save {which}: there is no such model here; give one of {', '.join(known)}")
        append_row(self._examples, self._sides[int(which or "1") - 1].conversation.example())
        self._notice(f"saved to {self._examples}")

    def _stats(self) -> None:
        for side in self._sides:
            if not side.conversation.turns:
                raise UserError("nothing was answered yet; ask something first")
            turn = side.conversation.turns[-1]
            usage = turn.completion.usage
            parts = [
                f"{count(usage.prompt_tokens)} prompt tokens ({count(usage.reused_tokens)} reused)",
                f"{count(usage.new_tokens)} new tokens",
                "no token came" if turn.first_token_s is None else f"first after {duration(turn.first_token_s)}",
                "pace not measured" if turn.tokens_per_s is None else f"{rate(turn.tokens_per_s)} tokens/s",
                end_note(turn),
            ]
            self._notice(f"{side.provenance.ref}: " + ", ".join(part for part in parts if part))


def append_row(path: Path, row: dict[str, object]) -> None:
    """Adds one JSON line in a single write, so that neither a reader nor another writer sees a part of it.

    Raises:
        UserError: It cannot be written.
    """
    line = json.dumps(row, ensure_ascii=False).encode() + b"\n"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab+", buffering=0) as file:
            if file.seek(0, os.SEEK_END):
                file.seek(-1, os.SEEK_END)
                line = line if file.read(1) == b"\n" else b"\n" + line
            file.write(line)
            os.fsync(file.fileno())
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror}); give another --save-to") from None
