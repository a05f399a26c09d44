"""Whoever waits in the server's process for what a process that computes has not finished."""

import asyncio
import itertools
import time
from collections.abc import Iterator
from contextlib import contextmanager

from whetstone.serve.errors import ServeError
from whetstone.serve.worker.protocol import Done, Failed, Loaded, Told, Vector

__all__ = ["Heard", "InFlight", "Waiting"]

Heard = Told | Vector | Loaded | Done
"""What comes of a question, or of an order."""


class Waiting:
    """Whoever waits for what comes of one question.

    Attributes:
        id: Of the question; never used again, so that what comes late reaches nobody.
        over: The other side has said its last word.
    """

    def __init__(self, asked_id: int) -> None:
        """Nothing has come yet."""
        self.id = asked_id
        self.over = False
        self._heard: asyncio.Queue[Heard | ServeError] = asyncio.Queue()

    def hear(self, heard: Heard | ServeError) -> None:
        """Takes what came; never waits, so that nobody is slowed down by another who reads slowly."""
        self._heard.put_nowait(heard)

    async def next(self) -> Heard:
        """What comes next.

        Raises:
            ServeError: Nothing does.
        """
        heard = await self._heard.get()
        if isinstance(heard, ServeError):
            raise heard
        return heard


class InFlight:
    """All who wait."""

    def __init__(self) -> None:
        """Nobody does."""
        self._waiting: dict[int, Waiting] = {}
        self._ids = itertools.count()
        self._since_s = 0.0

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def since_s(self) -> float:
        """Since when there was always somebody, by the monotonic clock."""
        return self._since_s

    @contextmanager
    def waiting(self, deadline_s: float | None = None) -> Iterator[Waiting]:
        """Somebody who waits inside this block.

        Args:
            deadline_s: After so many seconds it is told to wait no longer.
        """
        if not self._waiting:
            self._since_s = time.monotonic()
        waiting = Waiting(next(self._ids))
        self._waiting[waiting.id] = waiting
        alarm = None
        if deadline_s is not None:
            alarm = asyncio.get_running_loop().call_later(deadline_s, waiting.hear, _late())
        try:
            yield waiting
        finally:
            if alarm is not None:
                alarm.cancel()
            self._waiting.pop(waiting.id, None)

    def hear(self, asked_id: int, heard: Heard, *, last: bool) -> None:
        """Tells one of them; those who went away are told nothing."""
        waiting = self._waiting.get(asked_id)
        if waiting is not None:
            waiting.over = last
            waiting.hear(heard)

    def fail(self, failed: Failed) -> None:
        """Tells one that nothing more comes."""
        waiting = self._waiting.get(failed.id)
        if waiting is not None:
            waiting.over = True
            waiting.hear(failed.error)

    def fail_all(self, status: int, code: str, message: str, retry_after_s: float | None) -> None:
        """Tells all so; each gets an exception of its own, for raising it adds a traceback to it."""
        for waiting in self._waiting.values():
            waiting.over = True
            waiting.hear(ServeError(status, code, message, retry_after_s=retry_after_s))


def _late() -> ServeError:
    return ServeError(504, "deadline_exceeded", "the deadline passed before the answer was whole")
