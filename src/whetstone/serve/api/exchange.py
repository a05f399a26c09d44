"""One request, from its arrival until it is known what became of it.

A response class by hand, and not a function that FastAPI serialises the result of: the client has to be watched while
its answer is made, a stream must not begin before there is something in it, and the outcome is known after the last
byte only.
"""

import asyncio
import math
import re
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from whetstone.serve.answered import Answered
from whetstone.serve.api.gone import Gone, until_gone
from whetstone.serve.api.json_bytes import json_bytes
from whetstone.serve.api.service import Service
from whetstone.serve.api.unexpected import unexpected
from whetstone.serve.errors import ServeError
from whetstone.serve.gate.keys import Principal

__all__ = ["DEADLINE_HEADER", "Exchange", "Header", "send_error", "send_json"]

DEADLINE_HEADER = "x-whetstone-deadline-s"

Header = tuple[bytes, bytes]

_NUMBER = re.compile(r"[0-9]+(\.[0-9]+)?([eE][-+]?[0-9]+)?")
_DISCONNECTED = "disconnected"
_STOPPED = "stopped"
"""The server's own end cut the request off."""
_TRACEPARENT_CHARS = 256


class Exchange(Response, ABC):
    """Serves one request of an endpoint that computes.

    Attributes:
        endpoint: What records call it.
        service: What it shares with the others.
        principal: Who asks.
        model: What was asked for.
        streamed: Whether the answer goes out in pieces.
        answer_id: What the response calls the answer; empty while there is none.
        began: Whether the client has been given answers, or the first of them.
        arrived_s: When the request was there, by the monotonic clock.
        admitted_s: When it had a place.
        deadline_s: When it is given up.
        request_id: Of the border of the server, or a new one where there is no border.
        traceparent: As the client said it.
        status: Of HTTP, as soon as the client is told one.
    """

    endpoint: str

    def __init__(self, service: Service) -> None:
        self.background = None
        self.service = service
        self.principal = Principal("")
        self.model = ""
        self.streamed = False
        self.answer_id = ""
        self.began = False
        self.arrived_s = time.monotonic()
        self.admitted_s: float | None = None
        self.deadline_s = math.inf
        self.request_id = ""
        self.traceparent = ""
        self.status: int | None = None

    @abstractmethod
    async def respond(self, body: bytes, receive: Receive, send: Send) -> None:
        """Answers.

        Args:
            body: Of the request.
            receive: Tells when the client hangs up.
            send: Takes the response.

        Raises:
            ServeError: There is no answer.
            Gone: The client hung up.
        """

    @abstractmethod
    async def break_off(self, error: ServeError, send: Send) -> None:
        """Ends a response that has begun."""

    @abstractmethod
    def records(self, outcome: str) -> Sequence[Answered]:
        """What became of the request.

        Args:
            outcome: ``ok``, ``disconnected`` or the code of the failure.
        """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers, whatever happens, and tells the listeners what did."""
        self.request_id = scope.get("state", {}).get("request_id") or f"req-{uuid.uuid4().hex}"
        headers = dict(scope["headers"])
        self.traceparent = headers.get(b"traceparent", b"").decode("latin-1")[:_TRACEPARENT_CHARS]
        outcome = _STOPPED
        own_deadline = False
        try:
            authorization = headers.get(b"authorization")
            self.principal = self.service.identify(None if authorization is None else authorization.decode("latin-1"))
            limit_s = _deadline(headers.get(DEADLINE_HEADER.encode()), self.service.settings.limits.deadline_s)
            own_deadline = limit_s < self.service.settings.limits.deadline_s
            self.deadline_s = self.arrived_s + limit_s
            await self.respond(await _body(receive), receive, send)
            outcome = "ok"
        except Gone:
            outcome = _DISCONNECTED
        except Exception as error:
            failure = error if isinstance(error, ServeError) else unexpected(error)
            if failure.code == "deadline_exceeded" and own_deadline:
                # What a client asked for and got is no fault of the server's.
                failure = ServeError(408, failure.code, failure.message)
            outcome = failure.code
            if self.began:
                await self.break_off(failure, send)
            else:
                self.status = failure.status
                await send_error(failure, send)
        finally:
            for record in self.records(outcome):
                self.service.tell(record)

    @asynccontextmanager
    async def place(self, answers: int, receive: Receive) -> AsyncIterator[None]:
        """Waits for a place and holds it while the block runs, until the deadline or the client's end.

        Raises:
            ServeError: 429, 503 or 504; there is no place, or the deadline passed in the block.
            Gone: The client hung up.
        """
        loop = asyncio.get_running_loop()
        left_s = self.deadline_s - time.monotonic()
        try:
            async with (
                until_gone(receive),
                asyncio.timeout_at(loop.time() + left_s),
                self.service.admission.place(self.principal, answers, left_s) as place,
            ):
                self.admitted_s = place.admitted_s
                yield
        except TimeoutError:
            said = f"the deadline of {self.deadline_s - self.arrived_s:g} s passed; allow more time, or ask for less"
            raise ServeError(504, "deadline_exceeded", said) from None

    def record(self, outcome: str) -> Answered:
        """What is known of a request without answers."""
        return Answered(
            request_id=self.request_id,
            endpoint=self.endpoint,
            principal=self.principal.name,
            model=self.model,
            outcome=outcome,
            arrived_s=self.arrived_s,
            ended_s=time.monotonic(),
            answer_id=self.answer_id,
            streamed=self.streamed,
            admitted_s=self.admitted_s,
            status=self.status,
            traceparent=self.traceparent,
        )


async def send_json(value: object, send: Send, *, status: int = 200, headers: Sequence[Header] = ()) -> None:
    """Sends a whole response."""
    body = json_bytes(value)
    own = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": [*own, *headers]})
    await send({"type": "http.response.body", "body": body})


async def send_error(error: ServeError, send: Send) -> None:
    """Sends what went wrong."""
    headers = [(name.lower().encode(), value.encode()) for name, value in error.headers().items()]
    await send_json(error.as_json(), send, status=error.status, headers=headers)


def _deadline(said: bytes | None, limit_s: float) -> float:
    """How many seconds a request may take: what the client says, and no more than the server allows.

    Raises:
        ServeError: 400, it is no number of seconds.
    """
    if said is None:
        return limit_s
    text = said.decode("latin-1").strip()
    if not _NUMBER.fullmatch(text) or not 0 < float(text) < math.inf:
        raise ServeError.invalid(f"{DEADLINE_HEADER}: must be a number of seconds above 0", DEADLINE_HEADER)
    return min(limit_s, float(text))


async def _body(receive: Receive) -> bytes:
    parts = []
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Gone
        parts.append(message.get("body", b""))
        if not message.get("more_body", False):
            return parts[0] if len(parts) == 1 else b"".join(parts)
