import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from whetstone.errors import UserError
from whetstone.stats.resample import FloatArray
from whetstone.stats.seeds import compare_seeds


def table(seed: int, seeds: int, groups: int, spread: tuple[float, float, float], effect: float = 0.0) -> FloatArray:
    """Differences with the given standard deviations of seeds, groups and what neither explains."""
    random = np.random.default_rng(seed)
    of_seeds, of_groups, rest = spread
    return np.asarray(
        effect
        + of_seeds * random.normal(size=(seeds, 1))
        + of_groups * random.normal(size=(1, groups))
        + rest * random.normal(size=(seeds, groups))
    )


def test_equal_groups_equal_the_analysis_of_variance() -> None:
    values = table(0, 4, 15, (1.0, 0.5, 2.0), effect=1.0)
    mean, by_seed, by_group = values.mean(), values.mean(axis=1), values.mean(axis=0)
    of_seeds = 15 * np.sum((by_seed - mean) ** 2) / 3
    of_groups = 4 * np.sum((by_group - mean) ** 2) / 14
    rest = np.sum((values - by_seed[:, None] - by_group + mean) ** 2) / (3 * 14)
    seeds_part, groups_part = of_seeds / 60, max(0.0, of_groups - rest) / 60
    variance = seeds_part + groups_part
    quantile = (seeds_part * stats.t.isf(0.05, 3) + groups_part * stats.t.isf(0.05, 14)) / variance
    compared = compare_seeds(values.tolist(), range(15), level=0.9)
    assert compared.interval is not None
    assert compared.difference == pytest.approx(mean)
    assert compared.interval.high - mean == pytest.approx(quantile * math.sqrt(variance))
    assert compared.seed_share == pytest.approx(max(0.0, of_seeds - rest) / 60 / variance)
    assert compared.seed_differences == pytest.approx(by_seed)
    assert (compared.seeds, compared.n, compared.groups) == (4, 15, 15)


def test_seeds_alone_are_the_t_test_of_their_means() -> None:
    by_seed = [0.1, 0.3, 0.4, -0.1, 0.2]
    compared = compare_seeds([[value] * 20 for value in by_seed], np.arange(20))
    assert compared.p_value == pytest.approx(stats.ttest_1samp(by_seed, 0).pvalue)
    assert compared.seed_share == pytest.approx(1)


def test_groups_alone_are_the_t_test_of_their_means() -> None:
    values = np.random.default_rng(1).normal(0.2, 1, 30)
    compared = compare_seeds([values] * 3, range(30))
    assert compared.p_value == pytest.approx(stats.ttest_1samp(values, 0).pvalue)
    assert compared.seed_share == pytest.approx(0, abs=1e-12)


@settings(max_examples=25)
@given(seed=st.integers(0, 10_000), copies=st.integers(1, 4))
def test_copies_in_a_group_and_the_order_of_all_change_nothing(seed: int, copies: int) -> None:
    values = table(seed, 3, 12, (0.5, 1.0, 1.0))
    plain = compare_seeds(values.tolist(), range(12))
    order, seeds = np.random.default_rng(seed).permutation(12 * copies), np.random.default_rng(seed).permutation(3)
    shuffled = values.repeat(copies, axis=1)[seeds][:, order]
    again = compare_seeds(list(shuffled), [f"source {number}" for number in np.arange(12).repeat(copies)[order]])
    assert plain.interval is not None and again.interval is not None
    assert (again.interval.low, again.interval.high) == pytest.approx((plain.interval.low, plain.interval.high))
    assert again.p_value == pytest.approx(plain.p_value)


@settings(max_examples=25)
@given(seed=st.integers(0, 10_000), level=st.floats(0.6, 0.99))
def test_p_is_below_a_level_exactly_where_its_interval_excludes_zero(seed: int, level: float) -> None:
    compared = compare_seeds(table(seed, 3, 20, (0.2, 1.0, 1.0), effect=0.5).tolist(), range(20), level=level)
    assert compared.interval is not None and compared.p_value is not None
    assert (compared.p_value < 1 - level) is not (compared.interval.low <= 0 <= compared.interval.high)


@pytest.mark.parametrize(
    ("seeds", "spread"), [(3, (0.0, 1.0, 1.0)), (3, (0.2, 1.0, 1.0)), (5, (1.0, 0.1, 1.0)), (10, (0.2, 1.0, 1.0))]
)
def test_intervals_cover_what_another_seed_would_show(seeds: int, spread: tuple[float, float, float]) -> None:
    worlds, missed = 300, 0
    for seed in range(worlds):
        interval = compare_seeds(list(table(seed, seeds, 40, spread)), np.arange(40)).interval
        missed += interval is None or not interval.low <= 0 <= interval.high
    assert stats.binom.ppf(1e-4, worlds, 0.025) <= missed <= stats.binom.isf(1e-4, worlds, 0.06)


def test_where_nothing_varies_nothing_was_measured() -> None:
    compared = compare_seeds([[0.1, 0.1, 0.1]] * 3, "aab")
    assert compared.difference == pytest.approx(0.1)
    assert (compared.interval, compared.p_value, compared.seed_share) == (None, None, None)
    assert compare_seeds([[0.0, 0.0]] * 2, "ab").interval is None


def test_a_tiny_p_is_found_and_never_zero() -> None:
    values = table(0, 10, 50, (1e-6, 1e-6, 1e-6), effect=1.0)
    p_value = compare_seeds(list(values), range(50)).p_value
    assert p_value is not None
    assert 0 < p_value < 1e-30


def test_input_is_checked() -> None:
    with pytest.raises(UserError, match="1 seed given"):
        compare_seeds([[0.0, 1.0]], "ab")
    with pytest.raises(UserError, match="seed 2 has 1 scores for 2 groups"):
        compare_seeds([[0.0, 1.0], [1.0]], "ab")
    with pytest.raises(UserError, match="level is"):
        compare_seeds([[0.0, 1.0], [1.0, 1.0]], "ab", level=1.0)
