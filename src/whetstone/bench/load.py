"""Sends requests in a closed loop or as a Poisson process, and makes a row of each.

Notable: in a closed loop a slow server is asked less often, so its clients never see the queue that independent users
would; that is what the Poisson process is for. There, requests fall due at moments drawn beforehand, whether or not
earlier ones were answered, and each latency counts from when its request fell due.
"""

import asyncio
import itertools
import random
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass

from whetstone.bench.client import CONNECTION, Outcome
from whetstone.bench.request_row import Arrival, RequestRow

__all__ = ["Ask", "Level", "Sender", "poisson_moments"]

Ask = Callable[[int, str], Awaitable[Outcome]]
"""Sends the request of a number under an id."""

_GONE_AFTER = 50
"""Requests in a row that find no server; what comes after them would say nothing more."""

_DIGITS = 6
"""Rows keep microseconds."""


def poisson_moments(per_s: float, seed: str) -> Iterator[float]:
    """When requests fall due, in seconds from the beginning: gaps are exponential with mean ``1 / per_s``.

    Args:
        per_s: Requests a second.
        seed: The same one gives the same moments.
    """
    draw = random.Random(seed)
    moment_s = 0.0
    while True:
        moment_s += draw.expovariate(per_s)
        yield moment_s


@dataclass(frozen=True, slots=True)
class Level:
    """One way to load a server.

    Attributes:
        arrival: How requests arrive.
        warmup: So many are sent first and not counted.
        requests: So many are counted; None where time decides.
        duration_s: Requests are begun for so long; None where their number decides.
    """

    arrival: Arrival
    warmup: int
    requests: int | None = None
    duration_s: float | None = None


class Sender:
    """Sends the requests of one level; rows go out as requests end.

    Attributes:
        gone: The server was no longer there, and sending ended early.
        under_way: Requests that were sent and have not ended.
        was_full: Requests fell due while as many as there are places were under way.
    """

    def __init__(
        self, level: Level, ask: Ask, tell: Callable[[RequestRow, Outcome], None], *, model: str, zero_s: float
    ) -> None:
        """Sends nothing yet.

        Args:
            level: What to send.
            ask: Sends one.
            tell: Told each row with what it was made from.
            model: As it is asked for.
            zero_s: When the benchmark began, on the clock of the event loop; rows count from here.
        """
        self.gone = False
        self.under_way = 0
        self.was_full = False
        self._level = level
        self._ask = ask
        self._tell = tell
        self._model = model
        self._zero_s = zero_s
        self._numbers = itertools.count()
        self._deadline_s: float | None = None
        self._unconnected = 0

    async def send(self, seed: int, places: int) -> None:
        """Sends all of them, and waits for the answers.

        Args:
            seed: Of the moments of a Poisson process.
            places: How many may be under way at once; those beyond wait here, and their waiting counts.
        """
        if self._level.arrival.process == "closed":
            await self._closed()
        else:
            await self._poisson(seed, asyncio.Semaphore(places))

    async def _closed(self) -> None:
        async def client() -> None:
            while (number := self._next(asyncio.get_running_loop().time())) is not None:
                await self._one(number, None)

        async with asyncio.TaskGroup() as group:
            for _ in range(int(self._level.arrival.level)):
                group.create_task(client())

    async def _poisson(self, seed: int, places: asyncio.Semaphore) -> None:
        loop = asyncio.get_running_loop()
        begin_s = loop.time()

        async def one(number: int, due_s: float) -> None:
            self.was_full = self.was_full or places.locked()
            async with places:
                await self._one(number, due_s)

        async with asyncio.TaskGroup() as group:
            for moment_s in poisson_moments(self._level.arrival.level, f"{seed} {self._level.arrival.level}"):
                due_s = begin_s + moment_s
                number = self._next(due_s)
                if number is None:
                    return
                await asyncio.sleep(max(0.0, due_s - loop.time()))
                if self.gone:
                    return
                group.create_task(one(number, due_s))

    def _next(self, now_s: float) -> int | None:
        """The number of the next request; None where there is to be none."""
        level = self._level
        number = next(self._numbers)
        if number == level.warmup and level.duration_s is not None:
            self._deadline_s = now_s + level.duration_s
        late = self._deadline_s is not None and now_s >= self._deadline_s
        enough = level.requests is not None and number >= level.warmup + level.requests
        return None if late or enough or self.gone else number

    async def _one(self, number: int, due_s: float | None) -> None:
        arrival = self._level.arrival
        name = f"{arrival.process}-{arrival.level:g}-{number:06d}"
        self.under_way += 1
        outcome = await self._ask(number, name)
        self.under_way -= 1
        self._unconnected = self._unconnected + 1 if outcome.status == CONNECTION else 0
        self.gone = self.gone or self._unconnected >= _GONE_AFTER
        pieces = tuple(map(self._since_zero, outcome.piece_s))
        row = RequestRow(
            id=name,
            model=self._model,
            started_s=self._since_zero(outcome.started_s),
            end_s=self._since_zero(outcome.end_s),
            prompt_tokens=outcome.prompt_tokens or 0,
            new_tokens=len(pieces) if outcome.new_tokens is None else outcome.new_tokens,
            status=outcome.status,
            streamed=outcome.streamed,
            warmup=number < self._level.warmup,
            arrival=arrival,
            queued_s=None if due_s is None or due_s >= outcome.started_s else self._since_zero(due_s),
            first_token_s=pieces[0] if pieces else None,
            token_times_s=pieces or None,
        )
        self._tell(row, outcome)

    def _since_zero(self, moment_s: float) -> float:
        return round(moment_s - self._zero_s, _DIGITS)
