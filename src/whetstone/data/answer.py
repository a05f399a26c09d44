"""What can be said of an answer's text alone, given the answers that count as right.

Metrics judge with it and rewards teach with it, so that a model is taught what it is judged by.

Notable: several metrics ask of the same text and the same references, and several arms answer the same example, so
texts and references that were just read are not read again.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

__all__ = ["count_words", "has_extra_text", "is_empty", "is_too_short", "matches", "normalise"]


@lru_cache(maxsize=256)
def normalise(text: str) -> str:
    """Runs of white space become one space; nothing else is forgiven."""
    return " ".join(text.split())


def count_words(text: str) -> int:
    """How many words a text has; words are what white space parts."""
    # Counting the gaps is many times faster than splitting once more.
    answer = normalise(text)
    return answer.count(" ") + 1 if answer else 0


def matches(text: str, references: Sequence[str]) -> bool:
    """Whether a text equals one of the references, white space apart."""
    return normalise(text) in _wanted(tuple(references)).texts


def has_extra_text(text: str, references: Sequence[str]) -> bool:
    """Whether a reference stands in a text that is not one: there is something around it."""
    answer, wanted = normalise(text), _wanted(tuple(references)).texts
    return answer not in wanted and any(reference in answer for reference in wanted)


def is_empty(text: str) -> bool:
    """Whether a text holds nothing but white space."""
    return not text.strip()


def is_too_short(text: str, references: Sequence[str]) -> bool:
    """Whether a text has fewer than half the words of the shortest reference."""
    return 2 * count_words(text) < _wanted(tuple(references)).fewest_words


class _Wanted(NamedTuple):
    texts: tuple[str, ...]
    fewest_words: int


# So many that all arms' answers to a large test set find their references here, in whatever order they are scored; an
# entry takes a few hundred bytes, for it shares its texts with the example.
@lru_cache(maxsize=2**17)
def _wanted(references: tuple[str, ...]) -> _Wanted:
    words = [reference.split() for reference in references]
    texts = map(" ".join, words)
    shared = tuple(old if old == new else new for old, new in zip(references, texts, strict=True))
    return _Wanted(shared, min(map(len, words), default=0))
