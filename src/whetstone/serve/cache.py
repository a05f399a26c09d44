"""Answers that were given before, word for word."""

import hashlib
import json
import sys
from collections import OrderedDict
from dataclasses import asdict, dataclass

from whetstone.serve.question import Ending, Piece, Question

__all__ = ["AnswerCache", "CachedAnswer", "cache_key", "cacheable"]

_INT_BYTES = 28
_NOT_ASKED = ("seed", "deadline_s")
"""What a greedy answer does not depend on."""


@dataclass(frozen=True, slots=True)
class CachedAnswer:
    """An answer as a backend gave it."""

    pieces: tuple[Piece, ...]
    ending: Ending

    def memory(self) -> int:
        """About how many bytes it takes, as CPython counts them."""
        return sum(
            sys.getsizeof(piece)
            + sys.getsizeof(piece.text)
            + sys.getsizeof(piece.token_ids)
            + _INT_BYTES * len(piece.token_ids)
            for piece in self.pieces
        ) + sum(map(sys.getsizeof, (self, self.pieces, self.ending, self.ending.usage)))


def cacheable(question: Question, choices: int = 1) -> bool:
    """Whether the answer would be the same again, and is plain enough to be kept.

    Args:
        question: What is asked.
        choices: How many answers the request wants.
    """
    return choices == 1 and question.sampling.temperature == 0 and question.logprobs is None


def cache_key(principal: str, fingerprint: str, question: Question) -> str:
    """What two requests share when the answer to one is the answer to the other.

    The principal is part of it: how fast an answer comes must not tell one key what another has asked.

    Args:
        principal: Who asks.
        fingerprint: Of the weights, the adapter, the template and the engine that answer.
        question: What is asked; its seed and its deadline do not count.
    """
    asked = {name: value for name, value in asdict(question).items() if name not in _NOT_ASKED}
    text = json.dumps([principal, fingerprint, asked], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


class AnswerCache:
    """Keeps the answers that were used last, as many as fit; used in one event loop.

    Attributes:
        bytes: About how much memory they take.
        hits: How often an answer was there.
        misses: How often none was.
    """

    def __init__(self, max_bytes: int) -> None:
        self.bytes = 0
        self.hits = 0
        self.misses = 0
        self._max_bytes = max_bytes
        self._answers: OrderedDict[str, tuple[CachedAnswer, int]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._answers)

    def get(self, key: str) -> CachedAnswer | None:
        """The answer under a key of :func:`cache_key`."""
        found = self._answers.get(key)
        if found is None:
            self.misses += 1
            return None
        self.hits += 1
        self._answers.move_to_end(key)
        return found[0]

    def put(self, key: str, answer: CachedAnswer) -> None:
        """Keeps an answer; those that were not used for longest make way. One larger than all memory is not kept."""
        if key in self._answers:
            self.bytes -= self._answers.pop(key)[1]
        size = answer.memory() + sys.getsizeof(key)
        if size > self._max_bytes:
            return
        self._answers[key] = answer, size
        self.bytes += size
        while self.bytes > self._max_bytes:
            _, (_, oldest) = self._answers.popitem(last=False)
            self.bytes -= oldest
