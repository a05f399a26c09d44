"""Whether live answers still are as the judged ones were: too many empty ones, too long ones, copies, and so on.

The judged samples say how often each of these happened when the model was judged, and between which counts of so many
live answers that rate leaves room (:class:`~whetstone.serve.served_model.JudgedRate`). Live questions are others than
the judged ones, and clients may cut answers short or draw them at another temperature: an alarm says that the answers
have changed, and not why.
"""

import datetime
import logging
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from whetstone.serve.answered import Answered
from whetstone.serve.backend import Backend
from whetstone.serve.observe.backend_labels import labelled
from whetstone.serve.observe.observation import observe
from whetstone.serve.served_model import JudgedRate, ServedModel

__all__ = ["INVALID", "DriftAlarm", "DriftWatch", "WatchedRate"]

INVALID = "invalid"
"""The rate of answers that did not pass validation at first; when a model was judged there was no validation, so that
what it is compared with is a limit and no judged rate."""

_ANSWER_INVALID = "answer_invalid"
"""The outcome of a request none of whose answers passed."""

_INVALID_WINDOW = 200
"""How many answers are looked at for it where the judged rates name no window."""

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class DriftAlarm:
    """A rate that left its limits.

    Attributes:
        backend: Who answers.
        model: Its name.
        rate: Which rate, with its limits.
        began_at: When, UTC.
        began_seen: How many of the window there were then.
        seen: How many there are now.
    """

    backend: str
    model: str
    rate: JudgedRate
    began_at: str
    began_seen: int
    seen: int

    def __str__(self) -> str:
        rate = self.rate
        judged = f"judged {rate.judged} of {rate.samples}" if rate.samples else "no judged rate"
        return (
            f"{self.model} ({self.backend}): {rate.name}: {self.seen} of the last {rate.window} answers, expected "
            f"{rate.low} to {rate.high} ({judged}); since {self.began_at}, when it was {self.began_seen}"
        )


@dataclass(frozen=True, slots=True)
class WatchedRate:
    """How a rate is now.

    Attributes:
        backend: Who answers.
        model: Its name.
        rate: Which rate, with its limits.
        answers: How many answers are in the window; it decides nothing before it is full.
        seen: How many of them count.
        alarm_since: Since when they are out of the limits, UTC; None while they are not.
    """

    backend: str
    model: str
    rate: JudgedRate
    answers: int
    seen: int
    alarm_since: str | None


class _Window:
    """The last answers, as to one rate."""

    __slots__ = ("_flags", "began_at", "began_seen", "rate", "seen")

    def __init__(self, rate: JudgedRate) -> None:
        self.rate = rate
        self.seen = 0
        self.began_at: str | None = None
        self.began_seen = 0
        self._flags: deque[bool] = deque(maxlen=rate.window)

    @property
    def answers(self) -> int:
        return len(self._flags)

    def add(self, flag: bool) -> bool:
        """Takes one more, and says whether an alarm began or ended with it."""
        full = len(self._flags) == self.rate.window
        self.seen += flag - (full and self._flags[0])
        self._flags.append(flag)
        if len(self._flags) < self.rate.window:
            return False
        out = not self.rate.low <= self.seen <= self.rate.high
        if out == (self.began_at is not None):
            return False
        self.began_at = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds") if out else None
        self.began_seen = self.seen
        return True


class _Watched:
    """One model of one backend."""

    __slots__ = ("_invalid", "_windows", "model")

    def __init__(self, model: ServedModel, invalid_limit: float, *, validated: bool) -> None:
        self.model = model
        self._windows = [_Window(rate) for rate in model.judged_rates]
        self._invalid: _Window | None = None
        if validated or model.validation is not None:
            window = max((rate.window for rate in model.judged_rates), default=_INVALID_WINDOW)
            high = int(invalid_limit * window)
            self._invalid = _Window(JudgedRate(name=INVALID, judged=0, samples=0, window=window, low=0, high=high))

    @property
    def windows(self) -> list[_Window]:
        return self._windows if self._invalid is None else [*self._windows, self._invalid]

    def take(self, answered: Answered) -> Iterator[_Window]:
        """Counts an answer, and gives the windows whose alarm began or ended with it."""
        failed = answered.outcome == _ANSWER_INVALID
        if self._invalid is not None and self._invalid.add(failed or answered.invalid > 0):
            yield self._invalid
        if self._windows and not failed:
            flags = observe(
                answered.asked, answered.text, answered.new_tokens, answered.finish_reason, self.model.judged_rates
            )
            for window in self._windows:
                if window.add(flags[window.rate.name]):
                    yield window


class DriftWatch:
    """Compares the last answers of each model with the judged ones; hears what became of every request.

    Only what a model newly said in a conversation counts, as it was judged: the first answer to a request, and none
    from the cache. Memory is one flag for each rate and answer of a window, of models that are served.

    Args:
        backends: Whose models are watched. An answer of a fallback under another name than was asked for is not.
        invalid_limit: The share of answers that may fail validation at first.
        validated: The server says what answers of all its models must be; else each model may.
    """

    def __init__(self, backends: Sequence[Backend], *, invalid_limit: float = 0.05, validated: bool = False) -> None:
        self._backends = backends
        self._validated = validated
        self._invalid_limit = invalid_limit
        self._watched: dict[tuple[str, str], _Watched] = {}

    def answered(self, answered: Answered) -> None:
        """Counts an answer, and logs when an alarm begins or ends."""
        told = answered.endpoint == "chat" and answered.outcome in ("ok", _ANSWER_INVALID)
        if not told or answered.choice > 0 or answered.cached:
            return
        for label, backend in labelled(self._backends):
            served = backend.models.get(answered.model) if backend.name == answered.backend else None
            if served is not None:
                self._take(label, answered, served)
                return

    @property
    def alarms(self) -> list[DriftAlarm]:
        """The rates that are out of their limits now."""
        return [_alarm(*key, window) for key, window in self._now() if window.began_at is not None]

    @property
    def rates(self) -> list[WatchedRate]:
        """All rates that are watched, as they are now."""
        return [
            WatchedRate(*key, window.rate, window.answers, window.seen, window.began_at) for key, window in self._now()
        ]

    def _take(self, backend: str, answered: Answered, served: ServedModel) -> None:
        for window in self._find(backend, answered.model, served).take(answered):
            if window.began_at is None:
                where = f"{answered.model} ({backend}): {window.rate.name}"
                limits = f"{window.rate.low} to {window.rate.high} of {window.rate.window}"
                _logger.warning("drift ended: %s: %d is within %s again", where, window.seen, limits)
            else:
                _logger.warning("drift: %s", _alarm(backend, answered.model, window))

    def _now(self) -> Iterator[tuple[tuple[str, str], _Window]]:
        """The windows of all models that are served, also before their first answer."""
        for label, backend in labelled(self._backends):
            for name, served in backend.models.items():
                for window in self._find(label, name, served).windows:
                    yield (label, name), window

    def _find(self, backend: str, model: str, served: ServedModel) -> _Watched:
        key = backend, model
        watched = self._watched.get(key)
        if watched is None or (watched.model is not served and watched.model != served):
            # It is new, or another model took the name; the windows of those that are gone go with it.
            there = {(label, name) for label, one in labelled(self._backends) for name in one.models}
            self._watched = {old: kept for old, kept in self._watched.items() if old in there}
            watched = self._watched[key] = _Watched(served, self._invalid_limit, validated=self._validated)
        return watched


def _alarm(backend: str, model: str, window: _Window) -> DriftAlarm:
    return DriftAlarm(backend, model, window.rate, window.began_at or "", window.began_seen, window.seen)
