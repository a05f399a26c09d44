"""Limits and retention: passed only when the interval lies within the bound, failed only when it lies beyond it."""

import numpy as np
import pytest
from scipy import stats

from whetstone.judge_section import RetentionGate
from whetstone.run import RetentionRecord
from whetstone.verdict.limits import quantile_of, retention_gates


@pytest.mark.parametrize("share", [0.5, 0.95])
@pytest.mark.parametrize("n", [60, 150, 400])
def test_the_interval_of_a_quantile_covers_it(share: float, n: int) -> None:
    generator = np.random.default_rng(n)
    truth = stats.expon.ppf(share)
    covered = bounded = 0
    for _ in range(600):
        found = quantile_of(generator.exponential(size=n), share, 0.95)
        bounded += found.high is not None
        covered += (found.low is None or found.low <= truth) and (found.high is None or truth <= found.high)
    assert covered / 600 > 0.93
    # The largest of n values lies above the quantile with probability 1 - share ** n.
    assert bounded == (600 if share**n < 0.025 else 0)


def test_few_values_have_no_bound() -> None:
    found = quantile_of(np.arange(10.0), 0.95, 0.95)
    assert (found.high, found.n) == (None, 10)
    assert quantile_of(np.arange(10.0), 0.5, 0.95).low is not None


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
