"""What can be seen of an answer that has no reference: the same of judged answers and of live ones.

Judged rates (:mod:`whetstone.serve.proof.judged_rates`) are counted with it, and so are live answers, so that both
mean the same. All of it is said by question, answer and length alone; metrics know more, since they know what is right:

- ``empty`` and ``over_long`` are the metrics ``empty`` and ``truncated``.
- ``copy``: the answer stands in the question, word for word. The metric ``copy_rate`` knows the bare text that an
  example works on; here the question is all of the user's turn, an instruction beside the text included. So that the
  name of a thing asked about is no copy, a part of the question counts from four words on.
- ``extra_text``: the answer has more words beyond those of the question than right answers have. The metric of this
  name looks for a reference with something around it.
- ``long_answer``: the answer has more tokens than nine in ten judged ones.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from whetstone.data.answer import count_words, is_empty, normalise
from whetstone.data.example import Message

__all__ = ["OBSERVED", "Bound", "Bounded", "extra_words", "last_user_turn", "observe"]

_COPIED_WORDS = 4
"""So many words of a question, in a row, are a copy; a whole question is one however short it is."""


class Bounded(Protocol):
    """Something that is seen of answers, and beyond which bound; a judged rate is one."""

    @property
    def name(self) -> str:
        """One of :data:`OBSERVED`."""
        ...

    @property
    def threshold(self) -> float | None:
        """In words for ``extra_text``, in tokens for ``long_answer``; None for what needs no bound."""
        ...


@dataclass(frozen=True, slots=True)
class Bound:
    """The plainest :class:`Bounded`."""

    name: str
    threshold: float | None = None


@dataclass(frozen=True, slots=True)
class _Answer:
    asked: str
    text: str
    new_tokens: int
    finish_reason: str


def observe(asked: str, text: str, new_tokens: int, finish_reason: str, rates: Iterable[Bounded]) -> dict[str, bool]:
    """What is seen of one answer.

    Args:
        asked: The last user turn, or the text that was continued.
        text: The answer.
        new_tokens: How many tokens it has, the one that ended it included.
        finish_reason: Why it ended.
        rates: What to look for; what lacks the bound that it needs is never seen.

    Returns:
        By name, whether the answer has it.
    """
    answer = _Answer(asked, text, new_tokens, finish_reason)
    return {rate.name: _SEEN[rate.name](answer, rate.threshold) for rate in rates}


def extra_words(asked: str, text: str) -> int:
    """How many more words a text has than the question; fewer are below zero."""
    return count_words(text) - count_words(asked)


def last_user_turn(messages: Sequence[Message]) -> str:
    """What was asked; empty where nobody asked anything."""
    return next((message.content for message in reversed(messages) if message.role == "user"), "")


def _is_empty(answer: _Answer, _: float | None) -> bool:
    return is_empty(answer.text)


def _is_over_long(answer: _Answer, _: float | None) -> bool:
    return answer.finish_reason == "length"


def _has_extra_text(answer: _Answer, words: float | None) -> bool:
    return words is not None and extra_words(answer.asked, answer.text) > words


def _is_copy(answer: _Answer, _: float | None) -> bool:
    said, asked = normalise(answer.text), normalise(answer.asked)
    if not said:
        return False
    return said == asked or (count_words(said) >= _COPIED_WORDS and f" {said} " in f" {asked} ")


def _is_long(answer: _Answer, tokens: float | None) -> bool:
    return tokens is not None and answer.new_tokens > tokens


_SEEN: dict[str, Callable[[_Answer, float | None], bool]] = {
    "empty": _is_empty,
    "over_long": _is_over_long,
    "extra_text": _has_extra_text,
    "copy": _is_copy,
    "long_answer": _is_long,
}

OBSERVED: tuple[str, ...] = tuple(_SEEN)
"""The names of what can be seen."""
