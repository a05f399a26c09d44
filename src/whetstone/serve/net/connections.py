"""The open connections of a server: how many there may be, and which are closed when there are too many or too slow.

A connection is *waited for* while its client has the word: between requests, and until a request is there with its
whole body. Where the server is full, the one that has been waited for longest gives way to the next; so clients that
open connections and say nothing, or little by little, keep nobody out. Only where all clients have asked and wait for
their answers is the next one told so (503).

One task looks after all connections a few times a second, which is cheaper than timers of their own.
"""

import asyncio
from dataclasses import dataclass
from typing import Protocol

from whetstone.serve_section import Limits

__all__ = ["ClientLimits", "Connections", "Watched"]

_LEAVING = 64
"""Connections that are being ended and do not count; each takes a second at most."""


@dataclass(frozen=True, slots=True)
class ClientLimits:
    """How much of a client is borne.

    Attributes:
        connections: How many may be open.
        head_s: How long the head of a request may take, counted from its first byte.
        keep_alive_s: How long a connection may be idle between requests. Longer than clients keep theirs (5 s of httpx,
            15 s of aiohttp), so that no request meets a connection that is just being closed.
        stall_s: How long a client may take no byte of what is sent to it.
        linger_s: How long what a refused client still sends is thrown away, so that it can read why.
        linger_bytes: How much of it.
        head_bytes: Of one request.
        head_lines: Of one request.
    """

    connections: int
    head_s: float
    keep_alive_s: float = 75.0
    stall_s: float = 60.0
    linger_s: float = 1.0
    linger_bytes: int = 2**20
    head_bytes: int = 32 * 2**10
    head_lines: int = 100

    @classmethod
    def of(cls, limits: Limits) -> "ClientLimits":
        """The part of the settings that is about connections."""
        return cls(connections=limits.connections, head_s=limits.header_s)

    @property
    def look_every_s(self) -> float:
        """How often all connections are looked after: a time-out is late by this much at most."""
        shortest = min(self.head_s, self.keep_alive_s, self.stall_s, self.linger_s)
        return min(1.0, max(0.05, shortest / 4))


class Watched(Protocol):
    """A connection, as it is looked after."""

    def look_after(self, now: float) -> None:
        """Ends it where the client has taken too long."""
        ...

    def abort(self) -> None:
        """Ends it at once."""
        ...


class Connections:
    """All connections of one server; used in one event loop.

    Attributes:
        limits: How much of a client is borne.
        draining: The server is about to end: every response is the last one of its connection.
    """

    def __init__(self, limits: ClientLimits) -> None:
        self.limits = limits
        self.draining = False
        self._open: set[Watched] = set()
        # In the order of time, and so is the other.
        self._waited_for: dict[Watched, None] = {}
        self._leaving: dict[Watched, None] = {}

    def __len__(self) -> int:
        return len(self._open)

    def admit(self, connection: Watched) -> bool:
        """Takes a new connection in; another is closed for it if need be.

        Returns:
            False where the server is full of clients that wait for their answers: the connection is to be refused.
        """
        if len(self._open) >= self.limits.connections and not self.close_longest_waited_for():
            return False
        self._open.add(connection)
        self._waited_for[connection] = None
        return True

    def close_longest_waited_for(self) -> bool:
        """Closes the connection whose client has said nothing whole for longest, if there is one."""
        connection = next(iter(self._waited_for), None)
        if connection is None:
            return False
        self.forget(connection)
        connection.abort()
        return True

    def wait_for(self, connection: Watched) -> None:
        """The client has its answer, and the word."""
        if connection in self._open:
            self._waited_for[connection] = None

    def has_asked(self, connection: Watched) -> None:
        """A request of the client is there as a whole."""
        self._waited_for.pop(connection, None)

    def leave(self, connection: Watched) -> None:
        """The connection is about to end, and no longer counts."""
        self.forget(connection)
        self._leaving[connection] = None
        if len(self._leaving) > _LEAVING:
            first = next(iter(self._leaving))
            self.forget(first)
            first.abort()

    def forget(self, connection: Watched) -> None:
        """The connection has ended."""
        self._open.discard(connection)
        self._waited_for.pop(connection, None)
        self._leaving.pop(connection, None)

    async def look_after_all(self) -> None:
        """Enforces all time-outs, for ever."""
        now = asyncio.get_running_loop().time
        while True:
            await asyncio.sleep(self.limits.look_every_s)
            for connection in [*self._open, *self._leaving]:
                connection.look_after(now())

    def abort_all(self) -> None:
        """Ends what is still open."""
        for connection in [*self._open, *self._leaving]:
            connection.abort()

    async def flushed(self, timeout_s: float) -> None:
        """Waits until all connections have ended, but not for ever."""
        ends = asyncio.get_running_loop().time() + timeout_s
        while (self._open or self._leaving) and asyncio.get_running_loop().time() < ends:
            await asyncio.sleep(0.01)
