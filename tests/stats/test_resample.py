import math

import numpy as np
import pytest
from scipy import stats

from whetstone.stats import resample
from whetstone.stats.resample import FloatArray, GroupSums, bootstrap_bounds, sign_flip_p


def expanded_level(level: float, groups: int) -> float:
    quantile = math.sqrt(groups / (groups - 1)) * stats.t.isf((1 - level) / 2, groups - 1)
    return float(1 - 2 * stats.norm.sf(quantile))


def ratio(sums: FloatArray, sizes: FloatArray, axis: int = -1) -> FloatArray:
    return np.asarray(sums.sum(axis=axis) / sizes.sum(axis=axis))


@pytest.mark.parametrize("groups", [9, 40])
@pytest.mark.parametrize("largest_group", [1, 6])
def test_bca_equals_scipy_at_the_expanded_level(groups: int, largest_group: int) -> None:
    generator = np.random.default_rng(groups + largest_group)
    sizes = generator.integers(1, largest_group + 1, groups).astype(float)
    sums = sizes * generator.lognormal(size=groups)
    reference = stats.bootstrap(
        (sums, sizes),
        ratio,
        paired=True,
        vectorized=True,
        n_resamples=200_000,
        confidence_level=expanded_level(0.9, groups),
        method="BCa",
        rng=np.random.default_rng(1),
    ).confidence_interval
    low, high, method = bootstrap_bounds(GroupSums(sums, sizes), level=0.9, resamples=200_000, seed=2)
    assert method == f"BCa bootstrap over {groups} groups"
    width = reference.high - reference.low
    assert low == pytest.approx(reference.low, abs=0.01 * width)
    assert high == pytest.approx(reference.high, abs=0.01 * width)


def test_expansion_fades_with_the_number_of_groups() -> None:
    assert expanded_level(0.95, 5) > 0.99
    assert expanded_level(0.95, 1000) == pytest.approx(0.95, abs=1e-3)


def test_few_changed_groups_take_the_percentile() -> None:
    sums = np.array([1.0] * 5 + [-1.0] * 4 + [0.0] * 91)
    grouped = GroupSums(sums, np.ones(100))
    assert (grouped.outlying, grouped.is_sparse) == (9, True)
    low, high, method = bootstrap_bounds(grouped, level=0.95, resamples=5000, seed=0)
    assert method == "percentile bootstrap over 100 groups"
    # The bootstrap mean is (X - Y) / 100 with X, Y multinomial: near-normal with this spread.
    spread = math.sqrt(9 / 100 - 0.01**2) / 10
    assert low == pytest.approx(0.01 - 1.98 * spread, abs=0.011)
    assert high == pytest.approx(0.01 + 1.98 * spread, abs=0.011)


def test_sparse_is_relative_to_the_most_common_mean() -> None:
    shifted = GroupSums(np.array([1.3] * 2 + [0.3] * 30), np.ones(32))
    assert (shifted.outlying, shifted.is_sparse) == (2, True)
    few = GroupSums(np.arange(10.0), np.ones(10))
    assert (few.outlying, few.is_sparse) == (9, False)


def test_rounding_does_not_make_equal_means_differ() -> None:
    sizes = np.array([3.0, 7.0, 9.0])
    assert GroupSums(sizes * 0.1, sizes).outlying == 0


def test_chunks_do_not_change_the_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    grouped = GroupSums(np.random.default_rng(0).normal(size=50), np.ones(50))
    whole = bootstrap_bounds(grouped, level=0.95, resamples=501, seed=3)
    monkeypatch.setattr(resample, "CHUNK_CELLS", 700)
    assert bootstrap_bounds(grouped, level=0.95, resamples=501, seed=3) == whole
    assert bootstrap_bounds(grouped, level=0.95, resamples=501, seed=4) != whole


def test_order_and_names_of_groups_do_not_matter() -> None:
    generator = np.random.default_rng(0)
    values, numbers = generator.integers(-5, 6, 40).astype(float), generator.permutation(np.arange(40) % 13)
    order, names = generator.permutation(40), generator.permutation(13)
    first, second = GroupSums.of(values, numbers), GroupSums.of(values[order], names[numbers[order]])
    assert np.array_equal(first.sums, second.sums)
    assert np.array_equal(first.sizes, second.sizes)
    assert first.mean == pytest.approx(values.mean())


@pytest.mark.parametrize("count", [5, 9])
def test_exact_sign_flip_equals_scipy(count: int) -> None:
    sums = np.random.default_rng(count).normal(0.5, 1, count)
    reference = stats.permutation_test((sums,), np.sum, permutation_type="samples", alternative="two-sided")
    p_value, method = sign_flip_p(sums, resamples=100, seed=0)
    assert p_value == pytest.approx(reference.pvalue)
    assert method == f"exact sign flip over {count} differing groups"


def test_drawn_sign_flip_approaches_scipy() -> None:
    sums = np.random.default_rng(5).normal(0.3, 1, 30)
    reference = stats.permutation_test(
        (sums,),
        np.sum,
        permutation_type="samples",
        alternative="two-sided",
        n_resamples=20_000,
        rng=np.random.default_rng(1),
    ).pvalue
    p_value, method = sign_flip_p(sums, resamples=20_000, seed=0)
    assert p_value == pytest.approx(reference, abs=5 * math.sqrt(2 * reference * (1 - reference) / 20_000))
    assert method == "sign flip over 30 differing groups, 20000 draws"


def test_drawn_sign_flip_of_ties_approaches_the_binomial() -> None:
    sums = np.array([0.1] * 14 + [-0.1] * 6 + [0.0] * 50)
    expected = stats.binomtest(14, 20).pvalue
    p_value, _ = sign_flip_p(sums, resamples=20_000, seed=0)
    assert p_value == pytest.approx(expected, abs=5 * math.sqrt(expected * (1 - expected) / 20_000))


def test_sign_flip_by_hand() -> None:
    ones = np.ones(3)
    assert sign_flip_p(ones, resamples=100, seed=0)[0] == 2 / 8
    assert sign_flip_p(np.zeros(4), resamples=100, seed=0)[0] == 1


def test_drawn_sign_flip_is_never_zero() -> None:
    assert sign_flip_p(np.ones(60), resamples=999, seed=0)[0] == 1 / 1000


@pytest.mark.parametrize("scale", [1e-310, 1e-151, 1e150, 1e300])
def test_bounds_move_with_the_scale_of_the_values_however_small_or_large(scale: float) -> None:
    grouped = GroupSums(np.array([0.0, 1.0, 3.0, 8.0]), np.ones(4))
    plain = bootstrap_bounds(grouped, level=0.95, resamples=2_000, seed=0)
    scaled = bootstrap_bounds(GroupSums(scale * grouped.sums, grouped.sizes), level=0.95, resamples=2_000, seed=0)
    assert np.array(scaled[:2]) / scale == pytest.approx(np.array(plain[:2]), rel=1e-9)
    assert scaled[2] == plain[2]
