import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, stats
from statsmodels.regression.linear_model import OLS
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.proportion import proportion_confint

from whetstone.errors import UserError
from whetstone.stats.paired import Flips, compare_paired, mean_interval, non_inferiority_p
from whetstone.stats.resample import FloatArray, IntArray

Arms = tuple[FloatArray, FloatArray, IntArray]


def arms_of(flips: Flips) -> Arms:
    counts = (flips.both_right, flips.fixed, flips.broken, flips.both_wrong)
    baseline, candidate = np.repeat([1.0, 0, 1, 0], counts), np.repeat([1.0, 1, 0, 0], counts)
    return baseline, candidate, np.arange(sum(counts))


def clustered_normal(seed: int, groups: int = 30, effect: float = 0.0) -> Arms:
    generator = np.random.default_rng(seed)
    numbers = np.repeat(np.arange(groups), generator.integers(1, 6, groups))
    baseline = generator.normal(size=len(numbers))
    shared = generator.normal(size=groups)[numbers]
    return baseline, baseline + effect + shared + generator.normal(size=len(numbers)), numbers


def null_binary(seed: int) -> Arms:
    generator = np.random.default_rng(seed)
    baseline, candidate = generator.integers(0, 2, (2, 40)).astype(float)
    return baseline, candidate, np.arange(40)


def null_continuous(seed: int) -> Arms:
    generator = np.random.default_rng(seed)
    return generator.normal(size=25), generator.normal(size=25), np.arange(25)


def null_clustered_binary(seed: int) -> Arms:
    generator = np.random.default_rng(seed)
    numbers = np.repeat(np.arange(30), 4)
    skill = generator.beta(1, 1, (2, 30))[:, numbers]
    baseline, candidate = (generator.random((2, 120)) < skill).astype(float)
    return baseline, candidate, numbers


def null_tied(seed: int) -> Arms:
    generator = np.random.default_rng(seed)
    baseline = generator.integers(0, 5, 60) / 4
    candidate = np.where(generator.random(60) < 0.5, baseline, generator.integers(0, 5, 60) / 4)
    return baseline, candidate, np.arange(60)


