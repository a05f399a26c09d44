"""Places: never too many, never lost, and shared fairly between keys."""

import asyncio
import itertools
import math
import random
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from whetstone.serve.errors import ServeError
from whetstone.serve.gate.admission import Admission, Place
from whetstone.serve.gate.keys import LOCAL, KeyLimits, Principal
from whetstone.serve_section import Limits

LONG_S = 60.0
ENTRIES = itertools.count()


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Guest:
    """One request: comes, waits, has a place until it is told to leave."""

    def __init__(
        self, admission: Admission, principal: Principal, answers: int = 1, deadline_s: float = LONG_S
    ) -> None:
        self.principal = principal
        self.answers = answers
        self.place: Place | None = None
        self.error: ServeError | None = None
        self.leave = asyncio.Event()
        self.entry = math.inf
        self.task = asyncio.create_task(self._stay(admission, deadline_s))

    async def _stay(self, admission: Admission, deadline_s: float) -> None:
        try:
            async with admission.place(self.principal, answers=self.answers, deadline_s=deadline_s) as place:
                self.place = place
                self.entry = next(ENTRIES)
                await self.leave.wait()
        except ServeError as error:
            self.error = error

    @property
    def inside(self) -> bool:
        return self.place is not None and not self.task.done()

    @property
    def outside(self) -> bool:
        return self.place is None and not self.task.done()


