"""When requests are sent, on a clock that jumps, where every moment is known by hand."""

import asyncio
import itertools
import random
import statistics
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from virtual_time import run_virtually
from whetstone.bench.client import Outcome
from whetstone.bench.load import Ask, Level, Sender, poisson_moments
from whetstone.bench.request_row import Arrival, RequestRow

MANY_PLACES = 10_000


def serving(answer_s: Callable[[int], float], places: int = MANY_PLACES, status: str = "ok") -> Ask:
    """A server that works on so many requests at once and takes so long for each; first token halfway."""
    free = asyncio.Semaphore(places)

    async def ask(number: int, name: str) -> Outcome:
        loop = asyncio.get_running_loop()
        started_s = loop.time()
        async with free:
            await asyncio.sleep(answer_s(number) / 2)
            first_s = loop.time()
            await asyncio.sleep(answer_s(number) / 2)
        return Outcome(started_s, loop.time(), status, True, prompt_tokens=3, new_tokens=2, piece_s=(first_s,))

    return ask


def sent(level: Level, ask: Callable[[], Ask], *, places: int = MANY_PLACES, seed: int = 0) -> list[RequestRow]:
    rows: list[RequestRow] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        await asyncio.sleep(5)
        sender = Sender(level, ask(), lambda row, _: rows.append(row), model="m", zero_s=loop.time())
        await sender.send(seed, places)
        assert sender.under_way == 0

    run_virtually(main())
    return rows


def closed(clients: int, **limits: float) -> Level:
    return Level(Arrival("closed", clients), int(limits.pop("warmup", 0)), **limits)  # type: ignore[arg-type]


def poisson(rate: float, **limits: float) -> Level:
    return Level(Arrival("poisson", rate), int(limits.pop("warmup", 0)), **limits)  # type: ignore[arg-type]


def test_a_client_asks_again_when_it_has_its_answer() -> None:
    rows = sent(closed(1, requests=3, warmup=1), lambda: serving(lambda number: 1.0 + number))
    assert [(row.started_s, row.first_token_s, row.end_s) for row in rows] == [
        (0, 0.5, 1),
        (1, 2, 3),
        (3, 4.5, 6),
        (6, 8, 10),
    ]
    assert [row.warmup for row in rows] == [True, False, False, False]
    assert all(row.queued_s is None and row.due_s == row.started_s for row in rows)
    assert [row.id for row in rows] == [f"closed-1-{number:06d}" for number in range(4)]
    assert (rows[0].prompt_tokens, rows[0].new_tokens, rows[0].token_times_s) == (3, 2, (0.5,))


def test_so_many_clients_are_never_more_nor_fewer() -> None:
    rows = sent(closed(4, requests=40), lambda: serving(lambda number: 1.0 + number % 3))
    assert len(rows) == 40
    last = max(row.started_s for row in rows)
    for moment in [0.01 + 0.25 * step for step in range(int(last / 0.25))]:
        assert sum(row.started_s <= moment < row.end_s for row in rows) == 4


def test_time_counts_from_the_first_request_that_counts() -> None:
    rows = sent(closed(2, duration_s=3, warmup=4), lambda: serving(lambda _: 1.0))
    # Two rounds of warming up; then rounds begin at 2, 3 and 4, and none at 5.
    assert [row.started_s for row in rows if not row.warmup] == [2, 2, 3, 3, 4, 4]


def test_whichever_limit_comes_first_ends_it() -> None:
    assert len(sent(closed(1, duration_s=100, requests=3), lambda: serving(lambda _: 1.0))) == 3
    assert len(sent(closed(1, duration_s=2, requests=300), lambda: serving(lambda _: 1.0))) == 2


def test_requests_fall_due_whether_or_not_the_server_keeps_up() -> None:
    """A server for one request at a time, at twice the load that it takes: latencies grow with the queue."""
    rows = sorted(sent(poisson(2.0, requests=100), lambda: serving(lambda _: 1.0, 1)), key=lambda row: row.due_s)
    expected = list(itertools.islice(poisson_moments(2.0, "0 2.0"), 100))
    assert [row.due_s for row in rows] == pytest.approx(expected, abs=1e-5)
    end_s = 0.0
    for row, due_s in zip(rows, expected, strict=True):
        end_s = max(end_s, due_s) + 1.0
        assert row.end_s == pytest.approx(end_s, abs=1e-4)
    assert rows[-1].end_s - rows[-1].due_s > 30


def test_what_waits_in_the_client_counts_from_when_it_fell_due() -> None:
    rows = sorted(sent(poisson(2.0, requests=50), lambda: serving(lambda _: 1.0), places=1), key=lambda row: row.due_s)
    moments = list(itertools.islice(poisson_moments(2.0, "0 2.0"), 50))
    assert [row.due_s for row in rows] == pytest.approx(moments, abs=1e-5)
    assert all(row.started_s >= row.due_s for row in rows)
    assert rows[-1].started_s > moments[-1] + 10
    assert rows[-1].queued_s == pytest.approx(moments[-1], abs=1e-5)
    assert max(row.end_s - row.started_s for row in rows) == pytest.approx(1.0, abs=1e-5)