class TestComparePaired:
    def test_counts_and_means(self) -> None:
        compared = compare_paired([1, 1, 0, 0, 0], [1, 0, 1, 1, 0], "aabbc")
        assert compared.flips == Flips(both_right=1, fixed=2, broken=1, both_wrong=1)
        assert (compared.n, compared.groups) == (5, 3)
        assert (compared.baseline_mean, compared.candidate_mean) == (0.4, 0.6)
        assert compared.difference == pytest.approx(0.2)

    def test_published_table(self) -> None:
        # Cavo et al. (2012) in Fagerland, Lydersen and Laake, Statistical Analysis of Contingency Tables, chapter 8.
        compared = compare_paired(*arms_of(Flips(both_right=59, fixed=6, broken=16, both_wrong=80)))
        assert compared.difference == pytest.approx(-0.0621, abs=5e-5)
        assert compared.interval.low == pytest.approx(-0.1240, abs=5e-5)
        assert compared.interval.high == pytest.approx(-0.0054, abs=5e-5)
        assert compared.p_value == pytest.approx(0.052479, abs=5e-7)
        assert (compared.interval.method, compared.p_method) == ("Tango score over 161 examples", "exact McNemar")

    @pytest.mark.parametrize(("fixed", "broken"), [(0, 0), (1, 0), (3, 7), (12, 5), (9, 9)])
    def test_mcnemar_equals_statsmodels_and_the_binomial(self, fixed: int, broken: int) -> None:
        p_value = compare_paired(*arms_of(Flips(20, fixed, broken, 10))).p_value
        assert p_value == pytest.approx(mcnemar([[20, broken], [fixed, 10]], exact=True).pvalue)
        flipped = fixed + broken
        tail = sum(math.comb(flipped, count) for count in range(min(fixed, broken) + 1)) / 2**flipped
        assert p_value == pytest.approx(min(1.0, 2 * tail))

    def test_stored_pairs_equal_scipy(self) -> None:
        # Computed with scipy 1.17.1: permutation_test(permutation_type="samples") over all 1024 patterns of signs, and
        # bootstrap(method="BCa", paired=True) with a million resamples at the expanded level.
        baseline = [0.42, 0.55, 0.31, 0.78, 0.64, 0.20, 0.91, 0.47, 0.58, 0.36]
        candidate = [0.61, 0.54, 0.48, 0.85, 0.62, 0.44, 0.93, 0.71, 0.55, 0.52]
        compared = compare_paired(baseline, candidate, range(10), level=0.9, resamples=100_000)
        assert compared.p_value == pytest.approx(28 / 1024)
        assert compared.interval.method == "BCa bootstrap over 10 groups"
        assert (compared.interval.low, compared.interval.high) == pytest.approx((0.040, 0.166), abs=0.0021)

    def test_sign_flips_of_flips_are_mcnemar(self) -> None:
        baseline, candidate, groups = arms_of(Flips(5, 8, 2, 5))
        p_value = compare_paired(baseline, candidate, groups).p_value
        reference = stats.permutation_test(
            (candidate[candidate != baseline], baseline[candidate != baseline]),
            lambda after, before: np.mean(after - before),
            permutation_type="samples",
            alternative="two-sided",
        )
        # Cut into halves, no example is a flip of one any longer, and signs are flipped instead.
        halves = compare_paired(baseline / 2, candidate / 2, groups)
        assert halves.p_method == "exact sign flip over 10 differing groups"
        assert p_value == pytest.approx(reference.pvalue)
        assert p_value == pytest.approx(halves.p_value)

    @pytest.mark.parametrize(("fixed", "broken"), [(0, 0), (1, 0), (0, 4), (12, 5), (40, 0)])
    def test_score_interval_ends_where_the_score_test_rejects(self, fixed: int, broken: int) -> None:
        n = 40

        def statistic(difference: float) -> float:
            def negative_likelihood(broken_share: float) -> float:
                fixed_share = broken_share + difference
                shares = np.array([fixed_share, broken_share, 1 - fixed_share - broken_share])
                return -float(np.sum(np.array([fixed, broken, n - fixed - broken]) * np.log(shares + 1e-300)))

            lowest, highest = max(0.0, -difference), (1 - difference) / 2
            share = optimize.minimize_scalar(negative_likelihood, bounds=(lowest, highest)).x
            variance = n * (2 * share + difference - difference**2)
            return float((fixed - broken - n * difference) / math.sqrt(variance))

        interval = compare_paired(*arms_of(Flips(n - fixed - broken, fixed, broken, 0))).interval
        if interval.low > -1:
            assert statistic(interval.low) == pytest.approx(1.96, abs=0.01)
        if interval.high < 1:
            assert statistic(interval.high) == pytest.approx(-1.96, abs=0.01)
        assert (interval.high == 1) is (fixed == n)

    @pytest.mark.parametrize("value", [0.0, 1.0])
    def test_equal_arms_have_the_width_of_the_rule_of_three(self, value: float) -> None:
        scores = [value] * 100
        compared = compare_paired(scores, scores, range(100))
        assert compared.p_value == 1
        assert 3 / 100 < compared.interval.high < 4 / 100
        assert compared.interval.low == pytest.approx(-compared.interval.high)

    def test_equal_arms_in_groups_count_groups_and_scale_with_the_scores(self) -> None:
        scores, groups = np.tile([10.0, 50.0], 60), np.arange(120) // 4
        compared = compare_paired(scores, scores, groups)
        share = proportion_confint(0, 30, method="wilson")[1]
        assert compared.p_value == 1
        assert (compared.interval.low, compared.interval.high) == pytest.approx((-50 * share, 50 * share))
        assert compared.interval.method == "Wilson over 30 groups (all have the same mean)"

    def test_the_two_bounds_for_equal_arms_agree(self) -> None:
        ones, zeros = np.ones(50), np.zeros(50)
        single = compare_paired(zeros, ones, np.arange(50)).interval
        grouped = compare_paired(zeros.repeat(2), ones.repeat(2), np.arange(50).repeat(2)).interval
        assert (single.low, single.high) == pytest.approx((grouped.low, grouped.high), abs=1e-6)

    def test_same_seed_same_result(self) -> None:
        arms = clustered_normal(0)
        first = compare_paired(*arms, resamples=500, seed=1)
        assert compare_paired(*arms, resamples=500, seed=1) == first
        assert compare_paired(*arms, resamples=500, seed=2) != first

    @settings(max_examples=25, deadline=None)
    @given(seed=st.integers(0, 10_000), groups=st.integers(8, 60))
    def test_swapping_the_arms_negates(self, seed: int, groups: int) -> None:
        baseline, candidate, numbers = clustered_normal(seed, groups)
        forth = compare_paired(baseline, candidate, numbers, resamples=2000)
        back = compare_paired(candidate, baseline, numbers, resamples=2000)
        width = forth.interval.high - forth.interval.low
        assert back.difference == pytest.approx(-forth.difference)
        assert back.p_value == forth.p_value
        assert back.interval.low == pytest.approx(-forth.interval.high, abs=0.25 * width)
        assert back.interval.high == pytest.approx(-forth.interval.low, abs=0.25 * width)

    @settings(max_examples=25, deadline=None)
    @given(counts=st.lists(st.integers(0, 30), min_size=4, max_size=4).filter(lambda counts: sum(counts) > 1))
    def test_swapping_binary_arms_negates(self, counts: list[int]) -> None:
        both_right, fixed, broken, both_wrong = counts
        forth = compare_paired(*arms_of(Flips(both_right, fixed, broken, both_wrong)))
        back = compare_paired(*arms_of(Flips(both_right, broken, fixed, both_wrong)))
        assert back.p_value == pytest.approx(forth.p_value)
        assert back.interval.low == pytest.approx(-forth.interval.high, abs=1e-6)
        assert forth.interval.low <= forth.difference <= forth.interval.high
        assert -1 <= forth.interval.low < forth.interval.high <= 1

    @settings(max_examples=25, deadline=None)
    @given(seed=st.integers(0, 10_000), shift=st.floats(-5, 5))
    def test_shifting_both_arms_changes_nothing(self, seed: int, shift: float) -> None:
        baseline, candidate, numbers = clustered_normal(seed)
        before = compare_paired(baseline, candidate, numbers, resamples=200)
        after = compare_paired(baseline + shift, candidate + shift, numbers, resamples=200)
        assert after.p_value == before.p_value
        assert after.interval.low == pytest.approx(before.interval.low)
        assert after.interval.high == pytest.approx(before.interval.high)

    @settings(max_examples=25, deadline=None)
    @given(seed=st.integers(0, 10_000))
    def test_order_of_examples_and_names_of_groups_change_nothing(self, seed: int) -> None:
        baseline, candidate, numbers = clustered_normal(seed)
        order = np.random.default_rng(seed).permutation(len(numbers))
        names = [f"source {number}" for number in numbers[order]]
        before = compare_paired(baseline, candidate, numbers, resamples=200)
        after = compare_paired(baseline[order], candidate[order], names, resamples=200)
        assert after.p_value == before.p_value
        assert after.interval.low == pytest.approx(before.interval.low)
        assert after.interval.high == pytest.approx(before.interval.high)

    @settings(max_examples=100, deadline=None)
    @given(
        rows=st.lists(
            st.tuples(st.sampled_from([0.0, 0.5, 1.0]), st.floats(0, 1), st.integers(0, 9)),
            min_size=2,
            max_size=40,
        ).filter(lambda rows: len({row[2] for row in rows}) > 1)
    )
    def test_interval_contains_the_difference_and_p_is_a_probability(
        self, rows: list[tuple[float, float, int]]
    ) -> None:
        baseline, candidate, groups = zip(*rows, strict=True)
        compared = compare_paired(baseline, candidate, groups, resamples=500)
        assert compared.interval.low - 1e-9 <= compared.difference <= compared.interval.high + 1e-9
        assert compared.interval.low < compared.interval.high
        assert 0 < compared.p_value <= 1

    @pytest.mark.parametrize("level", [0.0, 0.3, 1.0, float("nan")])
    def test_level_is_checked(self, level: float) -> None:
        with pytest.raises(UserError, match="level is"):
            compare_paired([0, 1], [1, 1], "ab", level=level)

    def test_resamples_are_checked(self) -> None:
        with pytest.raises(UserError, match="resamples is 10"):
            compare_paired([0, 1], [1, 1], "ab", resamples=10)


