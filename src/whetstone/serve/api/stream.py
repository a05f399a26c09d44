"""Answers as server-sent events, byte for byte as OpenAI's clients read them.

An event is what never changes (made once an answer), the JSON string of the new text, and what never changes again. No
objects are made for it, and events that are there together are one write.

Sources: https://platform.openai.com/docs/api-reference/chat-streaming and
https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from whetstone.engine.api import Usage
from whetstone.serve.api.heard import Heard
from whetstone.serve.api.json_bytes import json_bytes
from whetstone.serve.api.together import Said
from whetstone.serve.errors import ServeError
from whetstone.serve.question import Ending, Piece

__all__ = ["DONE", "HEADERS", "LEAST_LOGPROB", "Envelope", "Events", "error_event", "usage_of"]

DONE = b"data: [DONE]\n\n"

HEADERS = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
)
"""The last one tells nginx to pass events on as they come."""

LEAST_LOGPROB = -9999.0
"""What OpenAI says of a token that cannot come; JSON has no infinity."""


@dataclass(frozen=True, slots=True)
class Envelope:
    """What all events of a stream say, and what a whole response says, too."""

    id: str
    object: str
    created: int
    model: str
    system_fingerprint: str

    def as_json(self) -> dict[str, Any]:
        """In OpenAI's order."""
        return {
            "id": self.id,
            "object": self.object,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": self.system_fingerprint,
        }


class Events(ABC):
    """Writes the events of one stream."""

    def __init__(
        self, envelope: Envelope, answers: int, *, usage: bool = False, scores: bool = False, token_ids: bool = False
    ) -> None:
        """Makes what never changes.

        Args:
            envelope: What all events say.
            answers: How many answers the stream has.
            usage: Every event says ``"usage": null``, and the last one says it.
            scores: Events tell logprobs.
            token_ids: Events tell the ids of the tokens.
        """
        self._usage = usage
        self._scores = scores
        self._token_ids = token_ids
        self._begin = b"data: " + json_bytes(envelope.as_json())[:-1] + b',"choices":['
        self._end = b'],"usage":null}\n\n' if usage else b"]}\n\n"
        before, after = self.around()
        self._indices = [b'{"index":%d,' % index for index in range(answers)]
        self._heads = [self._begin + index + before for index in self._indices]
        self._after = after
        self._tail = after + b',"logprobs":null,"finish_reason":null}' + self._end
        self._written = [0] * answers

    @abstractmethod
    def around(self) -> tuple[bytes, bytes]:
        """What stands in a choice around the JSON string of its new text."""

    @abstractmethod
    def logprobs(self, piece: Piece, begin: int) -> object:
        """The scores of a piece as JSON.

        Args:
            piece: With scores.
            begin: How many characters of the answer there are before it.
        """

    @abstractmethod
    def opening(self) -> bytes:
        """The events before the first piece."""

    @abstractmethod
    def ending(self, finish_reason: str) -> bytes:
        """What a choice says last, after its index."""

    def each(self, words: bytes) -> bytes:
        """An event for each choice that says the same, after its index."""
        return b"".join(self._begin + index + words + self._end for index in self._indices)

    def said(self, batch: Sequence[Said]) -> bytes:
        """The events of some pieces; none for those that say nothing."""
        plain = not self._scores and not self._token_ids
        parts: list[bytes] = []
        for heard, piece in batch:
            if isinstance(piece, Ending):
                index = self._indices[heard.index]
                parts += (self._begin, index, self.ending(piece.finish_reason), self._end)
            elif plain:
                if piece.text:
                    parts += (self._heads[heard.index], json_bytes(piece.text), self._tail)
            elif piece.text or piece.token_ids or piece.scores:
                parts += self._detailed(heard, piece)
        return b"".join(parts)

    def closing(self, heard: Sequence[Heard], n: int) -> bytes:
        """The events after the last piece.

        Args:
            heard: All answers.
            n: How many of them each prompt has.
        """
        if not self._usage:
            return DONE
        return self._begin + b'],"usage":' + json_bytes(usage_of(heard, n)) + b"}\n\n" + DONE

    def _detailed(self, heard: Heard, piece: Piece) -> Iterable[bytes]:
        logprobs = b"null"
        if self._scores:
            logprobs = json_bytes(self.logprobs(piece, self._written[heard.index]))
            self._written[heard.index] += len(piece.text)
        yield self._heads[heard.index]
        yield json_bytes(piece.text)
        yield self._after
        yield b',"logprobs":' + logprobs + b',"finish_reason":null'
        if self._token_ids:
            yield b',"token_ids":' + json_bytes(piece.token_ids)
        yield b"}" + self._end


def error_event(error: ServeError) -> bytes:
    """What went wrong in a stream that has begun; no ``[DONE]`` follows, for it is not."""
    return b"data: " + json_bytes(error.as_json()) + b"\n\n"


def usage_of(heard: Sequence[Heard], n: int) -> dict[str, Any]:
    """What the answers took; each prompt counts once.

    Args:
        heard: All answers, those of one prompt side by side.
        n: How many of them each prompt has.
    """
    usages = [Usage(0, one.new_tokens) if one.ending is None else one.ending.usage for one in heard]
    prompt_tokens = sum(usage.prompt_tokens for usage in usages[::n])
    new_tokens = sum(usage.new_tokens for usage in usages)
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": new_tokens,
        "total_tokens": prompt_tokens + new_tokens,
        "prompt_tokens_details": {"cached_tokens": sum(usage.reused_tokens for usage in usages[::n])},
    }
