"""Measures a server: sends each level of load, writes a row a request, and notes what a reader has to know.

Notable: rows are written as requests end, so whatever ends the benchmark keeps what was measured. What a request under
way would have become is not known; it has no row.
"""

import asyncio
import resource
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

import orjson

import whetstone
from whetstone.bench.client import Client, Outcome, Target
from whetstone.bench.lag import BUSY_BOUND, LATE_BOUND_S, Lag, LagWatch
from whetstone.bench.load import Level, Sender
from whetstone.bench.measurement import ClientLag, Measured, Measurement, measurement_path
from whetstone.bench.prompts import Asked, MadeUpPrompts, fitted
from whetstone.bench.request_row import Arrival, RequestRow
from whetstone.data.prompts import Prompt
from whetstone.errors import UserError
from whetstone.files import write_json
from whetstone.run import Hardware, now

__all__ = ["Benchmark", "Plan", "Watcher", "measure"]

_OTHER_FILES = 64
_MOST_FILES = 65_536
_PIECE_RATIO = 1.05


@dataclass(frozen=True, slots=True)
class Plan:
    """What is measured.

    Attributes:
        target: The server.
        levels: Of load, one after the other; no two alike.
        prompts: What is asked, or of how many tokens it is made up.
        seed: Of made-up prompts and of the moments of a Poisson process.
    """

    target: Target
    levels: tuple[Level, ...]
    prompts: Asked | int
    seed: int = 0


class Watcher(Protocol):
    """Whoever shows how it goes; must be quick, for it runs where the requests are sent."""

    def begin(self, level: Level) -> None:
        """A level begins."""
        ...

    def ended(self, row: RequestRow) -> None:
        """A request ended."""
        ...


@dataclass(frozen=True, slots=True)
class Benchmark:
    """What came of it.

    Attributes:
        measurement: How it was measured.
        counted: Requests that count.
        failed: Those of them that did not succeed.
        interrupted: It was ended early by whoever started it.
    """

    measurement: Measurement
    counted: int
    failed: int
    interrupted: bool


def measure(plan: Plan, requests: Path, watcher: Watcher) -> Benchmark:
    """Sends all levels, and writes the rows and beside them how they were measured.

    Ctrl-C ends it early; what was measured is kept.

    Args:
        plan: What to measure.
        requests: Where the rows go; replaced.
        watcher: Told how it goes.

    Raises:
        UserError: The server does not answer at all, or the rows cannot be written.
    """
    places = _places()
    most = max((level.arrival.level for level in plan.levels if level.arrival.process == "closed"), default=0)
    if most > places:
        raise UserError(f"{most:g} clients need as many connections, and this process may have {places}; ask for fewer")
    sending = _Sending(plan, watcher, places)
    try:
        asyncio.run(sending.run(requests))
    except KeyboardInterrupt:
        if not sending.measured:
            raise
        sending.interrupted = True
    measurement = sending.measurement()
    write_json(measurement_path(requests), measurement.model_dump(mode="json"))
    return Benchmark(measurement, sending.counted, sending.failed, sending.interrupted)


