"""What every engine takes and gives.

An engine answers requests. ``stream`` gives one answer piece by piece to asynchronous code; ``generate`` answers a list
and waits. Both may be used at once, from several threads.
"""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from whetstone.data.example import Message

__all__ = [
    "Completion",
    "Constraint",
    "Delta",
    "Engine",
    "FinishReason",
    "Logprob",
    "Request",
    "Sampling",
    "Timing",
    "Usage",
]

FinishReason = Literal["stop", "length", "cancelled", "deadline", "error"]
"""Why an answer ended: the model ended its turn or said a stop string; it reached ``max_new_tokens``; nobody wants it
any more; its deadline passed; it failed."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the next token is chosen; temperature 0 is greedy.

    Attributes:
        temperature: Divides the logits.
        top_p: The smallest set of tokens whose probability reaches it is drawn from (arXiv:1904.09751).
        top_k: At most so many tokens are drawn from; None for all.
        min_p: Tokens less likely than this times the likeliest are left out (arXiv:2407.01082).
        repetition_penalty: Divides the positive logits of tokens that were said, in the prompt too, and multiplies the
            negative ones (arXiv:1909.05858); 1 is none. It holds for greedy answers, too.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int | None = None
    min_p: float = 0.0
    repetition_penalty: float = 1.0


@dataclass(frozen=True, slots=True)
class Constraint:
    """What the text of an answer must be.

    Attributes:
        kind: How it is said.
        pattern: The JSON schema as JSON text, or the regular expression that the whole answer matches.
    """

    kind: Literal["json_schema", "regex"]
    pattern: str


@dataclass(frozen=True, slots=True)
class Request:
    """One prompt to answer.

    Attributes:
        token_ids: The prompt.
        max_new_tokens: Where the answer is cut off.
        sampling: How tokens are chosen.
        seed: Of this request's own random stream, which does not depend on its neighbours in a batch.
        adapter: The name of an adapter that the engine holds; None asks the base.
        stop: Strings that end the answer; they are not part of its text.
        logprobs: None for no logprobs, else how many of the likeliest tokens are told beside each one chosen.
        constraint: What the text must be; None for anything.
        deadline_s: When, by the monotonic clock, an answer that is not finished is given up.
        messages: The same prompt as messages, for servers that render it themselves.
    """

    token_ids: tuple[int, ...]
    max_new_tokens: int
    sampling: Sampling = Sampling()
    seed: int = 0
    adapter: str | None = None
    stop: tuple[str, ...] = ()
    logprobs: int | None = None
    constraint: Constraint | None = None
    deadline_s: float | None = None
    messages: tuple[Message, ...] = ()


@dataclass(frozen=True, slots=True)
class Logprob:
    """How likely a chosen token was.

    Attributes:
        token_id: The token.
        logprob: Natural logarithm of its probability by the model's own logits, before temperature and all else.
        top: The likeliest tokens with theirs, the likeliest first.
    """

    token_id: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Timing:
    """When things happened to a request, in seconds of the monotonic clock.

    Attributes:
        queued_s: It was handed to the engine.
        token_s: Each new token was there.
        end_s: The answer was finished.
    """

    queued_s: float
    token_s: tuple[float, ...]
    end_s: float

    @property
    def first_token_s(self) -> float | None:
        """When the first token was there; None if none ever was."""
        return self.token_s[0] if self.token_s else None


@dataclass(frozen=True, slots=True)
class Usage:
    """What an answer took.

    Attributes:
        prompt_tokens: Length of the prompt.
        new_tokens: Length of the answer.
        reused_tokens: Prompt tokens that were not computed, because an earlier request began alike.
    """

    prompt_tokens: int
    new_tokens: int
    reused_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Completion:
    """One answer.

    Attributes:
        token_ids: The new tokens, the one that ended the answer included; empty where a server gives text only.
        text: What they say, without special tokens, up to the stop string.
        finish_reason: Why it ended.
        timing: When the tokens came.
        usage: How many there were.
        logprobs: One for each token, where they were asked for.
        error: What failed, where the reason is ``error``.
    """

    token_ids: tuple[int, ...]
    text: str
    finish_reason: FinishReason
    timing: Timing
    usage: Usage
    logprobs: tuple[Logprob, ...] | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Delta:
    """A piece of an answer. The texts of all pieces, joined, are the text of the completion.

    Attributes:
        text: What is new; empty while a character or a possible stop string is not whole.
        token_id: The token that it came with; None for what is said when no token came.
        logprob: Of that token, where it was asked for.
        completion: The whole answer, on the last piece only.
    """

    text: str
    token_id: int | None = None
    logprob: Logprob | None = None
    completion: Completion | None = None


class Engine(Protocol):
    """Answers requests."""

    def stream(self, request: Request) -> AsyncIterator[Delta]:
        """Answers one request piece by piece; leaving the iteration early cancels it and frees its place at once.

        Raises:
            UserError: The request cannot be answered by this engine; said before the first piece.
        """
        ...

    def generate(self, requests: Sequence[Request]) -> list[Completion]:
        """Answers requests, in their order.

        Raises:
            UserError: One of the requests cannot be answered by this engine; none is begun then.
        """
        ...

    def close(self) -> None:
        """Ends what is running and gives memory back; a closed engine answers nothing."""
        ...
