import math

import numpy as np
import pytest
from scipy import stats
from statsmodels.regression.linear_model import OLS

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


def flips_in_groups(groups: int, seed: int) -> GroupSums:
    random = np.random.default_rng(seed)
    sizes = random.integers(1, 4, groups)
    sums = random.binomial(sizes, 0.2) - random.binomial(sizes, 0.1)
    return GroupSums.of(np.repeat(sums / sizes, sizes), np.repeat(np.arange(groups), sizes))


def test_distinct_pairs_count_all_groups() -> None:
    thirds = np.array([1.0, 0.1 + 0.2, 0.3, 1.0, 1.0])
    pairs, counts = GroupSums.of(np.repeat(thirds, 1), np.arange(5)).pairs
    assert pairs.sums == pytest.approx([0.3, 1.0])  # 0.1 + 0.2 is not 0.3 in the last bit, and still is one value
    assert counts.tolist() == [2, 3]
    grouped = flips_in_groups(3000, 0)
    pairs, counts = grouped.pairs
    assert counts.sum() == 3000
    assert (counts @ pairs.sums) / (counts @ pairs.sizes) == pytest.approx(grouped.mean)
    assert pairs.count == len(set(zip(np.round(grouped.sums, 6), grouped.sizes, strict=True)))


def test_counts_of_pairs_are_distributed_as_groups_drawn_one_by_one() -> None:
    grouped = flips_in_groups(1500, 1)
    counted = resample._counted_means(*grouped.pairs, 4000, 0)
    drawn = resample._drawn_means(grouped, 4000, 1)
    # Means of a lattice are compared by quantiles and by moments: a Kolmogorov-Smirnov test wants no ties.
    assert stats.ks_2samp(counted, drawn).pvalue > 1e-4
    assert stats.ttest_ind(counted, drawn).pvalue > 1e-4
    assert np.std(counted) == pytest.approx(np.std(drawn), rel=0.05)


def test_bounds_from_counts_equal_those_of_groups_drawn_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    grouped = flips_in_groups(2000, 2)
    low, high, method = bootstrap_bounds(grouped, level=0.95, resamples=10_000, seed=0)
    monkeypatch.setattr(resample, "SLOW_GROUPS", 10_000)
    plain_low, plain_high, plain_method = bootstrap_bounds(grouped, level=0.95, resamples=10_000, seed=0)
    assert (low, high) != (plain_low, plain_high)
    assert method == plain_method == "BCa bootstrap over 2000 groups"
    assert (low, high) == pytest.approx((plain_low, plain_high), abs=0.03 * (plain_high - plain_low))


def test_counts_do_not_see_the_order_of_examples() -> None:
    random = np.random.default_rng(3)
    values, numbers = random.integers(0, 4, 6000) / 3, np.arange(6000) // 4
    order = random.permutation(6000)
    first, second = GroupSums.of(values, numbers), GroupSums.of(values[order], numbers[order])
    bounds = [bootstrap_bounds(grouped, level=0.95, resamples=300, seed=0) for grouped in (first, second)]
    assert bounds[0][:2] == pytest.approx(bounds[1][:2], rel=1e-12)


def test_very_many_groups_take_student_beside_the_bca(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(4)
    sizes = random.integers(1, 6, 3000).astype(float)
    grouped = GroupSums(sizes * random.lognormal(size=3000), sizes)
    low, high, method = bootstrap_bounds(grouped, level=0.95, resamples=4000, seed=0)
    assert method == "BCa bootstrap over 3000 groups"
    monkeypatch.setattr(resample, "MANY_GROUPS", 2999)
    student_low, student_high, method = bootstrap_bounds(grouped, level=0.95, resamples=4000, seed=0)
    assert method == "Student's t, cluster-robust and corrected for skewness, over 3000 groups"
    assert (student_low, student_high) == pytest.approx((low, high), abs=0.04 * (high - low))
    assert grouped.mean - student_low < student_high - grouped.mean


def test_error_of_the_mean_equals_statsmodels() -> None:
    random = np.random.default_rng(5)
    values, numbers = random.normal(size=200), random.integers(0, 30, 200)
    fit = OLS(values, np.ones(200)).fit(cov_type="cluster", cov_kwds={"groups": numbers})
    assert GroupSums.of(values, numbers).mean_error == pytest.approx(fit.bse[0])
    assert GroupSums.of(1e-300 * values, numbers).mean_error == pytest.approx(1e-300 * fit.bse[0])


def test_very_many_signs_are_drawn_beside_a_normal_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(6)
    sums = random.standard_t(3, size=400) + 0.25
    plain, method = sign_flip_p(sums, resamples=20_000, seed=0)
    assert method == "sign flip over 400 differing groups, 20000 draws"
    monkeypatch.setattr(resample, "MANY_GROUPS", 50)
    mixed, method = sign_flip_p(sums, resamples=20_000, seed=1)
    assert method.endswith("draws, the 350 of the smallest sums in the normal limit")
    assert 0.001 < plain < 0.5
    assert mixed == pytest.approx(plain, abs=5 * math.sqrt(2 * plain * (1 - plain) / 20_000))
    shuffled, _ = sign_flip_p(random.permutation(sums), resamples=20_000, seed=1)
    assert shuffled == mixed
