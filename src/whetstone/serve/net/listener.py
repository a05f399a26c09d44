"""The sockets that a server listens on, and how connections are taken from them.

They are bound before anything is loaded, so that a port that is taken is found out at once, and clients that come early
wait in the queue of the kernel instead of being refused. Connections are accepted here and not by asyncio's server,
because that leaves to chance what happens when there are no more files to open, and counts no connection before its TLS
handshake is over.
"""

import asyncio
import contextlib
import errno
import ipaddress
import logging
import os
import socket
import ssl
from collections.abc import Callable, Sequence

from whetstone.errors import UserError

__all__ = ["Listener", "bind", "is_loopback_address", "url_of"]

_log = logging.getLogger("whetstone.serve")

_QUEUE = 2048
_SEND_BUFFER_BYTES = 128 * 2**10
"""Of the kernel, for each connection. It would take megabytes for a client that does not read, and would not say for
minutes that one reads slowly."""
_ACCEPTED_AT_ONCE = 64
"""Before others get their turn."""
_ARRIVING = 256
"""Connections whose TLS handshake goes on; the oldest gives way to the next."""
_NO_MORE_FILES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_PAUSE_S = 0.25
_COMPLAIN_EVERY_S = 60.0
_FIRST_FREE_PORT = 1024


def bind(host: str, port: int) -> list[socket.socket]:
    """Sockets that listen at every address of a host.

    Args:
        host: A name or an address of this machine.
        port: 0 for a free one, which is the same for all addresses.

    Raises:
        UserError: The host is none of this machine, or the port is taken or not allowed.
    """
    sockets: list[socket.socket] = []
    with contextlib.ExitStack() as undo:
        for family, address in _addresses(host):
            bound = socket.socket(family, socket.SOCK_STREAM)
            undo.callback(bound.close)
            sockets.append(bound)
            if os.name == "posix":
                # Elsewhere it would let two servers share a port.
                bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
            bound.setblocking(False)
            try:
                bound.bind((address, port))
                bound.listen(_QUEUE)
            except OSError as error:
                raise UserError(_plain(host, port, error)) from None
            port = bound.getsockname()[1]
        undo.pop_all()
    return sockets


def is_loopback_address(host: str) -> bool:
    """Whether all addresses of a host are reached from this machine only.

    Raises:
        UserError: It has none.
    """
    return all(ipaddress.ip_address(address.partition("%")[0]).is_loopback for _, address in _addresses(host))


def _addresses(host: str) -> list[tuple[socket.AddressFamily, str]]:
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError):
        raise UserError(f"--host: '{host}' is no address of this machine; 127.0.0.1 is, and 0.0.0.0 is all") from None
    return list(dict.fromkeys((family, str(address[0])) for family, _, _, _, address in found))


def _plain(host: str, port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"--port: {port} of {host} is in use; end what listens there, or give another (0 takes one that is free)"
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"--port: {port} is not for every user; give one from {_FIRST_FREE_PORT} on"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"--host: '{host}' is no address of this machine; 127.0.0.1 is, and 0.0.0.0 is all"
    return f"--host, --port: cannot listen at port {port} of {host} ({error.strerror}); give others"


class Listener:
    """Takes connections from sockets for as long as it is open; used in one event loop."""

    def __init__(
        self,
        sockets: Sequence[socket.socket],
        make_protocol: Callable[[], asyncio.Protocol],
        make_room: Callable[[], bool],
        *,
        tls: ssl.SSLContext | None,
        handshake_s: float,
    ) -> None:
        """Takes nothing yet.

        Args:
            sockets: Bound and listening; they are closed with this.
            make_protocol: Makes what speaks with a client.
            make_room: Closes a connection that can be spared, when there are no more files to open.
            tls: Of all connections; None for none.
            handshake_s: How long a TLS handshake may take, and the end of one.
        """
        self._loop = asyncio.get_running_loop()
        self._sockets = sockets
        self._make_protocol = make_protocol
        self._make_room = make_room
        self._tls = tls
        self._timeouts = {} if tls is None else {"ssl_handshake_timeout": handshake_s, "ssl_shutdown_timeout": 1.0}
        # In the order of time.
        self._arriving: dict[asyncio.Task[None], None] = {}
        self._is_open = False
        self._complain_at = 0.0

    def open(self) -> None:
        """Begins to take connections."""
        self._is_open = True
        for one in self._sockets:
            self._loop.add_reader(one, self._accept, one)

    def close(self) -> None:
        """Takes no more; the port is free afterwards."""
        self._is_open = False
        for one in self._sockets:
            self._loop.remove_reader(one)
            one.close()
        for task in self._arriving:
            task.cancel()

    def _accept(self, listening: socket.socket) -> None:
        for _ in range(_ACCEPTED_AT_ONCE):
            try:
                client, _ = listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno not in _NO_MORE_FILES:
                    # Of the client's network (accept(2) of Linux passes those on), or already over.
                    return
                self._out_of_files(listening, error)
                return
            self._welcome(client)

    def _welcome(self, client: socket.socket) -> None:
        client.setblocking(False)
        if len(self._arriving) >= _ARRIVING:
            oldest = next(iter(self._arriving))
            del self._arriving[oldest]
            oldest.cancel()
        task = self._loop.create_task(self._connect(client))
        self._arriving[task] = None
        task.add_done_callback(lambda done: self._arriving.pop(done, None))

    async def _connect(self, client: socket.socket) -> None:
        # A handshake that fails is the client's concern.
        with contextlib.suppress(OSError, TimeoutError):
            await self._loop.connect_accepted_socket(self._make_protocol, client, ssl=self._tls, **self._timeouts)

    def _out_of_files(self, listening: socket.socket, error: OSError) -> None:
        """Closes a connection that can be spared; where there is none, leaves clients in the queue of the kernel.

        The socket goes on being readable, so that without a pause the loop would do nothing but fail.
        """
        now = self._loop.time()
        if now >= self._complain_at:
            _log.warning("connections have to wait or to end: %s; raise 'ulimit -n'", error.strerror)
            self._complain_at = now + _COMPLAIN_EVERY_S
        if not self._make_room():
            self._loop.remove_reader(listening)
            self._loop.call_later(_PAUSE_S, self._go_on, listening)

    def _go_on(self, listening: socket.socket) -> None:
        if self._is_open:
            self._loop.add_reader(listening, self._accept, listening)


def url_of(sockets: Sequence[socket.socket], host: str, *, tls: bool) -> str:
    """The address of a server, as a client on this machine would write it."""
    port = sockets[0].getsockname()[1]
    reached = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http{'s' * tls}://{f'[{reached}]' if ':' in reached else reached}:{port}"
