"""A program that runs behind the server: its process, what it says, and its end."""

import asyncio
import contextlib
import logging
import os
import socket
import sys
from asyncio.subprocess import PIPE, Process, create_subprocess_exec
from collections.abc import Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import psutil

from whetstone.serve.delegate import guard

__all__ = ["Running", "free_port", "whole"]

_LOG = logging.getLogger(__name__)

_GUARD = (sys.executable, "-I", "-S", str(Path(guard.__file__)))
_NOT_PASSED_ON = ("OPENAI_API_KEY", "PYTHONHOME", "PYTHONPATH", "VIRTUAL_ENV", "WHETSTONE_API_KEY")
"""What is ours alone: our keys, and where our own interpreter finds its modules."""
_ALWAYS = {"HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1"}
_LONGEST_LINE_BYTES = 1 << 16
_SHOWN_CHARACTERS = 300
_BEYOND_GRACE_S = 5.0

_Result = TypeVar("_Result")


def free_port() -> int:
    """A port of the loopback that nobody listens at."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


async def whole(ending: Coroutine[Any, Any, _Result]) -> _Result:
    """Waits for the end of something even where this task is cancelled meanwhile; it is cancelled then, too."""
    task = asyncio.create_task(ending)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise


class Running:
    """One process.

    Attributes:
        pid: Its number.
    """

    def __init__(self, process: Process, pid: int, title: str, grace_s: float) -> None:
        """Takes over what :meth:`spawn` started."""
        self.pid = pid
        self._process = process
        self._title = title
        self._grace_s = grace_s
        self._last = ""
        self._hearing = asyncio.create_task(self._hear(), name=f"whet-log-{title}")
        self._waiting = asyncio.create_task(process.wait(), name=f"whet-wait-{title}")

    @classmethod
    async def spawn(
        cls, command: Sequence[str], environment: Mapping[str, str], *, title: str, grace_s: float
    ) -> "Running":
        """Starts one. It ends when this process does, however that comes about.

        Args:
            command: The program, with its arguments.
            environment: What it is told beside the environment of this process.
            title: What it is called in the log.
            grace_s: How long it may take to end once it is told to.

        Raises:
            OSError: There is no such program, or the system has no room for it.
        """
        passed_on = {name: value for name, value in os.environ.items() if name not in _NOT_PASSED_ON}
        process = await create_subprocess_exec(
            *_GUARD,
            str(grace_s),
            *command,
            stdin=PIPE,
            stdout=PIPE,
            stderr=PIPE,
            env=passed_on | _ALWAYS | dict(environment),
            start_new_session=True,
            limit=_LONGEST_LINE_BYTES,
        )
        assert process.stdin is not None and process.stdout is not None and process.stderr is not None
        try:
            said = await process.stdout.readline()
        except asyncio.CancelledError:
            process.stdin.close()
            await whole(process.communicate())
            raise
        if not said:
            lines = (await process.stderr.read()).decode("utf-8", "replace").strip().splitlines()
            await process.wait()
            raise OSError(lines[-1] if lines else "it did not start")
        return cls(process, int(said), title, grace_s)

    @property
    def ended(self) -> bool:
        """Whether it has."""
        return self._waiting.done()

    @property
    def memory_bytes(self) -> int | None:
        """What it and all that it started take; None where it is gone."""
        total = 0
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(self.pid)
            for one in (process, *process.children(recursive=True)):
                total += int(one.memory_info().rss)
        return total or None

    async def wait(self, seconds: float) -> bool:
        """Waits for its end, so long at most; says whether it has ended."""
        await asyncio.wait([self._waiting], timeout=seconds)
        return self.ended

    async def end(self) -> str:
        """Has it end, and waits for that; says how it ended, in words."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        if not await self.wait(self._grace_s + _BEYOND_GRACE_S):
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
        code = await self._waiting
        await self._process.stdout.read()
        # Its pipe may be held open by something that it started and that left its session.
        await asyncio.wait([self._hearing], timeout=1.0)
        self._hearing.cancel()
        how = f"it was ended by signal {code - 128}" if code > 128 else f"it ended with exit code {code}"
        return f"{how}; its last line was: {self._last}" if self._last else how

    async def _hear(self) -> None:
        """Writes what it says into the log."""
        assert self._process.stderr is not None
        while True:
            try:
                line = await self._process.stderr.readline()
            except ValueError:  # longer than any line should be; what was read of it is gone
                continue
            if not line:
                return
            said = line.decode("utf-8", "replace").strip()
            if said:
                self._last = said[:_SHOWN_CHARACTERS]
                _LOG.info("%s: %s", self._title, said)
