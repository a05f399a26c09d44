"""A model that says words, for what the verbs do around one."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from whetstone.data.example import Message
from whetstone.engine.api import Completion, Delta, FinishReason, Request, Timing, Usage

if TYPE_CHECKING:
    from whetstone.engine.provenance import Provenance


@dataclass
class Speaker:
    """An engine and what opens it, in one: a token is a word, and an answer repeats the question.

    "fail" is answered with an error; "long" is answered for ever.
    """

    ref: str = "speaker"
    context_tokens: int | None = 100
    random_weights: bool = False
    asked: list[Request] = field(default_factory=list)
    cancelled: list[Request] = field(default_factory=list)
    closed: bool = False
    most_at_once: int = 0
    on_token: Callable[[], None] = lambda: None

    @property
    def engine(self) -> "Speaker":
        return self

    @property
    def provenance(self) -> "Provenance":
        from whetstone.engine.provenance import Provenance

        return Provenance(
            ref=self.ref,
            engine="torch",
            origin="a test",
            sha256="ab" * 32,
            adapter_sha256=None,
            dtype="float32",
            quantisation=None,
            template_hash=None,
            random_weights=self.random_weights,
        )

    def request(self, messages: Sequence[Message], **settings: Any) -> Request:
        words = sum(len(message.content.split()) + 1 for message in messages)
        return Request(tuple(range(words)), messages=tuple(messages), **settings)

    async def stream(self, request: Request) -> AsyncIterator[Delta]:
        self.asked.append(request)
        self.most_at_once = max(self.most_at_once, len(self.asked) - len(self.cancelled))
        queued_s = time.monotonic()
        words: list[str] = []
        times: list[float] = []
        try:
            for word in self._words(request)[: request.max_new_tokens]:
                await asyncio.sleep(0)
                words.append(word)
                times.append(time.monotonic())
                yield Delta(word, len(words))
                self.on_token()
        finally:
            if len(words) < len(self._words(request)[: request.max_new_tokens]):
                self.cancelled.append(request)
        failed = request.messages[-1].content == "fail"
        yield Delta("", completion=self._completion(request, words, Timing(queued_s, tuple(times), times[-1]), failed))

    def close(self) -> None:
        self.closed = True

    def _words(self, request: Request) -> list[str]:
        said = request.messages[-1].content
        if said == "long":
            return ["word "] * 1000
        drawn = [f"{request.seed % 997}"] if request.sampling.temperature > 0 else []
        return [f"{word} " for word in [self.ref, *drawn, *said.split()]]

    def _completion(self, request: Request, words: list[str], timing: Timing, failed: bool) -> Completion:
        usage = Usage(len(request.token_ids), len(words), 2)
        whole = len(words) == len(self._words(request))
        reason: FinishReason = "error" if failed else "stop" if whole else "length"
        ids = tuple(range(1, len(words) + 1))
        return Completion(ids, "".join(words), reason, timing, usage, error="it broke" if failed else None)


@pytest.fixture
def speaker() -> type[Speaker]:
    """The class, as a fixture, because test modules cannot import from each other."""
    return Speaker