class _RowFile:
    """Rows as they come; each is with the system before the next is made."""

    def __init__(self, path: Path) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            measurement_path(path).unlink(missing_ok=True)
            self._file = path.open("wb", buffering=0)
        except OSError as error:
            raise UserError(f"{path}: cannot be written ({error.strerror}); give another folder") from None

    def write(self, row: RequestRow) -> None:
        self._file.write(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()


@dataclass(slots=True)
class _Totals:
    """Over all requests that were answered."""

    tokens: int = 0
    pieces: int = 0
    uncounted: int = 0
    said: dict[str, str] = field(default_factory=dict)

    def add(self, row: RequestRow, outcome: Outcome) -> None:
        if not row.succeeded:
            self.said.setdefault(row.status, outcome.said)
        elif outcome.new_tokens is None:
            self.uncounted += 1
        elif row.streamed:
            self.tokens += outcome.new_tokens
            self.pieces += len(outcome.piece_s)


class _Sending:
    """The benchmark while it runs."""

    def __init__(self, plan: Plan, watcher: Watcher, places: int) -> None:
        self.counted = self.failed = 0
        self.interrupted = False
        self.measured: list[Measured] = []
        self._plan = plan
        self._watcher = watcher
        self._places = places
        self._client = Client(plan.target)
        self._began_at = now()
        self._asked: Asked = MadeUpPrompts("", 8, plan.seed)
        self._sent = 0
        self._dropped = 0
        self._gone = False
        self._totals = _Totals()
        self._notes: list[str] = []

    async def run(self, requests: Path) -> None:
        """Asks once, and only then writes rows."""
        async with self._client as client:
            if isinstance(self._plan.prompts, int):
                await client.prepare(_shortest(self._asked.prompt(-1)))
                self._asked = await fitted(self._plan.prompts, self._plan.seed, self._count)
            else:
                self._asked = self._plan.prompts
                await client.prepare(_shortest(self._asked.prompt(-1)))
            zero_s = asyncio.get_running_loop().time()
            with _RowFile(requests) as file:
                for level in self._plan.levels:
                    await self._level(level, file, zero_s)
                    if self._gone:
                        break

    async def _count(self, prompt: Prompt) -> Outcome:
        return await self._client.prepare(_shortest(prompt))

    async def _level(self, level: Level, file: _RowFile, zero_s: float) -> None:
        self._watcher.begin(level)
        began_s = asyncio.get_running_loop().time() - zero_s
        first = self._sent

        async def ask(number: int, name: str) -> Outcome:
            self._sent = max(self._sent, first + number + 1)
            return await self._client.ask(self._asked.prompt(first + number), name)

        def tell(row: RequestRow, outcome: Outcome) -> None:
            file.write(row)
            self._tell(row, outcome)

        sender = Sender(level, ask, tell, model=self._client.model, zero_s=zero_s)
        async with LagWatch() as watch:
            try:
                await sender.send(self._plan.seed, self._places)
            finally:
                lag = watch.lag()
                self.measured.append(
                    Measured(
                        arrival=level.arrival,
                        warmup=level.warmup,
                        requests=level.requests,
                        duration_s=level.duration_s,
                        began_s=began_s,
                        client=ClientLag(p99_s=lag.p99_s, worst_s=lag.worst_s, busy_share=lag.busy_share),
                    )
                )
                self._notes += _level_notes(level, lag, sender, self._places)
                self._dropped += sender.under_way
                self._gone = sender.gone

    def _tell(self, row: RequestRow, outcome: Outcome) -> None:
        self._totals.add(row, outcome)
        if not row.warmup:
            self.counted += 1
            self.failed += not row.succeeded
        self._watcher.ended(row)

    def measurement(self) -> Measurement:
        target = self._plan.target
        return Measurement(
            url=self._client.url,
            model=self._client.model,
            began_at=self._began_at,
            prompts=self._asked.about,
            max_tokens=target.max_tokens,
            streamed=target.stream,
            seed=self._plan.seed,
            levels=tuple(self.measured),
            notes=(*self._server_notes(), *self._notes),
            hardware=Hardware.here(),
            whetstone_version=whetstone.__version__,
        )

    def _server_notes(self) -> list[str]:
        totals, said = self._totals, []
        if self.interrupted:
            said.append(f"It was interrupted; {self._dropped} requests were under way and have no row.")
        if self._gone:
            said.append("The server was no longer there, so nothing more was sent.")
        if self._client.refuses_usage:
            said.append("The server refuses stream_options, with which it would be asked to count tokens.")
        if totals.uncounted:
            said.append(
                f"The server did not count the tokens of {totals.uncounted} answers; their pieces of text were counted."
            )
        if totals.pieces and totals.tokens > _PIECE_RATIO * totals.pieces:
            said.append(
                f"Answers came with {totals.tokens / totals.pieces:.2f} tokens to a piece; ITL is between pieces, "
                "TPOT is between tokens."
            )
        latest = max((level.client.p99_s for level in self.measured), default=0.0)
        busiest = max((level.client.busy_share for level in self.measured), default=0.0)
        said.append(
            f"The client's own event loop was late by {_milliseconds(latest)} (99th percentile of its worst level), "
            f"and it was busy {busiest:.0%} of the time at most."
        )
        repeats = self._asked.count
        if repeats is not None and self._sent > repeats:
            said.append(
                f"{self._sent} requests asked {repeats} prompts; a server that keeps prompts or answers had some of "
                "them already."
            )
        return [*said, *(f"First to end with '{status}': {why}." for status, why in totals.said.items() if why)]


def _level_notes(level: Level, lag: Lag, sender: Sender, places: int) -> Sequence[str]:
    notes = []
    if lag.is_in_the_way:
        notes.append(
            f"At {_words(level.arrival)} the client was late by {_milliseconds(lag.p99_s)} (99th percentile; more than "
            f"{_milliseconds(LATE_BOUND_S)} is too late) and busy {lag.busy_share:.0%} of the time (more than "
            f"{BUSY_BOUND:.0%} is too busy): the numbers are the client's as much as the server's. Measure from "
            "another machine, or ask for less at once."
        )
    if sender.was_full:
        notes.append(
            f"At {_words(level.arrival)} as many requests were under way as this process may have, {places}; others "
            "waited in the client."
        )
    return notes


def _words(arrival: Arrival) -> str:
    if arrival.process == "poisson":
        return f"{arrival.level:g} requests/s"
    return f"{arrival.level:g} client{'' if arrival.level == 1 else 's'}"


def _milliseconds(seconds: float) -> str:
    return f"{1000 * seconds:.1f} ms"


def _shortest(prompt: Prompt) -> Prompt:
    """The same prompt, whose answer is not waited for."""
    return replace(prompt, max_new_tokens=1)


def _places() -> int:
    """Connections that this process may have at once."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, _MOST_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        soft = wanted
    return (wanted if soft == resource.RLIM_INFINITY else soft) - _OTHER_FILES
