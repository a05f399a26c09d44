"""What a backend is asked and what it says, whatever computes."""

from dataclasses import dataclass
from typing import Literal

from whetstone.data.example import Message
from whetstone.engine.api import Constraint, Sampling, Usage

__all__ = ["Ending", "Piece", "Question", "TokenScore"]


@dataclass(frozen=True, slots=True)
class Question:
    """One answer that is wanted.

    Attributes:
        model: Its name on this server.
        prompt: A conversation; or text, or token ids, which are continued as they are.
        max_new_tokens: Where the answer is cut off; None for as long as usual, or the fewer that the context leaves.
        sampling: How tokens are chosen.
        seed: Of this answer's own random stream.
        stop: Strings that end the answer; they are not part of its text.
        logprobs: None for no logprobs, else how many of the likeliest tokens are told beside each one chosen.
        constraint: What the text must be; None for anything.
        deadline_s: How many seconds from now it is given up; None for never.
    """

    model: str
    prompt: tuple[Message, ...] | str | tuple[int, ...]
    max_new_tokens: int | None
    sampling: Sampling
    seed: int
    stop: tuple[str, ...] = ()
    logprobs: int | None = None
    constraint: Constraint | None = None
    deadline_s: float | None = None


@dataclass(frozen=True, slots=True)
class TokenScore:
    """How likely a token was.

    Attributes:
        token: What it says; bytes that are no character are replaced.
        bytes: What it says, exactly; None where that is not known.
        token_id: Its id; -1 where a server keeps it to itself.
        logprob: Natural logarithm of its probability.
        top: The likeliest tokens at its place, the likeliest first; they have no ``top`` of their own.
    """

    token: str
    bytes: tuple[int, ...] | None
    token_id: int
    logprob: float
    top: tuple["TokenScore", ...] = ()


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of an answer. The texts of all pieces, joined, are its text.

    Attributes:
        text: What is new; empty while a character or a possible stop string is not whole.
        token_ids: The tokens that it came with, the one that ends the answer included; empty where a server tells none.
        scores: One for each token, where they were asked for.
    """

    text: str
    token_ids: tuple[int, ...] = ()
    scores: tuple[TokenScore, ...] = ()


@dataclass(frozen=True, slots=True)
class Ending:
    """The end of an answer, after its last piece.

    Attributes:
        finish_reason: Whether the model ended its turn or was cut off.
        usage: What it took.
    """

    finish_reason: Literal["stop", "length"]
    usage: Usage
