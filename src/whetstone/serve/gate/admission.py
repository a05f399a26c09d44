"""Who may have answers now, who waits, and who is sent away.

Answers wait in one queue a key, first come, first served, and the keys take turns by deficit round robin (Shreedhar and
Varghese, Efficient Fair Queuing using Deficit Round Robin, SIGCOMM 1995): in each round a key may begin as many answers
as its weight says, and what it could not use because its next request wants more answers is kept for the next round.
So a key with a thousand requests does not delay the first of another. It does not take all places in the queue either:
where the queue is full, whoever has the most in it for its weight gives way (longest queue drop: Suter et al., Design
Considerations for Supporting TCP with Per-Flow Queueing, INFOCOM 1998).

A request for more answers than are free waits until they are, and nobody passes it: else it might wait for ever.
"""

import asyncio
import contextlib
import math
import time
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

from whetstone.serve.errors import ServeError
from whetstone.serve.gate.keys import Principal
from whetstone.serve_section import Limits

__all__ = ["Admission", "Place"]

_MOST_RETRY_S = 60.0
_UNKNOWN_RETRY_S = 5.0
"""What is said while no answers have ended lately."""
_RECENT_S = 120.0
_REMEMBERED = 64
_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class Place:
    """What a request has been given.

    Attributes:
        admitted_s: When, by the clock of the admission.
        waited_s: How long it waited.
    """

    admitted_s: float
    waited_s: float


@dataclass(slots=True, eq=False)
class _Waiter:
    answers: int
    granted: asyncio.Future[None]


@dataclass(slots=True, eq=False)
class _Account:
    """What is known of one key.

    Attributes:
        waiters: The oldest first.
        waiting: Answers that wait.
        running: Answers that run.
        deficit: Answers that it may begin in this round.
        tokens: Requests that its rate has left, at the time ``filled_s``.
    """

    principal: Principal
    tokens: float
    filled_s: float
    waiters: OrderedDict[_Waiter, None] = field(default_factory=OrderedDict)
    waiting: int = 0
    running: int = 0
    deficit: float = 0.0

    @property
    def next(self) -> _Waiter:
        return next(iter(self.waiters))

    def rounds_to_go(self) -> int:
        """How many rounds it takes until the next waiter can be paid for."""
        return max(0, math.ceil((self.next.answers - self.deficit) / self.principal.limits.weight - _ROUNDING))

    def refill(self, now: float) -> None:
        """A bucket of as many tokens as a minute has requests, which fills up in a minute."""
        rate = self.principal.limits.requests_per_minute
        if rate is not None:
            self.tokens = min(float(rate), self.tokens + (now - self.filled_s) * rate / 60)
        self.filled_s = now


