"""A process that computes, as the server's process sees it: its pipes, and how it ends."""

import asyncio
import contextlib
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process, create_subprocess_exec
from collections.abc import AsyncIterator, Sequence

from whetstone.serve.json_line import encode
from whetstone.serve.worker.protocol import ToWorker

__all__ = ["PROGRAM", "Child"]

PROGRAM = (sys.executable, "-P", "-m", "whetstone.serve.worker.main")
"""How the process is started; -P because what lies in the working folder must not stand in for a module."""

_LONGEST_LINE_BYTES = 1 << 26
_QUIET_THREADS = {"OMP_WAIT_POLICY": "PASSIVE"}
"""By default OpenMP's threads turn in circles until the last is done. Beside a server and its clients that one waits
for a core that another turns on: of sixteen streams of a small model on two cores an eighth of the tokens was left."""

_GRACE_S = 2.0
"""How long it may take to end by itself, once its pipe is closed."""


class Child:
    """One process."""

    def __init__(self, process: Process) -> None:
        """Takes a process over."""
        assert process.stdin is not None and process.stdout is not None
        self._process = process
        self._to, self._from = process.stdin, process.stdout

    @classmethod
    async def spawn(cls, program: Sequence[str]) -> "Child":
        """Starts one. It has a session of its own, so that a terminal's Ctrl-C reaches the server alone.

        Args:
            program: With its arguments.

        Raises:
            OSError: The system has no room for it.
        """
        process = await create_subprocess_exec(
            *program,
            stdin=PIPE,
            stdout=PIPE,
            limit=_LONGEST_LINE_BYTES,
            start_new_session=True,
            env=_QUIET_THREADS | os.environ,
        )
        return cls(process)

    @property
    def pid(self) -> int:
        """Its number."""
        return self._process.pid

    async def lines(self) -> AsyncIterator[bytes]:
        """What it says, until it ends; a line that it did not finish is left out."""
        while (line := await self._from.readline()).endswith(b"\n"):
            yield line

    def post(self, message: ToWorker) -> None:
        """Says something, and does not wait; where it has ended, nothing happens.

        Raises:
            ValueError: It holds what JSON cannot say.
        """
        line = encode(message)
        if not self._to.is_closing():
            self._to.write(line)

    async def drain(self) -> None:
        """Waits while it has too much to read."""
        with contextlib.suppress(ConnectionError):
            await self._to.drain()

    def kill(self) -> None:
        """Ends it at once."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()

    async def end(self) -> str:
        """Has it end, and waits for that; says how it ended, in words."""
        self._to.close()
        try:
            async with asyncio.timeout(_GRACE_S):
                code = await self._process.wait()
        except TimeoutError:
            self.kill()
            code = await self._process.wait()
        if code >= 0:
            return f"it ended with exit code {code}"
        return f"it was ended by {signal.Signals(-code).name}"
