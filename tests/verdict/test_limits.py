"""Limits and retention: passed only when the interval lies within the bound, failed only when it lies beyond it."""

from collections.abc import Callable
from pathlib import Path

import pytest

from whetstone.judge_section import Limit, RetentionGate
from whetstone.report.summary import summarise
from whetstone.run import RetentionRecord, Run
from whetstone.verdict.gate import Gate
from whetstone.verdict.limits import retention_gates


@pytest.fixture
def gates(make_run: Callable[..., Run], tmp_path: Path) -> Callable[..., list[Gate]]:
    """The limits of a rule on a synthetic run in batches of 32."""
    run = make_run(tmp_path / "run", n=300)

    def apply(*limits: Limit) -> list[Gate]:
        judge = run.manifest().experiment.judge.model_copy(update={"limits": limits})
        return list(summarise(run, judge).verdict.gates[-len(limits) :])

    return apply


def test_a_limit_is_held_against_the_interval(gates: Callable[..., list[Gate]]) -> None:
    found = gates(
        Limit(measure="latency_p50_s", at_most=60.0),
        Limit(measure="latency_p50_s", at_most=0.001),
        Limit(measure="first_token_p50_s", at_most_times_base=1.5),
        Limit(measure="first_token_p50_s", at_most_times_base=1.0),
        Limit(measure="memory_bytes", at_most=2e9),
        Limit(measure="memory_bytes", at_most_times_base=0.5),
    )
    assert [gate.state for gate in found] == ["passed", "failed", "passed", "open", "passed", "failed"]
    assert "over n = 300" in found[0].reason
    assert all(bool(gate.remedy) == (gate.state != "passed") for gate in found)


def test_a_percentile_of_few_batches_is_not_measured(gates: Callable[..., list[Gate]]) -> None:
    (gate,) = gates(Limit(measure="latency_p95_s", at_most=60.0))
    assert gate.state == "open"
    assert "it takes 72 of them" in gate.reason


def record(difference: float, spread: float | None) -> RetentionRecord:
    return RetentionRecord(
        source="general text",
        texts=60,
        tokens=4000,
        bytes=16_000,
        windowed=0,
        nll_before=3.0,
        nll_after=3.0 + difference,
        bits_per_byte_before=1.1,
        bits_per_byte_after=1.2,
        difference=difference,
        standard_error=None if spread is None else spread / 2,
        low=None if spread is None else difference - spread,
        high=None if spread is None else difference + spread,
    )


@pytest.mark.parametrize(
    ("difference", "spread", "state"),
    [(0.01, 0.02, "passed"), (0.04, 0.02, "open"), (0.09, 0.02, "failed"), (-0.5, 0.1, "passed"), (0.0, None, "open")],
)
def test_retention_is_held_to_its_margin(difference: float, spread: float | None, state: str) -> None:
    (gate,) = retention_gates((record(difference, spread),), RetentionGate(margin=0.05))
    assert gate.state == state
    assert bool(gate.remedy) == (state != "passed")


def test_retention_that_was_not_measured_is_open() -> None:
    (gate,) = retention_gates((), RetentionGate(margin=0.05))
    assert (gate.state, gate.reason) == ("open", "Not measured.")
    assert retention_gates((record(1.0, 0.1),), None) == []