class Admission:
    """The places of a server; used in one event loop.

    Attributes:
        waiting: Answers that wait for a place.
        running: Answers that have one.
        draining: New requests are sent away; set it when the server ends.
    """

    def __init__(self, limits: Limits, clock: Callable[[], float] = time.monotonic) -> None:
        self.waiting = 0
        self.running = 0
        self.draining = False
        self._limits = limits
        self._clock = clock
        self._accounts: dict[str, _Account] = {}
        self._turns: deque[_Account] = deque()
        """The keys that have somebody waiting, in the order of their turns."""
        self._ended: deque[tuple[float, int]] = deque(maxlen=_REMEMBERED)
        """When places were given back, and for how many answers."""
        self._idle = asyncio.Event()
        self._idle.set()

    @contextlib.asynccontextmanager
    async def place(self, principal: Principal, answers: int, deadline_s: float) -> AsyncIterator[Place]:
        """Waits for a place and holds it until the block ends.

        Args:
            principal: Who asks.
            answers: How many answers the request wants; they begin together.
            deadline_s: How many seconds from now it waits at most.

        Raises:
            ServeError: 400 it can never have so many; 429 ``rate_limited``, ``too_many_running`` or ``queue_full``;
                503 ``draining``; 504 the deadline passed.
        """
        arrived_s = self._clock()
        account = self._account(principal)
        try:
            self._check(account, answers)
            waiter = self._enter(account, answers)
            timer = asyncio.get_running_loop().call_later(deadline_s, self._give_up, account, waiter)
            try:
                await waiter.granted
            except BaseException:
                self._withdraw(account, waiter)
                raise
            finally:
                timer.cancel()
            try:
                now = self._clock()
                yield Place(now, now - arrived_s)
            finally:
                self._leave(account, answers)
        finally:
            self._forget(account)

    async def idle(self) -> None:
        """Returns when nothing runs and nothing waits."""
        await self._idle.wait()

    def _account(self, principal: Principal) -> _Account:
        """What is known of a key, with the limits that it has now."""
        now = self._clock()
        account = self._accounts.get(principal.name)
        if account is None:
            account = self._accounts[principal.name] = _Account(principal, math.inf, now)
        account.refill(now)
        account.principal = principal
        return account

    def _check(self, account: _Account, answers: int) -> None:
        """Refuses what may not even wait; only what is taken counts for the rate."""
        limits = account.principal.limits
        if self.draining:
            raise ServeError.unavailable(
                "the server is ending; ask again", min(self._limits.drain_s, _MOST_RETRY_S), "draining"
            )
        most = min(self._limits.running, limits.concurrent or self._limits.running)
        if answers > most:
            raise ServeError.invalid(f"{answers} answers to one request are more than {most}; ask for fewer", "n")
        if limits.requests_per_minute is not None and account.tokens < 1 - _ROUNDING:
            wait_s = (1 - account.tokens) * 60 / limits.requests_per_minute
            said = f"the key '{account.principal.name}' may send {limits.requests_per_minute} requests a minute"
            raise _too_many("rate_limited", f"{said}; wait a little", wait_s)
        if limits.concurrent is not None and account.running + account.waiting + answers > limits.concurrent:
            said = f"the key '{account.principal.name}' may have {limits.concurrent} answers at once"
            raise _too_many("too_many_running", f"{said}; wait for one to end", self._time_for(1))
        free = self._limits.running - self.running
        if (self._turns or answers > free) and not self._make_room(account, answers):
            said = f"{self.waiting} answers wait already"
            raise _too_many("queue_full", f"{said}; ask again later", self._time_for(self.waiting))
        if limits.requests_per_minute is not None:
            account.tokens -= 1

    def _make_room(self, account: _Account, answers: int) -> bool:
        """Whether so many answers can wait, others having given way where they have more in the queue.

        Nobody is sent away in vain: the ones that give way are found first.
        """
        over = self.waiting + answers - self._limits.queue
        share = (account.waiting + answers) / account.principal.limits.weight
        left = {other: list(other.waiters) for other in self._turns} if over > 0 else {}
        waiting = {other: other.waiting for other in left}
        leaving: list[tuple[_Account, _Waiter]] = []
        while over > 0:
            longest = max(waiting, key=lambda other: waiting[other] / other.principal.limits.weight, default=None)
            if longest is None or waiting[longest] / longest.principal.limits.weight <= share:
                return False
            newest = left[longest].pop()
            leaving.append((longest, newest))
            waiting[longest] -= newest.answers
            over -= newest.answers
        for other, waiter in leaving:
            said = "the queue is full, and other keys have less in it"
            self._refuse(
                other, waiter, _too_many("queue_full", f"{said}; ask again later", self._time_for(self.waiting))
            )
        return True

    def _enter(self, account: _Account, answers: int) -> _Waiter:
        waiter = _Waiter(answers, asyncio.get_running_loop().create_future())
        if not account.waiters:
            self._turns.append(account)
        account.waiters[waiter] = None
        account.waiting += answers
        self.waiting += answers
        self._idle.clear()
        self._grant()
        return waiter

    def _grant(self) -> None:
        """Gives free places to whoever is next, as long as they suffice."""
        while self._turns:
            account = self._next_account()
            waiter = account.next
            if waiter.answers > self._limits.running - self.running:
                return
            if not waiter.granted.done():
                account.deficit -= waiter.answers
                account.running += waiter.answers
                self.running += waiter.answers
                waiter.granted.set_result(None)
            self._remove(account, waiter)
            if account.waiters and account.rounds_to_go():
                self._turns.rotate(-1)

    def _next_account(self) -> _Account:
        """Whose turn it is; rounds in which nobody could begin anything are passed over at once."""
        rounds = min(account.rounds_to_go() for account in self._turns)
        if rounds:
            for account in self._turns:
                account.deficit += rounds * account.principal.limits.weight
        while self._turns[0].rounds_to_go():
            self._turns.rotate(-1)
        return self._turns[0]

    def _remove(self, account: _Account, waiter: _Waiter) -> None:
        """Takes a waiter out of the queue; a key with nobody waiting saves nothing up."""
        del account.waiters[waiter]
        account.waiting -= waiter.answers
        self.waiting -= waiter.answers
        if not account.waiters:
            self._turns.remove(account)
            account.deficit = 0.0

    def _withdraw(self, account: _Account, waiter: _Waiter) -> None:
        """A waiter that waits no more; it may have been granted its place in the same moment."""
        if waiter in account.waiters:
            self._remove(account, waiter)
            self._grant()
            self._note_idle()
        elif waiter.granted.done() and not waiter.granted.cancelled() and waiter.granted.exception() is None:
            self._leave(account, waiter.answers)

    def _refuse(self, account: _Account, waiter: _Waiter, error: ServeError) -> None:
        if waiter in account.waiters:
            self._remove(account, waiter)
            if not waiter.granted.done():
                waiter.granted.set_exception(error)

    def _give_up(self, account: _Account, waiter: _Waiter) -> None:
        said = "the deadline passed while the request waited for its turn; allow more time, or ask again later"
        self._refuse(account, waiter, ServeError(504, "deadline_exceeded", said))
        self._grant()
        self._note_idle()

    def _leave(self, account: _Account, answers: int) -> None:
        account.running -= answers
        self.running -= answers
        self._ended.append((self._clock(), answers))
        self._grant()
        self._note_idle()

    def _note_idle(self) -> None:
        if not self.running and not self.waiting:
            self._idle.set()

    def _forget(self, account: _Account) -> None:
        """Forgets a key that has nothing here, unless its rate must be remembered."""
        if not account.running and not account.waiters and account.principal.limits.requests_per_minute is None:
            self._accounts.pop(account.principal.name, None)

    def _time_for(self, answers: int) -> float:
        """How long so many answers will take, at the rate at which the last ones ended."""
        now = self._clock()
        while self._ended and now - self._ended[0][0] > _RECENT_S:
            self._ended.popleft()
        if len(self._ended) < 2:
            return _UNKNOWN_RETRY_S
        return answers * (now - self._ended[0][0]) / sum(count for _, count in self._ended)


def _too_many(code: str, message: str, wait_s: float) -> ServeError:
    """429, with whole seconds to wait: never none, and never longer than an estimate is worth."""
    return ServeError(429, code, message, retry_after_s=float(min(_MOST_RETRY_S, max(1, math.ceil(wait_s)))))
