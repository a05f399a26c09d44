"""Whether the load generator keeps up with itself: a client that is late makes a server look slow."""

import asyncio
import time
from dataclasses import dataclass
from types import TracebackType
from typing import Self

__all__ = ["BUSY_BOUND", "LATE_BOUND_S", "Lag", "LagWatch"]

LATE_BOUND_S = 0.01
"""An event loop that is later than this once in a hundred times is a client whose own slowness is in the numbers."""

BUSY_BOUND = 0.8
"""A client that computes for more than this share of the time has no room for what comes at once."""

_EVERY_S = 0.01


@dataclass(frozen=True, slots=True)
class Lag:
    """How late the client was.

    Attributes:
        p99_s: Of 100 looks, one found the event loop later than this.
        worst_s: The latest.
        busy_share: Processor time of the process / time; above 1 with several threads.
    """

    p99_s: float
    worst_s: float
    busy_share: float

    @property
    def is_in_the_way(self) -> bool:
        """Whether the numbers are the client's rather than the server's."""
        return self.p99_s > LATE_BOUND_S or self.busy_share > BUSY_BOUND


class LagWatch:
    """Looks every ten milliseconds by how much the event loop is late; used with ``async with``."""

    def __init__(self) -> None:
        self._late_s: list[float] = []
        self._task: asyncio.Task[None] | None = None
        self._began_s = self._processor_s = 0.0

    async def __aenter__(self) -> Self:
        self._began_s, self._processor_s = time.monotonic(), time.process_time()
        self._task = asyncio.create_task(self._look())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._task is not None:
            self._task.cancel()

    def lag(self) -> Lag:
        """What was seen so far."""
        ordered = sorted(self._late_s)
        elapsed_s = time.monotonic() - self._began_s
        return Lag(
            p99_s=ordered[int(0.99 * (len(ordered) - 1))] if ordered else 0.0,
            worst_s=ordered[-1] if ordered else 0.0,
            busy_share=(time.process_time() - self._processor_s) / elapsed_s if elapsed_s > 0 else 0.0,
        )

    async def _look(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due_s = loop.time() + _EVERY_S
            await asyncio.sleep(_EVERY_S)
            self._late_s.append(max(0.0, loop.time() - due_s))
