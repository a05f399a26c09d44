"""HTTP over one connection: uvicorn's, without its trust in clients.

What is added: a time-out for the head of a request and for idle connections, a limit to the size of a head, errors as
JSON, an end for clients that do not read, and connections that end so that a refused client can read why. Writing is
bounded by uvicorn's own flow control: an application waits in ``send`` while more than ``_UNSENT_BYTES`` are unsent,
so one connection holds that and one message, and what its socket buffers (:mod:`whetstone.serve.net.listener`).

Notable: uvicorn's classes are not a published interface. What is relied on is in ``HttpToolsProtocol`` of 0.54: the
names of its attributes, and that it calls ``on_headers_complete`` from the parser and ``on_response_complete`` from the
cycle.
"""

import asyncio
import logging
import traceback
import urllib.parse
from typing import cast

import httptools
from uvicorn._types import ASGI3Application, ASGISendEvent
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from whetstone.serve.errors import ServeError
from whetstone.serve.net.connections import Connections
from whetstone.serve.net.refusal import bare_response, event, refuse
from whetstone.serve.net.request_id import request_id_of

__all__ = ["Connection"]

_log = logging.getLogger("whetstone.serve")

_UNSENT_BYTES = 64 * 2**10
_PIPELINED = 16
"""Requests that a client may send before the answer to its first."""
_OF_UPGRADES = frozenset({b"connection", b"upgrade", b"http2-settings"})