@pytest.mark.parametrize(
    ("world", "lowest_rate"),
    [(null_binary, 0.0), (null_continuous, 0.017), (null_clustered_binary, 0.017), (null_tied, 0.017)],
)
def test_null_worlds_are_rejected_no_more_often_than_stated(world: Callable[[int], Arms], lowest_rate: float) -> None:
    # Exact McNemar is conservative by nature, so only its upper side is held.
    worlds = 400
    compared = [compare_paired(*world(seed), resamples=400, seed=seed) for seed in range(worlds)]
    rejected = np.mean([found.p_value <= 0.05 for found in compared])
    covered = np.mean([found.interval.low <= 0 <= found.interval.high for found in compared])
    highest = stats.binom.isf(1e-4, worlds, 0.05) / worlds
    assert lowest_rate <= rejected <= highest
    assert covered >= 0.90


class TestMeanInterval:
    def test_binary_examples_take_wilson(self) -> None:
        interval = mean_interval([1] * 8 + [0] * 2, range(10))
        assert (interval.low, interval.high) == pytest.approx(proportion_confint(8, 10, method="wilson"))
        assert interval.method == "Wilson over 10 examples"

    @pytest.mark.parametrize("value", [0, 1])
    def test_all_equal_in_groups_takes_wilson_over_groups(self, value: int) -> None:
        interval = mean_interval([value] * 80, np.arange(80) // 4)
        expected = proportion_confint(20 * value, 20, method="wilson")
        assert (interval.low, interval.high) == pytest.approx(expected, abs=1e-9)
        assert interval.method == "Wilson over 20 groups (all have the same mean)"

    def test_equal_scores_of_another_scale_do_not_get_a_width_of_zero(self) -> None:
        interval = mean_interval([100.0] * 30, range(30))
        low, _ = proportion_confint(30, 30, method="wilson")
        assert (interval.low, interval.high) == pytest.approx((100 * low, 100))

    def test_grouping_by_copies_does_not_add_evidence(self) -> None:
        scores = np.random.default_rng(0).normal(size=60)
        single = mean_interval(scores, np.arange(60), seed=1)
        copied = mean_interval(scores.repeat(5), np.arange(60).repeat(5), seed=1)
        assert (copied.low, copied.high) == pytest.approx((single.low, single.high))
        assert copied.method == "BCa bootstrap over 60 groups"

    def test_binary_groups_are_wider_than_wilson(self) -> None:
        scores = np.repeat([1, 0], [30, 20]).repeat(4)
        clustered = mean_interval(scores, np.arange(50).repeat(4))
        low, high = proportion_confint(120, 200, method="wilson")
        assert clustered.high - clustered.low > 1.7 * (high - low)


class TestNonInferiority:
    def test_single_examples_equal_the_t_test(self) -> None:
        baseline, candidate, numbers = null_continuous(1)
        expected = stats.ttest_1samp(candidate - baseline, -0.3, alternative="greater").pvalue
        assert non_inferiority_p(baseline, candidate, numbers, margin=0.3) == pytest.approx(expected)

    def test_groups_equal_statsmodels(self) -> None:
        baseline, candidate, numbers = clustered_normal(2)
        fit = OLS(candidate - baseline, np.ones(len(numbers))).fit(
            cov_type="cluster", cov_kwds={"groups": numbers}, use_t=True
        )
        two_sided = fit.t_test("const = -0.4")
        expected = two_sided.pvalue.item() / 2 if two_sided.tvalue.item() > 0 else 1 - two_sided.pvalue.item() / 2
        assert non_inferiority_p(baseline, candidate, numbers, margin=0.4) == pytest.approx(expected)

    @pytest.mark.parametrize(("fixed_share", "margin"), [(0.0, 0.06), (0.02, 0.06), (0.05, 0.1)])
    def test_harm_at_the_margin_passes_no_more_often_than_stated(self, fixed_share: float, margin: float) -> None:
        n, shares = 50, (fixed_share, fixed_share + margin)
        passed = 0.0
        for fixed in range(9):
            for broken in range(18):
                outcome = [fixed, broken, n - fixed - broken]
                chance = stats.multinomial.pmf(outcome, n, [*shares, 1 - sum(shares)])
                if chance > 1e-5:
                    arms = arms_of(Flips(n - fixed - broken, fixed, broken, 0))
                    passed += chance * (non_inferiority_p(*arms, margin=margin) <= 0.05)
        assert passed <= 0.06

    @pytest.mark.parametrize(("fixed_share", "broken_share"), [(0.0, 0.03), (0.01, 0.05)])
    def test_rare_harm_in_groups_passes_about_as_often_as_stated(self, fixed_share: float, broken_share: float) -> None:
        generator, groups = np.random.default_rng(0), np.repeat(np.arange(100), 4)
        baseline = np.tile([0.0, 1.0, 0.0, 1.0], 100)  # a changed group loses or gains half of its examples
        passed, worlds = 0, 300
        for _ in range(worlds):
            kind = generator.choice([1, -1, 0], 100, p=[fixed_share, broken_share, 1 - fixed_share - broken_share])
            candidate = np.where(kind[groups] == 1, 1.0, np.where(kind[groups] == -1, 0.0, baseline))
            margin = (broken_share - fixed_share) / 2
            passed += non_inferiority_p(baseline, candidate, groups, margin=margin) <= 0.05
        assert passed <= stats.binom.isf(1e-4, worlds, 0.06)

    def test_nothing_changed_is_the_chance_of_missing_the_harm(self) -> None:
        scores = np.tile([0.0, 1.0], 100)
        assert non_inferiority_p(scores, scores, range(200), margin=0.02) == pytest.approx(0.98**200)
        assert non_inferiority_p(scores, scores, np.arange(200) // 2, margin=0.02) == pytest.approx(0.98**100)
        assert non_inferiority_p(50 * scores, 50 * scores, range(200), margin=1) == pytest.approx(0.98**200)

    def test_the_same_loss_everywhere(self) -> None:
        scores = np.linspace(0, 1, 30)
        assert non_inferiority_p(scores, scores - 0.1, range(30), margin=0.05) == 1
        assert non_inferiority_p(scores, scores - 0.1, range(30), margin=0.1) == 1
        assert 0 < non_inferiority_p(scores, scores - 0.1, range(30), margin=0.3) < 0.01
        assert non_inferiority_p(scores, scores, range(30), margin=2) == 0

    def test_a_metric_turned_round_is_judged_alike(self) -> None:
        baseline, candidate, groups = arms_of(Flips(40, 2, 5, 30))
        plain = non_inferiority_p(baseline, candidate, groups, margin=0.1)
        assert non_inferiority_p(-(1 - baseline), -(1 - candidate), groups, margin=0.1) == pytest.approx(plain)

    @settings(max_examples=25, deadline=None)
    @given(seed=st.integers(0, 10_000), margin=st.floats(0.01, 1))
    def test_a_wider_margin_is_easier(self, seed: int, margin: float) -> None:
        for world in (clustered_normal, null_binary, null_tied):
            arms = world(seed)
            wide, narrow = (non_inferiority_p(*arms, margin=size) for size in (1.2 * margin, margin))
            assert 0 <= wide <= narrow <= 1

    @pytest.mark.parametrize("margin", [0.0, -0.1, float("nan"), float("inf")])
    def test_margin_is_checked(self, margin: float) -> None:
        with pytest.raises(UserError, match="margin is"):
            non_inferiority_p([0, 1], [1, 1], "ab", margin=margin)
