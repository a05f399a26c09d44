"""A sentence as annotated tokens, and how it is written down.

The annotations say exactly where an error may be planted, and what else would be right, so that every planted
error is really one and every right correction is known. What counts as a right correction: it mends the grammar
and keeps what the learner's words do show, that is the content words, the tense and the definiteness.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

__all__ = ["ERROR_KINDS", "ErrorKind", "Role", "Sentence", "Slip", "Token", "render"]

ErrorKind = Literal[
    "agreement", "article", "preposition", "tense", "verb_form", "plural", "word_order", "spelling",
    "missing_word", "extra_word", "confused_word", "punctuation",
]  # fmt: skip
ERROR_KINDS: tuple[ErrorKind, ...] = get_args(ErrorKind)

Role = Literal[
    "article", "determiner", "noun", "name", "pronoun", "verb", "auxiliary", "adjective", "adverb",
    "preposition", "function", "time", "mark",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Slip:
    """One wrong way to write a token.

    Attributes:
        kind: The error that this is.
        text: What the learner writes; "" leaves the token out, and several words are allowed.
        repairs: What else, beside the token's own text, is right in its place once this was written.
    """

    kind: ErrorKind
    text: str
    repairs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Token:
    """A word (or fixed phrase, or mark) with what may go wrong with it.

    Attributes:
        text: The word as it stands inside a sentence.
        role: Its part of speech.
        slips: The wrong forms that it invites.
        group: Tokens with the same non-zero number agree with each other.
        twin: The token's text once its whole group changes number or tense, which leaves a right sentence; None
            where the token does not change. A slip into the twin may be mended by changing the rest of the group.
        shift: How many places the token moves to stand where it is surely wrong; 0 for none.
        floats: How many places it moves to stand where it is right as well; 0 for none.
    """

    text: str
    role: Role
    slips: tuple[Slip, ...] = ()
    group: int = 0
    twin: str | None = None
    shift: int = 0
    floats: int = 0


Sentence = tuple[Token, ...]


def render(words: Sequence[str], capital: bool = True) -> str:
    """Joins words and marks into a line of text.

    Args:
        words: The texts of tokens; empty ones vanish.
        capital: Whether the first letter is raised.

    Returns:
        The sentence.
    """
    text = " ".join([word for word in words if word])
    for mark in ",.?":
        text = text.replace(f" {mark}", mark)
    return text[:1].upper() + text[1:] if capital else text
