"""What every engine takes and gives."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

__all__ = ["Completion", "Engine", "Request", "Sampling", "Timing"]


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the next token is chosen; temperature 0 is greedy."""

    temperature: float = 0.0
    top_p: float = 1.0


@dataclass(frozen=True, slots=True)
class Request:
    """One prompt to answer.

    Attributes:
        token_ids: The prompt.
        max_new_tokens: Where the answer is cut off.
        sampling: How tokens are chosen.
        seed: Of this request's own random stream, which does not depend on its neighbours in a batch.
    """

    token_ids: tuple[int, ...]
    max_new_tokens: int
    sampling: Sampling = Sampling()
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Timing:
    """When things happened to a request, in seconds of the monotonic clock.

    Attributes:
        queued_s: It was handed to the engine.
        token_s: Each new token was there.
    """

    queued_s: float
    token_s: tuple[float, ...]

    @property
    def first_token_s(self) -> float:
        """When the first token was there."""
        return self.token_s[0]

    @property
    def end_s(self) -> float:
        """When the last token was there."""
        return self.token_s[-1]


@dataclass(frozen=True, slots=True)
class Completion:
    """One answer.

    Attributes:
        token_ids: The new tokens, the one that ended the answer included.
        finish_reason: ``stop`` when the model ended its turn, ``length`` when it was cut off.
        timing: When the tokens came.
    """

    token_ids: tuple[int, ...]
    finish_reason: Literal["stop", "length"]
    timing: Timing


class Engine(Protocol):
    """Generates answers to a batch of requests."""

    def generate(self, requests: Sequence[Request]) -> list[Completion]:
        """Answers requests, in their order."""
        ...
