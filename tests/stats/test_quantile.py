"""Quantiles with intervals against definitions that are counted out, and against coverage in made-up worlds."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from whetstone.errors import UserError
from whetstone.stats.quantile import grouped_quantile, quantile, values_needed


@pytest.mark.parametrize(("share", "needed"), [(0.5, 6), (0.9, 36), (0.95, 72), (0.99, 368), (0.1, 36)])
def test_the_rule_is_the_least_n_whose_extremes_enclose_the_quantile(share: float, needed: int) -> None:
    assert values_needed(share) == needed
    assert max(share, 1 - share) ** needed <= 0.025 < max(share, 1 - share) ** (needed - 1)
    assert quantile(range(needed - 1), share).estimate is None
    assert quantile(range(needed - 1), share).interval is None
    assert quantile(range(needed), share).interval is not None


def coverage(n: int, share: float, low: int, high: int) -> float:
    """Probability that the quantile lies between two order statistics, counted out from the binomial."""
    return sum(math.comb(n, k) * share**k * (1 - share) ** (n - k) for k in range(low, high))


@given(st.sampled_from([0.5, 0.9, 0.99, 0.1]), st.integers(0, 400))
def test_the_ranks_are_the_narrowest_equal_tails(share: float, more: int) -> None:
    n = values_needed(share) + more
    interval = quantile(range(1, n + 1), share).interval
    assert interval is not None
    low, high = round(interval.low), round(interval.high)
    assert coverage(n, share, 0, low) <= 0.025 + 1e-12 < coverage(n, share, 0, low + 1) + 2e-12
    assert coverage(n, share, high, n + 1) <= 0.025 + 1e-12
    assert high == low + 1 or coverage(n, share, high - 1, n + 1) > 0.025 - 1e-12


def test_the_estimate_is_that_of_numpy_and_lies_inside() -> None:
    values = np.random.default_rng(0).lognormal(size=500)
    for share in (0.5, 0.9, 0.99):
        found = quantile(values, share)
        assert found.interval is not None
        assert found.estimate is not None
        assert found.estimate == pytest.approx(np.quantile(values, share))
        assert found.interval.low <= found.estimate <= found.interval.high


def test_the_interval_covers_as_often_as_it_says() -> None:
    draws = np.random.default_rng(1)
    hits = 0
    for _ in range(400):
        interval = quantile(draws.exponential(size=60), 0.9).interval
        assert interval is not None
        hits += interval.low <= -math.log(0.1) <= interval.high
    assert hits / 400 >= 0.93


def test_groups_widen_the_interval_and_it_still_covers() -> None:
    """All values of a group are nearly alike, so that 60 groups of 20 are worth about 60 values."""
    draws = np.random.default_rng(2)
    hits, wider = 0, 0
    for _ in range(200):
        groups = [center + draws.normal(0, 0.01, size=20) for center in draws.normal(size=60)]
        found, naive = grouped_quantile(groups, 0.5).interval, quantile(np.concatenate(groups), 0.5).interval
        assert found is not None
        assert naive is not None
        hits += found.low <= 0 <= found.high
        wider += found.high - found.low > naive.high - naive.low
    assert hits / 200 >= 0.9
    assert wider >= 198


def test_groups_count_and_not_their_values() -> None:
    assert grouped_quantile([[1.0] * 100] * 5, 0.5).estimate is None
    assert grouped_quantile([[1.0, 2.0]] * 5 + [[]] * 5, 0.5).needed == 6
    found = grouped_quantile([[float(i + j) for j in range(10)] for i in range(8)], 0.5)
    assert (found.n, found.estimate) == (80, 8.0)


def test_an_interval_that_would_leave_the_sample_is_refused_with_the_n_it_needs() -> None:
    groups = [[1000.0 * i + j for j in range(50 if i < 34 else 95)] for i in range(36)]
    found = grouped_quantile(groups, 0.9)
    assert found.estimate is None
    assert found.interval is None
    assert found.needed > 36


@pytest.mark.parametrize(("share", "level"), [(0.0, 0.95), (1.0, 0.95), (0.5, 1.0)])
def test_shares_and_levels_lie_between_zero_and_one(share: float, level: float) -> None:
    with pytest.raises(UserError, match="give one between 0 and 1"):
        values_needed(share, level)