def running(check: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """A test that runs in an event loop of its own."""

    def run(*arguments: Any, **named: Any) -> None:
        asyncio.run(asyncio.wait_for(check(*arguments, **named), 30))

    return run


async def settled() -> None:
    """Lets everybody do what they can."""
    for _ in range(6):
        await asyncio.sleep(0)


def key(name: str, **limits: Any) -> Principal:
    return Principal(name, KeyLimits(**limits))


def test_a_place_is_given_at_once_where_there_is_one() -> None:
    async def check() -> None:
        admission = Admission(Limits(running=2, queue=1), Clock())
        async with admission.place(LOCAL, answers=2, deadline_s=LONG_S) as place:
            assert place == Place(admitted_s=1000.0, waited_s=0.0)
            assert (admission.running, admission.waiting) == (2, 0)
        assert (admission.running, admission.waiting) == (0, 0)

    running(check)()


def test_a_place_is_given_back_by_whoever_fails() -> None:
    async def check() -> None:
        admission = Admission(Limits(running=1))
        with pytest.raises(RuntimeError):
            async with admission.place(LOCAL, answers=1, deadline_s=LONG_S):
                raise RuntimeError
        assert admission.running == 0

    running(check)()


def test_waiting_is_measured() -> None:
    async def check() -> None:
        clock = Clock()
        admission = Admission(Limits(running=1), clock)
        first, second = Guest(admission, LOCAL), Guest(admission, LOCAL)
        await settled()
        assert first.inside and second.outside and admission.waiting == 1
        clock.now += 3
        first.leave.set()
        await settled()
        assert second.place == Place(admitted_s=1003.0, waited_s=3.0)
        second.leave.set()
        await settled()

    running(check)()


def test_first_come_first_served_within_a_key() -> None:
    async def check() -> None:
        admission = Admission(Limits(running=1))
        guests = [Guest(admission, LOCAL) for _ in range(5)]
        for number, guest in enumerate(guests):
            await settled()
            assert [one.inside for one in guests] == [place == number for place in range(5)]
            guest.leave.set()
        await settled()

    running(check)()


@pytest.mark.parametrize(("answers", "limits"), [(5, {}), (3, {"concurrent": 2})])
def test_more_answers_than_there_can_ever_be_are_refused(answers: int, limits: dict[str, int]) -> None:
    async def check() -> None:
        admission = Admission(Limits(running=4))
        with pytest.raises(ServeError) as refused:
            async with admission.place(key("a", **limits), answers=answers, deadline_s=LONG_S):
                pass
        assert (refused.value.status, refused.value.param) == (400, "n")

    running(check)()


def test_a_large_request_is_not_passed_by_small_ones() -> None:
    async def check() -> None:
        admission = Admission(Limits(running=4))
        small = [Guest(admission, key("a")) for _ in range(4)]
        await settled()
        large = Guest(admission, key("b", weight=4), answers=4)
        later = [Guest(admission, key("a")) for _ in range(20)]
        for guest in small:
            await settled()
            assert large.outside and not any(guest.inside for guest in later)
            guest.leave.set()
        await settled()
        assert large.inside
        for guest in (large, *later):
            guest.leave.set()
        await settled()
        assert admission.running == 0

    running(check)()


def test_whoever_waited_behind_a_large_request_that_went_away_goes_in() -> None:
    async def check() -> None:
        admission = Admission(Limits(running=2, queue=3))
        first = Guest(admission, key("a"))
        await settled()
        large, small = Guest(admission, LOCAL, answers=2), Guest(admission, LOCAL)
        await settled()
        assert large.outside and small.outside
        # There is a place, but those that wait come first, and there are as many of them as may wait.
        late = Guest(admission, LOCAL)
        await settled()
        assert late.error is not None and late.error.code == "queue_full"
        large.task.cancel()
        await settled()
        assert small.inside
        for guest in (first, small):
            guest.leave.set()
        await settled()

    running(check)()


def test_a_key_that_has_nobody_waiting_saves_nothing_up() -> None:
    async def check() -> None:
        admission = Admission(Limits(running=1))
        heavy, light = key("heavy", weight=2), key("light")
        # It could have had two in this round, and wanted one.
        occupant = Guest(admission, heavy)
        await settled()
        guests = [*(Guest(admission, heavy) for _ in range(4)), Guest(admission, light)]
        for guest in (occupant, *guests):
            await settled()
            guest.leave.set()
        await settled()
        order = sorted(guests, key=lambda guest: guest.entry)
        assert [guest.principal.name for guest in order] == ["heavy", "heavy", "light", "heavy", "heavy"]

    running(check)()


def test_nobody_passes_whoever_is_next() -> None:
    async def check() -> None:
        admission = Admission(Limits(running=4))
        occupant = Guest(admission, key("o"), answers=4)
        await settled()
        small, large, late = (
            Guest(admission, key("a")),
            Guest(admission, key("b", weight=4), answers=4),
            Guest(admission, key("c")),
        )
        await settled()
        occupant.leave.set()
        await settled()
        later = Guest(admission, key("d"))
        await settled()
        assert [guest.inside for guest in (small, large, late, later)] == [True, False, False, False]
        for guest in (small, large, late, later):
            guest.leave.set()
        await settled()

    running(check)()


def test_a_full_queue_refuses_and_says_when_to_come_back() -> None:
    async def check() -> None:
        clock = Clock()
        admission = Admission(Limits(running=1, queue=4), clock)
        for _ in range(3):
            async with admission.place(LOCAL, answers=1, deadline_s=LONG_S):
                clock.now += 6
        guests = [Guest(admission, LOCAL) for _ in range(5)]
        await settled()
        late = Guest(admission, LOCAL)
        await settled()
        assert late.error is not None and (late.error.status, late.error.code) == (429, "queue_full")
        # Three answers ended within 12 s, so that the four that wait take 16 s.
        assert late.error.retry_after_s == 16
        assert [guest.error for guest in guests] == [None] * 5
        for guest in guests:
            guest.leave.set()
        await settled()

    running(check)()


@settings(max_examples=40)
@given(st.lists(st.floats(0, 100), max_size=5), st.floats(0, 1000), st.integers(1, 50))
def test_when_to_come_back_is_never_now_and_never_never(held_s: list[float], later_s: float, waiting: int) -> None:
    async def check() -> None:
        clock = Clock()
        admission = Admission(Limits(running=1, queue=waiting), clock)
        for one_s in held_s:
            async with admission.place(LOCAL, answers=1, deadline_s=LONG_S):
                clock.now += one_s
        clock.now += later_s
        guests = [Guest(admission, LOCAL) for _ in range(waiting + 2)]
        await settled()
        errors = [guest.error for guest in guests if guest.error is not None]
        assert len(errors) == 1
        assert errors[0].retry_after_s is not None and 1 <= errors[0].retry_after_s <= 60
        assert int(errors[0].headers()["Retry-After"]) >= 1
        for guest in guests:
            guest.task.cancel()
        await settled()
        assert (admission.running, admission.waiting) == (0, 0)

    running(check)()


def test_a_flood_does_not_keep_others_out_of_the_queue() -> None:
    async def check() -> None:
        admission = Admission(Limits(running=1, queue=4))
        flood = [Guest(admission, key("flood")) for _ in range(5)]
        await settled()
        sparse = Guest(admission, key("sparse"))
        await settled()
        assert sparse.outside
        # Its newest request gave way, and only that.
        assert [guest.error is not None for guest in flood] == [False] * 4 + [True]
        assert flood[-1].error is not None and flood[-1].error.code == "queue_full"
        assert admission.waiting == 4
        more = Guest(admission, key("flood"))
        await settled()
        assert more.error is not None
        for guest in (*flood, sparse):
            guest.leave.set()
        await settled()

    running(check)()


def test_nobody_gives_way_in_vain() -> None:
    async def check() -> None:
        admission = Admission(Limits(running=8, queue=4))
        inside = Guest(admission, key("a"), answers=8)
        waiting = [Guest(admission, key("a")) for _ in range(4)]
        await settled()
        large = Guest(admission, key("b"), answers=4)
        await settled()
        assert large.error is not None and large.error.code == "queue_full"
        assert all(guest.outside for guest in waiting)
        for guest in (inside, *waiting):
            guest.leave.set()
        await settled()

    running(check)()


def test_the_rate_of_a_key() -> None:
    async def check() -> None:
        clock = Clock()
        admission = Admission(Limits(), clock)

        async def ask(name: str = "a") -> ServeError | None:
            try:
                async with admission.place(key(name, requests_per_minute=6), answers=1, deadline_s=LONG_S):
                    return None
            except ServeError as error:
                return error

        assert [await ask() for _ in range(6)] == [None] * 6
        refused = await ask()
        assert refused is not None
        assert (refused.status, refused.code, refused.retry_after_s) == (429, "rate_limited", 10)
        assert await ask("b") is None
        clock.now += 4
        refused = await ask()
        assert refused is not None and refused.retry_after_s == 6
        clock.now += 6
        assert await ask() is None
        assert await ask() is not None
        clock.now += 3600
        assert [await ask() is None for _ in range(8)] == [True] * 6 + [False] * 2

    running(check)()


@settings(max_examples=30)
@given(st.integers(1, 50), st.lists(st.floats(0, 20), min_size=1, max_size=80))
def test_a_key_never_beats_its_rate(rate: int, pauses_s: list[float]) -> None:
    async def check() -> None:
        clock = Clock()
        admission = Admission(Limits(), clock)
        taken = []
        for pause_s in pauses_s:
            clock.now += pause_s
            try:
                async with admission.place(key("a", requests_per_minute=rate), answers=1, deadline_s=LONG_S):
                    taken.append(clock.now)
            except ServeError as error:
                # Who waits as long as told is taken.
                clock.now += error.retry_after_s or 0
                async with admission.place(key("a", requests_per_minute=rate), answers=1, deadline_s=LONG_S):
                    taken.append(clock.now)
        for start, begun in enumerate(taken):
            for end in range(start, len(taken)):
                assert end - start + 1 <= rate + (taken[end] - begun) * rate / 60 + 1e-6

    running(check)()


def test_only_what_is_taken_counts_for_the_rate() -> None:
    async def check() -> None:
        admission = Admission(Limits(running=2, queue=1), Clock())
        principal = key("a", requests_per_minute=2, concurrent=2)
        first = Guest(admission, principal, answers=2)
        await settled()
        for _ in range(5):
            second = Guest(admission, principal)
            await settled()
            assert second.error is not None and second.error.code == "too_many_running"
        first.leave.set()
        await settled()
        last = Guest(admission, principal)
        await settled()
        assert last.inside
        last.leave.set()
        await settled()

    running(check)()


def test_a_key_has_so_many_answers_at_once() -> None:
    async def check() -> None:
        admission = Admission(Limits(running=8))
        guests = [Guest(admission, key("a", concurrent=3), answers=2), Guest(admission, key("a", concurrent=3))]
        await settled()
        late = Guest(admission, key("a", concurrent=3))
        other = Guest(admission, key("b", concurrent=3))
        await settled()
        assert late.error is not None and (late.error.status, late.error.code) == (429, "too_many_running")
        assert late.error.retry_after_s is not None and late.error.retry_after_s >= 1
        assert other.inside
        guests[1].leave.set()
        await settled()
        late = Guest(admission, key("a", concurrent=3))
        await settled()
        assert late.inside
        for guest in (*guests, other, late):
            guest.leave.set()
        await settled()

    running(check)()


def test_limits_that_change_hold_at_once() -> None:
    async def check() -> None:
        admission = Admission(Limits(), Clock())
        for rate in (None, 1):
            async with admission.place(key("a", requests_per_minute=rate), answers=1, deadline_s=LONG_S):
                pass
        with pytest.raises(ServeError, match="1 requests a minute"):
            async with admission.place(key("a", requests_per_minute=1), answers=1, deadline_s=LONG_S):
                pass

    running(check)()


@pytest.mark.parametrize("deadline_s", [0.0, -1.0, 0.01])
def test_a_deadline_that_passes_while_waiting(deadline_s: float) -> None:
    async def check() -> None:
        admission = Admission(Limits(running=1))
        first = Guest(admission, LOCAL)
        await settled()
        hasty = Guest(admission, LOCAL, deadline_s=deadline_s)
        await asyncio.wait([hasty.task], timeout=5)
        assert hasty.error is not None and (hasty.error.status, hasty.error.code) == (504, "deadline_exceeded")
        assert (admission.running, admission.waiting) == (1, 0)
        first.leave.set()
        await settled()
        assert admission.running == 0

    running(check)()


def test_a_deadline_does_not_end_what_runs() -> None:
    async def check() -> None:
        admission = Admission(Limits(running=1))
        guest = Guest(admission, LOCAL, deadline_s=0.01)
        await asyncio.sleep(0.05)
        assert guest.inside
        guest.leave.set()
        await settled()

    running(check)()


def test_whoever_cancels_leaves_no_trace() -> None:
    async def check() -> None:
        admission = Admission(Limits(running=2))
        first = Guest(admission, key("a"), answers=2)
        await settled()
        large, small = Guest(admission, key("b"), answers=2), Guest(admission, key("c"))
        await settled()
        large.task.cancel()
        await settled()
        assert admission.waiting == 1
        # In the same moment: the place becomes free, and who would have it cancels.
        first.leave.set()
        await asyncio.sleep(0)
        small.task.cancel()
        await settled()
        assert (admission.running, admission.waiting) == (0, 0)
        await asyncio.wait_for(admission.idle(), 1)

    running(check)()


def test_draining() -> None:
    async def check() -> None:
        admission = Admission(Limits(running=1, drain_s=7))
        await asyncio.wait_for(admission.idle(), 1)
        guests = [Guest(admission, LOCAL) for _ in range(2)]
        await settled()
        admission.draining = True
        late = Guest(admission, LOCAL)
        idle = asyncio.create_task(admission.idle())
        await settled()
        assert late.error is not None
        assert (late.error.status, late.error.code, late.error.retry_after_s) == (503, "draining", 7)
        for guest in guests:
            assert guest.inside and not idle.done()
            guest.leave.set()
            await settled()
        assert idle.done()

    running(check)()


OPERATIONS = st.lists(
    st.tuples(
        st.sampled_from(["come", "come", "come", "leave", "leave", "cancel", "settle", "turn"]),
        st.integers(0, 3),
        st.integers(1, 5),
    ),
    max_size=60,
)


@settings(max_examples=150, deadline=None)
@given(OPERATIONS, st.integers(1, 5), st.integers(1, 8))
def test_whatever_comes_and_goes(operations: list[tuple[str, int, int]], most: int, queue: int) -> None:
    """No schedule runs too many at once, leaves a free place unused, or loses anybody."""

    async def check() -> None:
        admission = Admission(Limits(running=most, queue=queue))
        keys = [key("a"), key("b", weight=0.3), key("c", weight=7), key("d", concurrent=3)]
        guests: list[Guest] = []
        for what, which, answers in operations:
            if what == "come":
                guests.append(Guest(admission, keys[which], answers))
            elif what == "settle":
                await settled()
                waiting = [guest for guest in guests if guest.outside]
                assert admission.running == sum(guest.answers for guest in guests if guest.inside)
                assert admission.waiting == sum(guest.answers for guest in waiting) <= queue
                # Whoever is next did not fit, else it would be inside.
                free = most - admission.running
                assert not waiting or max(guest.answers for guest in waiting) > free
            elif what == "turn":
                await asyncio.sleep(0)
            elif guests:
                guest = guests[(which * 5 + answers) % len(guests)]
                guest.leave.set() if what == "leave" else guest.task.cancel()
            assert admission.running <= most
        for guest in guests:
            guest.leave.set()
        await asyncio.wait_for(asyncio.gather(*(one.task for one in guests), return_exceptions=True), 5)
        await asyncio.wait_for(admission.idle(), 1)
        assert (admission.running, admission.waiting) == (0, 0)
        async with admission.place(LOCAL, answers=most, deadline_s=1):
            assert admission.running == most

    running(check)()


SIZES = st.lists(st.integers(1, 4), min_size=30, max_size=60)
WEIGHTS = st.sampled_from([0.25, 0.5, 1.0, 2.0, 3.0])


@settings(max_examples=60, deadline=None)
@given(SIZES, st.integers(1, 4), WEIGHTS, WEIGHTS, st.integers(0, 20))
def test_how_long_a_flood_delays_somebody_else(
    sizes: list[int], wanted: int, flood_weight: float, sparse_weight: float, before: int
) -> None:
    """By as many rounds as its request needs, and what the flood had saved for the next of its own."""

    async def check() -> None:
        admission = Admission(Limits(running=4, queue=1000))
        flood = [Guest(admission, key("flood", weight=flood_weight), size) for size in sizes]
        order = iter(flood)
        await settled()
        for guest in [next(order) for _ in range(min(before, len(sizes) // 2))]:
            guest.leave.set()
            await settled()
        begun = next(ENTRIES)
        sparse = Guest(admission, key("sparse", weight=sparse_weight), wanted)
        await settled()
        while not sparse.inside:
            next(order).leave.set()
            await settled()
        passed = sum(guest.answers for guest in flood if begun < guest.entry < sparse.entry)
        rounds = math.ceil(wanted / sparse_weight)
        assert passed <= max(sizes) + rounds * flood_weight
        for guest in (*flood, sparse):
            guest.leave.set()
        await settled()

    running(check)()


@pytest.mark.parametrize("seed", range(3))
def test_keys_that_always_want_more_share_by_weight(seed: int) -> None:
    async def check() -> None:
        draw = random.Random(seed)
        weights = {"a": 1.0, "b": 3.0, "c": 0.5}
        admission = Admission(Limits(running=4, queue=1000))
        begun: Counter[str] = Counter()
        guests: list[Guest] = []
        counted: set[Guest] = set()
        for _ in range(300):
            for name, weight in weights.items():
                mine = [guest for guest in guests if guest.principal.name == name and guest.outside]
                guests += [Guest(admission, key(name, weight=weight), draw.randint(1, 4)) for _ in range(4 - len(mine))]
            await settled()
            inside = [guest for guest in guests if guest.inside]
            for guest in inside:
                if guest not in counted:
                    counted.add(guest)
                    begun[guest.principal.name] += guest.answers
            draw.choice(inside).leave.set()
            await settled()
            guests = [guest for guest in guests if not guest.task.done()]
        fair = sum(begun.values()) / sum(weights.values())
        for name, weight in weights.items():
            # A round, and a request of the largest size that could not be paid for in it.
            assert abs(begun[name] - fair * weight) <= 2 * (weight + 4)
        for guest in guests:
            guest.task.cancel()
        await settled()

    running(check)()