def test_a_stalled_loop_sends_late_and_says_when_requests_were_due() -> None:
    """What blocks the client delays sending; the moments stay, so no waiting is left out."""
    inner: Ask | None = None

    def ask_once() -> Ask:
        nonlocal inner
        inner = serving(lambda _: 0.001)

        async def ask(number: int, name: str) -> Outcome:
            assert inner is not None
            if number == 3:
                # The clock moves on while nobody else may run.
                asyncio.get_running_loop()._clock.now_s += 7.0  # type: ignore[attr-defined]
            return await inner(number, name)

        return ask

    rows = {row.id: row for row in sent(poisson(2.0, requests=12), ask_once)}
    moments = list(itertools.islice(poisson_moments(2.0, "0 2.0"), 12))
    row = rows["poisson-2-000005"]
    assert row.due_s == pytest.approx(moments[5], abs=1e-5)
    assert row.started_s > moments[3] + 6.9


def test_a_poisson_process_ends_with_its_time() -> None:
    rows = sent(poisson(5.0, duration_s=20, warmup=7), lambda: serving(lambda _: 1.0))
    moments = list(itertools.islice(poisson_moments(5.0, "0 5.0"), 300))
    inside = [moment for moment in moments[7:] if moment < moments[7] + 20]
    assert sum(not row.warmup for row in rows) == len(inside)
    assert sum(row.warmup for row in rows) == 7


def test_a_server_that_is_gone_is_not_asked_for_ever() -> None:
    def dying() -> Ask:
        fine, gone = serving(lambda _: 1.0), serving(lambda _: 0.001, status="connection")
        return lambda number, name: (fine if number < 5 else gone)(number, name)

    for level in (closed(3, requests=10_000), poisson(10.0, requests=10_000)):
        rows = sent(level, dying)
        # Late answers from before begin the count anew.
        assert 50 <= sum(not row.succeeded for row in rows) <= 70
        assert sum(row.succeeded for row in rows) == 5


def test_other_failures_do_not_end_it() -> None:
    rows = sent(closed(2, requests=200), lambda: serving(lambda _: 0.1, status="http 503"))
    assert len(rows) == 200
    assert {row.status for row in rows} == {"http 503"}


def gaps(rate: float, seed: str, count: int) -> list[float]:
    moments = list(itertools.islice(poisson_moments(rate, seed), count))
    return [then - before for before, then in itertools.pairwise([0.0, *moments])]


@pytest.mark.parametrize("rate", [0.5, 3.0, 250.0])
def test_arrivals_have_the_mean_and_the_variance_of_a_poisson_process(rate: float) -> None:
    """Gaps: mean 1/R, variance 1/R². Counts in equal spans: variance = mean. Bounds are five standard errors."""
    n = 40_000
    drawn = gaps(rate, "variance", n)
    assert statistics.fmean(drawn) == pytest.approx(1 / rate, rel=5 / n**0.5)
    # The variance of the sample variance of an exponential: (kurtosis 9 - 1) / n of its square.
    assert statistics.variance(drawn) == pytest.approx(1 / rate**2, rel=5 * (8 / n) ** 0.5)
    spans = 2000
    width_s = sum(drawn) / spans
    counts = [0] * (spans + 1)
    for moment in itertools.accumulate(drawn):
        counts[int(moment / width_s)] += 1
    mean, variance = statistics.fmean(counts[:spans]), statistics.variance(counts[:spans])
    assert variance == pytest.approx(mean, rel=5 * (2 / spans) ** 0.5)
    # Gaps do not follow from those before them.
    centred = [gap - 1 / rate for gap in drawn]
    together = statistics.fmean(a * b for a, b in itertools.pairwise(centred)) * rate**2
    assert abs(together) < 5 / n**0.5


@given(st.integers(0, 10**6), st.floats(0.01, 1000))
def test_the_same_seed_gives_the_same_moments(seed: int, rate: float) -> None:
    def some(seed: int) -> Iterator[float]:
        return itertools.islice(poisson_moments(rate, str(seed)), 20)

    moments = list(some(seed))
    assert moments == list(some(seed)) == sorted(moments)
    assert moments != list(some(seed + 1))


@given(st.integers(1, 8), st.integers(0, 5), st.integers(1, 30), st.randoms(use_true_random=False))
def test_every_number_is_asked_once(clients: int, warmup: int, requests: int, draw: random.Random) -> None:
    times = [draw.uniform(0.1, 2) for _ in range(40)]
    rows = sent(closed(clients, requests=requests, warmup=warmup), lambda: serving(lambda number: times[number]))
    assert sorted(row.id for row in rows) == [f"closed-{clients}-{number:06d}" for number in range(warmup + requests)]
    assert sum(row.warmup for row in rows) == warmup