class Connection(HttpToolsProtocol):
    """One client's connection."""

    def __init__(self, config: Config, server_state: ServerState, connections: Connections) -> None:
        super().__init__(config, server_state, {})
        self._all = connections
        self._limits = connections.limits
        self._waited_since = 0.0
        """When the client got the word."""
        self._head_since: float | None = None
        """When the head of a request began that is not whole."""
        self._head_bytes = 0
        self._has_asked = False
        """Whether there was a request."""
        self._whole = True
        """Whether the request that was begun last is there with its whole body."""
        self._left_at: float | None = None
        """Since when nothing more is read of the client."""
        self._thrown_away = 0
        self._written = 0
        self._taken = 0
        """How much of what was written the client has taken, when it was looked at last."""
        self._took_at = 0.0
        """When it took something last, or had nothing to take."""

    @property
    def draining(self) -> bool:
        """Whether the next response is the last one."""
        return self._all.draining

    @property
    def has_left(self) -> bool:
        """Whether nothing more is said to the client."""
        return self._left_at is not None or self.transport.is_closing()

    # What the transport calls.

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client is there."""
        super().connection_made(transport)
        transport.set_write_buffer_limits(high=_UNSENT_BYTES)
        self._waited_since = self._took_at = self.loop.time()
        if not self._all.admit(self):
            self.refuse(
                ServeError.unavailable(
                    "all connections of the server are busy; try again", 1.0, code="too_many_connections"
                )
            )

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone."""
        self._all.forget(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """The client says something."""
        if self._left_at is not None:
            self._thrown_away += len(data)
            if self._thrown_away > self._limits.linger_bytes:
                self.abort()
            return
        rest = data
        while rest:
            try:
                self.parser.feed_data(rest)
                break
            except httptools.HttpParserUpgrade as offer:
                if self.has_left:
                    return
                rest = self._without_upgrade() + rest[offer.args[0] :]
            except httptools.HttpParserError:
                self._refuse_message()
                return
        if self._head_since is not None and not self.has_left:
            self._head_bytes += len(data)
            if self._head_bytes > self._limits.head_bytes:
                self._refuse_head()

    def _without_upgrade(self) -> bytes:
        """The head of a request that offers to go on in another protocol, as if it did not, for a new parser.

        Nobody has to take the offer (RFC 9110, section 7.8), which Java's client makes with every request (``h2c``);
        but the parser takes it, and leaves out the body.
        """
        first = b"%s %s HTTP/%s" % (self.parser.get_method(), self.url, self.parser.get_http_version().encode())
        lines = [b"%s: %s" % header for header in self.headers if header[0] not in _OF_UPGRADES]
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        return b"\r\n".join([first, *lines, b"", b""])

    # What the parser calls.

    def on_message_begin(self) -> None:
        """The first byte of a request."""
        super().on_message_begin()
        self._head_since = self.loop.time()
        self._head_bytes = 0
        self._whole = False

    def on_headers_complete(self) -> None:
        """The head of a request is there; as uvicorn's, without its upgrades and its limit of concurrency."""
        self._head_since = None
        if self.has_left:
            return
        size = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
        if size > self._limits.head_bytes or len(self.headers) > self._limits.head_lines:
            self._refuse_head()
            return
        if self.parser.get_method() == b"CONNECT":
            self._refuse_message()
        if self.parser.should_upgrade():
            return
        self._has_asked = True
        http_version = self.parser.get_http_version()
        url = httptools.parse_url(self.url)
        path = url.path.decode("ascii")
        self.scope["http_version"] = http_version
        self.scope["method"] = self.parser.get_method().decode("ascii")
        self.scope["path"] = urllib.parse.unquote(path) if "%" in path else path
        self.scope["raw_path"] = url.path
        self.scope["query_string"] = url.query or b""
        before = self.cycle
        self.cycle = Cycle(self, keep_alive=http_version != "1.0" and self.parser.should_keep_alive())
        app = cast(ASGI3Application, self.app)
        if before is None or before.response_complete:
            self._start_asgi_task(self.cycle, app)
        elif len(self.pipeline) < _PIPELINED:
            self.flow.pause_reading()
            self.pipeline.appendleft((self.cycle, app))
        else:
            self.abort()

    def on_body(self, body: bytes) -> None:
        """A piece of the body."""
        if not self.has_left:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """A request is there as a whole."""
        if not (self.has_left or self.parser.should_upgrade()):
            self._whole = True
            self._all.has_asked(self)
            super().on_message_complete()

    # What the cycle calls.

    def on_response_complete(self) -> None:
        """A response is written; as uvicorn's, without its timer for idle connections."""
        if self.has_left:
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
            return
        self._waited_since = self.loop.time()
        if self._head_since is not None:
            self._head_since = self._waited_since
        self._all.wait_for(self)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Writes a part of a response, unless the connection is ending."""
        if not self.has_left:
            self._written += len(data)
            self.transport.write(data)

    def finish(self) -> None:
        """Ends the connection after what was written; as it is at the end of a response, or amid a broken one."""
        if self._whole:
            self.transport.close()
        else:
            self._linger()

    # What looks after it.

    def look_after(self, now: float) -> None:
        """Ends it where the client has taken too long."""
        taken = self._written - self.transport.get_write_buffer_size()
        if taken > self._taken or taken == self._written:
            self._taken, self._took_at = taken, now
        elif now - self._took_at > self._limits.stall_s:
            self.abort()
            return
        if self._left_at is not None:
            if now - self._left_at > self._limits.linger_s:
                self.transport.close()
        elif self._is_answering():
            return
        elif self._head_since is not None:
            if now - self._head_since > self._limits.head_s:
                self.refuse(
                    ServeError(408, "header_timeout", "the head of the request did not arrive in time; send it at once")
                )
        elif self._whole:
            # One that never asks is not worth as much patience as one that may ask again.
            patience = self._limits.keep_alive_s if self._has_asked else self._limits.head_s
            if now - self._waited_since > patience:
                self.transport.close()

    def abort(self) -> None:
        """Ends it at once."""
        self.transport.abort()

    def shutdown(self) -> None:
        """The server ends: closes it now, or after the response that is being given."""
        if self._is_answering():
            self.cycle.keep_alive = False
        else:
            self.transport.close()

    def refuse(self, error: ServeError) -> None:
        """Tells a client why it is not served, and ends the connection."""
        if self.has_left:
            return
        if self._is_answering():
            # Whoever sends rubbish amid an answer cannot be told so within it.
            self.abort()
            return
        self.write(bare_response(error, self.server_state.default_headers))
        self._linger()

    def _refuse_message(self) -> None:
        self.refuse(ServeError(400, "invalid_http", "not a request in HTTP/1.1; mend the client"))

    def _refuse_head(self) -> None:
        limits = self._limits
        said = f"the head of a request may have {limits.head_bytes:,} bytes and {limits.head_lines} lines; send less"
        self.refuse(ServeError(431, "headers_too_large", said))

    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _linger(self) -> None:
        """Says that nothing more will come, and throws away what the client still sends, for a moment.

        Closing at once would answer what it sends with a reset, which may take the response from its hands unread
        (RFC 9112, section 9.6).
        """
        if self.has_left:
            return
        self._left_at = self.loop.time()
        self._head_since = None
        self._all.leave(self)
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.flow.resume_reading()


class Cycle(RequestResponseCycle):
    """One request and its response."""

    def __init__(self, connection: Connection, *, keep_alive: bool) -> None:
        super().__init__(
            scope=connection.scope,
            transport=_Outlet(connection),
            flow=connection.flow,
            logger=_log,
            access_logger=_log,
            access_log=False,
            default_headers=connection.server_state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=connection.expect_100_continue,
            keep_alive=keep_alive,
            on_response=connection.on_response_complete,
        )
        self._connection = connection
        self._is_stream = False

    async def run_asgi(self, app: ASGI3Application) -> None:
        """Asks the application; whatever happens to it, the client is told.

        Nothing of an exception is written down but its kind and where it happened: its message may hold what a client
        has said.
        """
        try:
            await app(self.scope, self.receive, self.send)
        except asyncio.CancelledError:
            error = ServeError.unavailable("the server ended before the answer did; ask again", 1.0, code="cut_off")
            await self._cut(error)
        except Exception as error:
            where = "".join(traceback.format_tb(error.__traceback__))
            _log.error("request %s failed: %s\n%s", request_id_of(self.scope), type(error).__name__, where)
            await self._cut(ServeError(500, "internal_error", "the server failed at this request; see its log"))
        else:
            if not self.response_complete and not self.disconnected:
                _log.error("request %s was given no whole response", request_id_of(self.scope))
                await self._cut(ServeError(500, "internal_error", "the server gave no whole answer; see its log"))
        finally:
            self.on_response = lambda: None

    async def send(self, message: ASGISendEvent) -> None:
        """Writes a part of the response."""
        if message["type"] == "http.response.start":
            self._is_stream = any(
                name.lower() == b"content-type" and value.startswith(b"text/event-stream")
                for name, value in message.get("headers", ())
            )
            if self.more_body:
                # The rest of the body is not waited for.
                self.keep_alive = False
        if self._connection.draining:
            self.keep_alive = False
        await super().send(message)

    async def _cut(self, error: ServeError) -> None:
        """Ends a response with an error: as the response, as an event of a stream, else by breaking off."""
        if self.disconnected or self.response_complete:
            return
        if not self.response_started:
            await refuse(self.send, error, close=True)  # type: ignore[arg-type]
        elif self._is_stream and not self.flow.write_paused:
            self.keep_alive = False
            await self.send({"type": "http.response.body", "body": event(error), "more_body": False})
        else:
            self._connection.abort()


class _Outlet(asyncio.Transport):
    """Where a response is written to: the transport, but that the connection itself decides how it ends."""

    def __init__(self, connection: Connection) -> None:
        super().__init__()
        self._connection = connection

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Writes."""
        self._connection.write(data)

    def is_closing(self) -> bool:
        """Whether the connection is ending."""
        return self._connection.has_left

    def close(self) -> None:
        """Ends the connection."""
        self._connection.finish()
