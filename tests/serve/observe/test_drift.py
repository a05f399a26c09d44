"""Alarms begin and end by the limits of the judged rates, and by nothing else."""

import logging
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from observed import answered_with
from scripted_backend import ScriptedBackend, model_named
from whetstone.serve.observe.drift import INVALID, DriftWatch
from whetstone.serve.served_model import JudgedRate, ServedModel
from whetstone.serve_section import Validate

WINDOW = 10
EMPTY = JudgedRate(name="empty", judged=3, samples=100, window=WINDOW, low=0, high=2)
COPY = JudgedRate(name="copy", judged=50, samples=100, window=WINDOW, low=2, high=8)


def _model(*rates: JudgedRate, validate: bool = False) -> ServedModel:
    return model_named("demo").model_copy(
        update={"judged_rates": rates, "validation": Validate(max_characters=9) if validate else None}
    )


def _watch(*rates: JudgedRate, validate: bool = False, invalid_limit: float = 0.2) -> DriftWatch:
    model = _model(*rates, validate=validate)
    return DriftWatch([ScriptedBackend(models={"demo": model})], invalid_limit=invalid_limit)


@given(st.lists(st.booleans(), max_size=60), st.integers(0, 3), st.integers(0, 7))
def test_an_alarm_is_a_full_window_out_of_its_limits(flags: list[bool], low: int, more: int) -> None:
    rate = EMPTY.model_copy(update={"low": low, "high": low + more})
    watch = _watch(rate)
    for at, flag in enumerate(flags, 1):
        watch.answered(answered_with(text="" if flag else "said"))
        last = flags[max(0, at - WINDOW) : at]
        out = len(last) == WINDOW and not rate.low <= sum(last) <= rate.high
        (watched,) = watch.rates
        assert (watched.answers, watched.seen) == (len(last), sum(last))
        assert bool(watch.alarms) == (watched.alarm_since is not None) == out


def test_an_alarm_says_when_it_began_and_with_what(caplog: pytest.LogCaptureFixture) -> None:
    watch = _watch(EMPTY, COPY)
    with caplog.at_level(logging.WARNING, "whetstone"):
        for number in range(13):
            watch.answered(answered_with(text="" if number in (4, 5, 6, 10, 11, 12) else "She goes home ."))
        alarms = {alarm.rate.name: alarm for alarm in watch.alarms}
        assert set(alarms) == {"empty", "copy"}
        assert (alarms["empty"].began_seen, alarms["empty"].seen) == (3, 6)
        assert "empty: 6 of the last 10 answers, expected 0 to 2 (judged 3 of 100); since 2" in str(alarms["empty"])
        for _ in range(10):
            watch.answered(answered_with(text="She goes home ."))
    assert [alarm.rate.name for alarm in watch.alarms] == ["copy"]
    said = [record.getMessage() for record in caplog.records]
    assert [line.split(": ")[0] for line in said] == ["drift", "drift", "drift ended"]
    assert "demo (scripted): empty: 2 is within 0 to 2 of 10" in said[-1]
    assert not any("She goes" in line for line in said)


def test_too_few_are_an_alarm_too() -> None:
    watch = _watch(COPY)
    for _ in range(WINDOW):
        watch.answered(answered_with(text="Something else ."))
    (alarm,) = watch.alarms
    assert alarm.seen == 0 and alarm.rate.low == 2


@pytest.mark.parametrize(
    "changes",
    [
        {"outcome": "disconnected"},
        {"outcome": "deadline_exceeded"},
        {"cached": True},
        {"choice": 1},
        {"endpoint": "completions"},
        {"endpoint": "embeddings"},
        {"model": "another"},
        {"backend": ""},
        {"backend": "fallback"},
    ],
)
def test_what_does_not_count(changes: dict[str, object]) -> None:
    watch = _watch(EMPTY)
    for _ in range(3 * WINDOW):
        watch.answered(answered_with(**{"text": "", **changes}))
    (watched,) = watch.rates
    assert watched.answers == 0 and not watch.alarms


def test_answers_that_fail_validation() -> None:
    watch = _watch(EMPTY, validate=True)
    for number in range(20):
        watch.answered(answered_with(invalid=1) if number % 5 == 0 else answered_with())
    assert not watch.alarms
    for _ in range(3):
        watch.answered(answered_with(outcome="answer_invalid", invalid=3, text=""))
    (alarm,) = watch.alarms
    assert alarm.rate.name == INVALID and alarm.rate.high == 2
    assert "no judged rate" in str(alarm)
    empty = next(watched for watched in watch.rates if watched.rate.name == "empty")
    # An answer that nobody saw is no answer.
    assert empty.seen == 0


def test_without_validation_nothing_of_it_is_watched() -> None:
    assert [watched.rate.name for watched in _watch(EMPTY).rates] == ["empty"]
    assert [watched.rate.window for watched in _watch(validate=True).rates] == [200]


def test_a_backend_answers_for_itself() -> None:
    first = ScriptedBackend(models={"demo": _model(EMPTY)}, name="first")
    second = ScriptedBackend(models={"demo": _model(EMPTY)}, name="second")
    watch = DriftWatch([first, second])
    for _ in range(WINDOW):
        watch.answered(answered_with(backend="second", text=""))
    assert [(alarm.backend, alarm.model) for alarm in watch.alarms] == [("second", "demo")]


def test_windows_of_backends_of_one_name_are_kept() -> None:
    first = ScriptedBackend(models={"demo": _model(EMPTY)}, name="torch")
    second = ScriptedBackend(models={"demo": _model(COPY), "spare": _model(EMPTY)}, name="torch")
    watch = DriftWatch([first, second])
    for _ in range(WINDOW):
        watch.answered(answered_with(backend="torch", text=""))
        watch.answered(answered_with(backend="torch", model="spare", text=""))
        assert len(watch.rates) == 3
    assert [(alarm.backend, alarm.model) for alarm in watch.alarms] == [("torch", "demo"), ("torch 2", "spare")]


def test_another_model_under_the_name_begins_anew() -> None:
    models = {"demo": _model(EMPTY)}
    backend = ScriptedBackend(models=models)
    watch = DriftWatch([backend])
    for _ in range(WINDOW):
        watch.answered(answered_with(text=""))
    assert watch.alarms
    # The same model, told anew after a restart, is the same.
    backend._models["demo"] = _model(EMPTY)
    assert watch.alarms
    backend._models["demo"] = _model(EMPTY).model_copy(update={"adapter_sha256": "cd"})
    assert not watch.alarms and watch.rates[0].answers == 0
    del backend._models["demo"]
    assert not watch.rates


def test_memory_is_bounded() -> None:
    backend = ScriptedBackend(models={})
    watch = DriftWatch([backend])
    for number in range(200):
        backend._models = {f"adapter-{number}": _model(EMPTY, COPY)}
        for _ in range(3):
            watch.answered(answered_with(model=f"adapter-{number}", text="x" * 1000))
    assert len(watch._watched) == 1
    (watched,) = watch._watched.values()
    for _ in range(1000):
        watch.answered(answered_with(model="adapter-199", text="x" * 1000))
    assert all(sys.getsizeof(window._flags) < 1500 and len(window._flags) == WINDOW for window in watched.windows)
