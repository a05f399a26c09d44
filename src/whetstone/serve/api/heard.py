"""What came of an answer so far."""

import time

from whetstone.data.example import Message
from whetstone.serve.question import Ending, Piece, TokenScore

__all__ = ["Heard"]


class Heard:
    """One of the answers to a request, as it grows.

    Attributes:
        index: Which of the answers it is.
        asked: The last user turn, or the text that is continued.
        turns: The conversation that is answered, the system turn included; none for text that is continued.
        token_ids: The tokens so far.
        scores: One for each token, where they were asked for.
        offsets: Where in the text each of them begins, in characters.
        token_s: When they came, by the monotonic clock; where a server tells no tokens, when its pieces came.
        ending: Its end; None before.
        ended_s: When that was.
        invalid: How many answers before this one were not what they must be.
    """

    __slots__ = (
        *("_length", "_texts", "asked", "ended_s", "ending", "index", "invalid", "offsets", "scores", "token_ids"),
        *("token_s", "turns"),
    )

    def __init__(self, index: int, asked: str, turns: tuple[Message, ...] = ()) -> None:
        self.index = index
        self.asked = asked
        self.turns = turns
        self.invalid = 0
        self.begin()

    def begin(self) -> None:
        """Forgets what was said, for the answer is asked for again."""
        self._texts: list[str] = []
        self._length = 0
        self.token_ids: list[int] = []
        self.scores: list[TokenScore] = []
        self.offsets: list[int] = []
        self.token_s: list[float] = []
        self.ending: Ending | None = None
        self.ended_s: float | None = None

    @property
    def text(self) -> str:
        """What was said."""
        return "".join(self._texts)

    @property
    def new_tokens(self) -> int:
        """How many tokens it has."""
        return len(self.token_ids) if self.ending is None else self.ending.usage.new_tokens

    def add(self, piece: Piece | Ending) -> None:
        """Takes note of what was said next."""
        now = time.monotonic()
        if isinstance(piece, Ending):
            self.ending = piece
            self.ended_s = now
            return
        if piece.scores:
            self.scores += piece.scores
            self.offsets += offsets(piece, self._length)
        if piece.token_ids:
            self.token_ids += piece.token_ids
            self.token_s += [now] * len(piece.token_ids)
        elif piece.text:
            self.token_s.append(now)
        if piece.text:
            self._texts.append(piece.text)
            self._length += len(piece.text)


def offsets(piece: Piece, begin: int) -> list[int]:
    """Where the tokens of a piece begin in the text, as near as can be told: a token may be part of a character.

    Args:
        piece: With scores.
        begin: How many characters there are before it.
    """
    found, within = [], 0
    for score in piece.scores:
        found.append(begin + min(within, len(piece.text)))
        within += len(score.token)
    return found
