"""What an example asks: the text that is compared, and digests that tell equal questions.

Texts are compared by 64-bit digests (BLAKE2b), never held a second time: 8 bytes a text. Among a million texts two
different ones share a digest with probability 3e-8 (the birthday bound, n**2 / 2**65).
"""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from whetstone.data.example import Example, Message, normalised

__all__ = ["Questions", "compared_text", "digests", "example_digests", "is_blank", "prompt_digests"]

COMPARED_CHARACTERS = 10_000
"""Of a longer question its end is looked at for near duplicates. Without a limit the answers of one conversation, each
of which repeats all turns before it, would cost the square of its length."""


def compared_text(example: Example) -> str:
    """What makes two examples nearly the same question: the end of the source, or of a conversation so far.

    The system turn is no part of it: the same conversation under other instructions is still the same conversation.
    """
    if not _has_several_questions(example):
        return example.source[-COMPARED_CHARACTERS:]
    turns: list[str] = []
    missing = COMPARED_CHARACTERS
    for message in reversed(example.messages):
        if message.role != "system":
            turns.append(message.content)
            missing -= len(message.content) + 1
        if missing < 0:
            break
    return "\n".join(reversed(turns))[-COMPARED_CHARACTERS:]


def is_blank(example: Example) -> bool:
    """Whether there is nothing to compare."""
    text = compared_text(example)
    return not text or text.isspace()


def digests(texts: Iterable[str]) -> NDArray[np.uint64]:
    """The 64-bit digest of each text."""
    return np.fromiter(map(_digest, texts), dtype=np.uint64)


def prompt_digests(examples: Sequence[Example]) -> NDArray[np.uint64]:
    """The digest of each prompt as it stands: roles and contents of all turns."""
    conversations = _Conversations(_verbatim)
    return _array(_number(conversations.read(example.messages)) for example in examples)


def example_digests(examples: Sequence[Example]) -> NDArray[np.uint64]:
    """The digest of each example as it stands: its prompt and its references."""
    conversations = _Conversations(_verbatim)

    def digest(example: Example) -> int:
        prompt = conversations.read(example.messages).copy()
        prompt.update(_encoded("\x1e".join(example.references)))
        return _number(prompt)

    return _array(map(digest, examples))


@dataclass(frozen=True)
class Questions:
    """Digests of what examples ask, without regard to case and white space; one of each kind for each example.

    Attributes:
        whole: Of the source; where several questions were asked, of all turns so far but the system turn.
        source: Of the source.
        turn: Of the last user turn as it is asked, with what ``data.prompt`` puts round the source.
    """

    whole: NDArray[np.uint64]
    source: NDArray[np.uint64]
    turn: NDArray[np.uint64]

    @classmethod
    def of(cls, examples: Sequence[Example]) -> "Questions":
        """Reads the questions of examples."""
        table = np.empty((3, len(examples)), dtype=np.uint64)
        conversations = _Conversations(_spoken)
        for place, example in enumerate(examples):
            asked = _last_user_turn(example)
            source = _digest(normalised(example.source))
            turn = source if asked == example.source else _digest(normalised(asked))
            several = _has_several_questions(example)
            whole = _number(conversations.read(example.messages)) if several else source
            table[:, place] = whole, source, turn
        return cls(*table)

    def asked_in(self, others: "Questions") -> NDArray[np.bool_]:
        """Which source or last user turn is also one of the others, whatever came before it."""
        found = np.concatenate((others.source, others.turn))
        return np.isin(self.source, found) | np.isin(self.turn, found)


class _Conversations:
    """Digests of conversations of which one often continues the one before it; only what is new is read."""

    def __init__(self, encode: Callable[[Message], bytes]) -> None:
        self._encode = encode
        self._messages: tuple[Message, ...] = ()
        self._hash = hashlib.blake2b(digest_size=8)

    def read(self, messages: tuple[Message, ...]) -> hashlib.blake2b:
        """The hash of a conversation; copy it before it is given more to read."""
        known = len(self._messages)
        if messages[:known] != self._messages:
            self._hash = hashlib.blake2b(digest_size=8)
            known = 0
        for message in messages[known:]:
            self._hash.update(self._encode(message))
        self._messages = messages
        return self._hash


def _verbatim(message: Message) -> bytes:
    return _encoded(f"{message.role}\x1f{message.content}\x1e")


def _spoken(message: Message) -> bytes:
    return b"" if message.role == "system" else _encoded(f"{normalised(message.content)}\x1e")


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _digest(text: str) -> int:
    return _number(hashlib.blake2b(_encoded(text), digest_size=8))


def _number(hashed: hashlib.blake2b) -> int:
    return int.from_bytes(hashed.digest(), "little")


def _array(numbers: Iterable[int]) -> NDArray[np.uint64]:
    return np.fromiter(numbers, dtype=np.uint64)


def _has_several_questions(example: Example) -> bool:
    users = (message for message in reversed(example.messages) if message.role == "user")
    return len(list(islice(users, 2))) == 2


def _last_user_turn(example: Example) -> str:
    turns = (message.content for message in reversed(example.messages) if message.role == "user")
    return next(turns, example.source)
