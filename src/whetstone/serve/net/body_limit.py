"""Bodies of requests: how large they may be, and how long they may take.

A body that says that it is too large is refused unread. Any other is counted while the application reads it, so that
an application that looks at the key first reads nothing of strangers. Where a body becomes too large or too slow, the
client is told here, and the application that the client is gone: what it would make of an error amid its body is up to
the application.
"""

import asyncio

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from whetstone.serve.errors import ServeError
from whetstone.serve.net.refusal import refuse
from whetstone.serve_section import Limits

__all__ = ["BodyLimit"]


class BodyLimit:
    """Refuses bodies that are too large (413) or too slow (408), and ends their connection."""

    def __init__(self, app: ASGIApp, limits: Limits) -> None:
        self._app = app
        self._limits = limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes a request on."""
        announced = _announced(scope) if scope["type"] == "http" else None
        if announced is None:
            await self._app(scope, receive, send)
        elif announced > self._limits.body_bytes:
            await refuse(send, _too_large(self._limits), close=True)
        else:
            body = _Body(self._limits, receive, send)
            await self._app(scope, body.receive, body.send)


class _Body:
    """What one application reads and writes while its request may still be refused."""

    def __init__(self, limits: Limits, receive: Receive, send: Send) -> None:
        self._limits = limits
        self._receive = receive
        self._send = send
        self._now = asyncio.get_running_loop().time
        self._ends = self._now() + limits.deadline_s
        self._size = 0
        self._is_whole = False
        self._has_begun = False
        self._is_refused = False

    async def receive(self) -> Message:
        """The next piece."""
        if self._is_whole:
            return await self._receive()
        if self._is_refused:
            return {"type": "http.disconnect"}
        try:
            async with asyncio.timeout_at(min(self._now() + self._limits.header_s, self._ends)):
                message = await self._receive()
        except TimeoutError:
            return await self._refuse(
                ServeError(408, "body_timeout", "the body of the request did not arrive in time; send it at once")
            )
        if message["type"] == "http.request":
            self._size += len(message.get("body", b""))
            if self._size > self._limits.body_bytes:
                return await self._refuse(_too_large(self._limits))
            self._is_whole = not message.get("more_body", False)
        return message

    async def send(self, message: Message) -> None:
        """Writes, unless the request was refused."""
        if not self._is_refused:
            self._has_begun = True
            await self._send(message)

    async def _refuse(self, error: ServeError) -> Message:
        self._is_refused = True
        if not self._has_begun:
            await refuse(self._send, error, close=True)
        return {"type": "http.disconnect"}


def _too_large(limits: Limits) -> ServeError:
    return ServeError(
        413,
        "body_too_large",
        f"the body of a request may have {limits.body_bytes:,} bytes (limits.body_bytes); send less",
    )


def _announced(scope: Scope) -> int | None:
    """How many bytes of body the head announces; 0 where it does not say how many; None for no body."""
    for name, value in scope["headers"]:
        if name == b"content-length":
            # The parser has refused what is no number.
            return int(value) or None
        if name == b"transfer-encoding":
            return 0
    return None
