"""Answers to a request, whole or in pieces; chat and completions differ in their words only."""

import time
import uuid
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Protocol

from starlette.types import Receive, Send

from whetstone.serve.answered import Answered
from whetstone.serve.api.answers import Answers
from whetstone.serve.api.exchange import Exchange, Header, send_json
from whetstone.serve.api.heard import Heard
from whetstone.serve.api.json_bytes import json_bytes
from whetstone.serve.api.service import Service
from whetstone.serve.api.stream import HEADERS, Envelope, Events, error_event, usage_of
from whetstone.serve.api.wanted import Wanted
from whetstone.serve.errors import ServeError

__all__ = ["Reply", "Words"]


class Words(Protocol):
    """How an endpoint says things.

    Attributes:
        endpoint: What records call it.
        id_prefix: What ids of its answers begin with.
        whole: The kind of object that a whole response is.
        chunk: The kind of object that an event is.
    """

    endpoint: str
    id_prefix: str
    whole: str
    chunk: str

    @property
    def events(self) -> type[Events]:
        """Writes a stream."""
        ...

    def wanted(self, body: bytes) -> Wanted:
        """What a request wants.

        Raises:
            ServeError: 400.
        """
        ...

    def choice(self, heard: Heard, wanted: Wanted) -> dict[str, Any]:
        """One whole answer."""
        ...


class Reply(Exchange):
    """Answers one request of chat or completions."""

    def __init__(self, service: Service, words: Words) -> None:
        """Takes a request.

        Args:
            service: What it shares with the others.
            words: Of the endpoint.
        """
        super().__init__(service)
        self.endpoint = words.endpoint
        self._words = words
        self._wanted: Wanted | None = None
        self._answers: Answers | None = None

    async def respond(self, body: bytes, receive: Receive, send: Send) -> None:
        """Answers."""
        wanted = self._wanted = self._words.wanted(body)
        self.streamed = wanted.streamed
        if any(wanted.model in backend.models for backend in self.service.backends):
            self.model = wanted.model
        most = self.service.settings.limits.choices
        if wanted.answers > most:
            param = "prompt" if len(wanted.prompts) > most else "n"
            raise ServeError.invalid(f"{param}: {wanted.answers} answers to one request, at most {most} here", param)
        async with self.place(wanted.answers, receive):
            answers = self._answers = Answers(self.service, wanted, self.principal, self.deadline_s)
            try:
                await answers.begin()
                self.answer_id = f"{self._words.id_prefix}{uuid.uuid4().hex}"
                if wanted.streamed:
                    rest = await self._stream(answers, wanted, send)
            finally:
                await answers.close()
        # What follows ends the response, after which clients may hang up.
        if wanted.streamed:
            await send({"type": "http.response.body", "body": rest})
        else:
            await send_json(self._whole(answers, wanted), send, headers=_headers(answers))
            self.began = True
        self.status = 200

    async def break_off(self, error: ServeError, send: Send) -> None:
        """Ends a stream with an error."""
        await send({"type": "http.response.body", "body": error_event(error)})

    def records(self, outcome: str) -> Sequence[Answered]:
        """One for each answer that was handed on, or one for all that were not."""
        heard = [] if self._answers is None else self._answers.heard
        if self.began and heard:
            return [self._record(one, "ok" if one.ending is not None else outcome) for one in heard]
        if not heard:
            asked = "" if self._wanted is None else self._wanted.asked
            return [replace(self.record(outcome), asked=asked)]
        record = self._record(heard[0], outcome)
        new_tokens = 0 if outcome == "answer_invalid" else sum(one.new_tokens for one in heard)
        invalid = sum(one.invalid for one in heard)
        return [replace(record, new_tokens=new_tokens, invalid=invalid, finish_reason="")]

    async def _stream(self, answers: Answers, wanted: Wanted, send: Send) -> bytes:
        """Sends events as pieces come; gives those that end the response, for others to send."""
        events = self._words.events(
            self._envelope(answers, self._words.chunk),
            wanted.answers,
            usage=wanted.include_usage,
            scores=wanted.logprobs is not None,
            token_ids=wanted.token_ids,
        )
        self.began = True
        self.status = 200
        await send({"type": "http.response.start", "status": 200, "headers": [*HEADERS, *_headers(answers)]})
        unsent = events.opening()
        while said := await answers.next():
            unsent += events.said(said)
            if unsent and not answers.ended:
                await send({"type": "http.response.body", "body": unsent, "more_body": True})
                unsent = b""
        return unsent + events.closing(answers.heard, wanted.n)

    def _whole(self, answers: Answers, wanted: Wanted) -> dict[str, Any]:
        return {
            **self._envelope(answers, self._words.whole).as_json(),
            "choices": [self._choice(heard, wanted) for heard in answers.heard],
            "usage": usage_of(answers.heard, wanted.n),
        }

    def _choice(self, heard: Heard, wanted: Wanted) -> dict[str, Any]:
        choice = self._words.choice(heard, wanted)
        return {**choice, "token_ids": heard.token_ids} if wanted.token_ids else choice

    def _envelope(self, answers: Answers, kind: str) -> Envelope:
        return Envelope(self.answer_id, kind, int(time.time()), answers.model.name, answers.fingerprint)

    def _record(self, heard: Heard, outcome: str) -> Answered:
        answers = self._answers
        assert answers is not None
        # Each prompt counts once, however many answers it has.
        ending = heard.ending
        told = ending is not None and (self._wanted is None or heard.index % self._wanted.n == 0)
        return replace(
            self.record(outcome),
            choice=heard.index,
            backend=answers.backend.name,
            cached=bool(answers.cached),
            prompt_tokens=ending.usage.prompt_tokens if ending is not None and told else 0,
            new_tokens=heard.new_tokens,
            reused_tokens=ending.usage.reused_tokens if ending is not None and told else 0,
            finish_reason="" if ending is None else ending.finish_reason,
            invalid=heard.invalid,
            token_s=tuple(heard.token_s),
            ended_s=heard.ended_s or time.monotonic(),
            asked=heard.asked,
            text=heard.text,
            fingerprint=answers.fingerprint,
            messages=self._conversation(heard),
        )

    def _conversation(self, heard: Heard) -> str:
        """What a training set would be made of; only where it may be kept."""
        if not self.service.settings.store_prompts or not heard.turns:
            return ""
        return json_bytes([turn.as_dict() for turn in heard.turns]).decode()


def _headers(answers: Answers) -> list[Header]:
    headers = [(b"x-whetstone-backend", answers.backend.name.encode("ascii", "replace"))]
    if answers.cached is not None:
        headers.append((b"x-whetstone-cache", b"hit" if answers.cached else b"miss"))
    if invalid := sum(heard.invalid for heard in answers.heard):
        headers.append((b"x-whetstone-invalid", str(invalid).encode()))
    return headers
