"""The pipes to the server's process, kept from libraries that print."""

import os
import signal
import threading
from collections.abc import Iterator

__all__ = ["EndOfServer", "Pipe", "leave_signals_to_server", "take_pipes"]

_READ_BYTES = 1 << 20


class EndOfServer(Exception):  # noqa: N818 (nothing is wrong with this process)
    """The server's process is gone, or wants this one to end."""


class Pipe:
    """Lines to and from the server's process; any thread may write."""

    def __init__(self, incoming: int, outgoing: int) -> None:
        """Takes two file descriptors over."""
        self._incoming = incoming
        self._outgoing = outgoing
        self._writing = threading.Lock()

    def lines(self) -> Iterator[bytes]:
        """What comes in, until the server's process closes its end or ends."""
        parts: list[bytes] = []
        while read := os.read(self._incoming, _READ_BYTES):
            *ends, rest = read.split(b"\n")
            for end in ends:
                yield b"".join((*parts, end))
                parts.clear()
            parts.append(rest)

    def write(self, line: bytes) -> None:
        """Writes a whole line, however long, and waits while the server's process has not read the last one.

        Raises:
            EndOfServer: Nobody will ever read it.
        """
        left = memoryview(line)
        with self._writing:
            try:
                while left:
                    left = left[os.write(self._outgoing, left) :]
            except BrokenPipeError:
                raise EndOfServer from None


def take_pipes() -> Pipe:
    """Takes standard input and output for messages: what anybody else prints goes to standard error from now on."""
    pipe = Pipe(os.dup(0), os.dup(1))
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    return pipe


def leave_signals_to_server() -> None:
    """Lets the server's process decide when this one ends, for it finishes answers first.

    A terminal's Ctrl-C and a service manager's SIGTERM may reach both.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
