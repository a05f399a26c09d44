"""The life of a server: it listens, answers, is told to end, lets what it has begun finish, and ends.

uvicorn's own server closes its listener before it waits for answers, so that whoever asks meanwhile is not even told to
go elsewhere, and whoever watches it thinks that it is dead. Here it goes on listening while it drains: new requests get
503 with ``Retry-After``, health answers, and every response ends its connection.

A signal (SIGTERM, SIGINT) begins the draining; a second one ends the process at once.
"""

import asyncio
import contextlib
import logging
import os
import signal
import socket
import ssl
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from email.utils import formatdate
from types import FrameType
from typing import Protocol

from starlette.types import ASGIApp
from uvicorn.config import Config
from uvicorn.server import ServerState

from whetstone.errors import UserError
from whetstone.serve.net.connections import ClientLimits, Connections
from whetstone.serve.net.listener import Listener
from whetstone.serve.net.protocol import Connection

__all__ = ["Behind", "Server"]

_log = logging.getLogger("whetstone.serve")

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_CLOSE_S = 10.0
"""How long what is behind the server may take to end; a process of ours ends with its pipe in any case."""
_CUT_S = 1.0
"""How long answers that were cut off have to say so."""


class Behind(Protocol):
    """What a server stands before, as far as its life is concerned."""

    async def start(self) -> None:
        """Begins in the background, when the server listens; returns at once."""
        ...

    async def failed(self) -> UserError:
        """Waits until there is no use in going on, and says why; for ever where all is well."""
        ...

    def drain(self) -> None:
        """Takes no more requests from now on."""
        ...

    async def close(self) -> None:
        """Ends; what is being answered fails."""
        ...


class Server:
    """One server; it runs once."""

    def __init__(
        self,
        app: ASGIApp,
        behind: Behind,
        sockets: Sequence[socket.socket],
        limits: ClientLimits,
        *,
        drain_s: float,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """Takes no connection yet.

        Args:
            app: Answers requests, with all its guards.
            behind: What the application stands on.
            sockets: Bound and listening; the server closes them.
            limits: How much of a client is borne.
            drain_s: How long answers that have been begun are waited for at the end.
            tls: Of all connections; None for none.
        """
        self._behind = behind
        self._sockets = sockets
        self._drain_s = drain_s
        self._tls = tls
        self._connections = Connections(limits)
        self._state = ServerState()
        self._config = Config(
            app,
            http=Connection,
            ws="none",
            lifespan="off",
            interface="asgi3",
            proxy_headers=False,
            log_config=None,
        )
        self._config.load()
        self._ending = asyncio.Event()
        self._signalled = False

    def run(self) -> int:
        """Answers until it is told to end.

        Returns:
            The exit code: 0 where all answers that had been begun were finished, 1 where some had to be cut off.

        Raises:
            UserError: What is behind it could not begin.
        """
        return asyncio.run(self.serve())

    async def serve(self) -> int:
        """As :meth:`run`, in a loop that is there."""
        listener = Listener(
            self._sockets,
            lambda: Connection(self._config, self._state, self._connections),
            self._connections.close_longest_waited_for,
            tls=self._tls,
            handshake_s=self._connections.limits.head_s,
        )
        with self._signals():
            async with asyncio.TaskGroup() as group:
                upkeep = [
                    group.create_task(self._tell_the_time()),
                    group.create_task(self._connections.look_after_all()),
                ]
                try:
                    listener.open()
                    await self._behind.start()
                    failure = await self._until_told()
                    cut = await self._drain() if failure is None else 0
                finally:
                    await self._end(listener)
                    for task in upkeep:
                        task.cancel()
        if failure is not None:
            raise failure
        return 1 if cut else 0

    def end(self) -> None:
        """Tells it to end, as a first signal does; from its own thread."""
        self._ending.set()

    async def _until_told(self) -> UserError | None:
        told = asyncio.ensure_future(self._ending.wait())
        failed = asyncio.ensure_future(self._behind.failed())
        await asyncio.wait((told, failed), return_when=asyncio.FIRST_COMPLETED)
        told.cancel()
        if failed.done():
            return failed.result()
        failed.cancel()
        return None

    async def _drain(self) -> int:
        """Waits for what has been begun; gives how many answers had to be cut off.

        Requests that come meanwhile are refused, and are not waited for: there may be always another.
        """
        begun = set(self._state.tasks)
        self._connections.draining = True
        self._behind.drain()
        if not begun:
            return 0
        _log.info("ending; requests that are waited for: %d; a second signal ends at once", len(begun))
        _, late = await asyncio.wait(begun, timeout=self._drain_s)
        return len(late)

    async def _end(self, listener: Listener) -> None:
        """Ends everything. Answers that are not finished fail with what is behind them, and say so themselves."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_S):
                await self._behind.close()
        await self._ended(_CUT_S)
        for task in self._state.tasks:
            task.cancel()
        await self._ended(_CUT_S)
        listener.close()
        for connection in list(self._state.connections):
            connection.shutdown()
        await self._connections.flushed(_CUT_S)
        self._connections.abort_all()

    async def _ended(self, timeout_s: float) -> None:
        if self._state.tasks:
            await asyncio.wait(set(self._state.tasks), timeout=timeout_s)

    async def _tell_the_time(self) -> None:
        """Keeps the header ``Date`` (RFC 9110, section 6.6.1)."""
        while True:
            now = time.time()
            self._state.default_headers = [(b"date", formatdate(now, usegmt=True).encode())]
            await asyncio.sleep(1.0 - now % 1.0)

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """Listens to signals, which only the main thread can."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        loop = asyncio.get_running_loop()

        # Not a handler of the loop: the second signal must work where the loop does not.
        def handle(number: int, frame: FrameType | None) -> None:
            if self._signalled:
                with contextlib.suppress(OSError, ValueError):
                    sys.stderr.flush()
                os._exit(128 + number)
            self._signalled = True
            loop.call_soon_threadsafe(self._ending.set)

        before = {number: signal.signal(number, handle) for number in _SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
