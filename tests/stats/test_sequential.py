import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special, stats

from whetstone.errors import UserError
from whetstone.stats import sequential
from whetstone.stats.resample import FloatArray, IntArray
from whetstone.stats.sequential import SequentialDecision, sequential_decision

Arms = tuple[FloatArray, FloatArray, IntArray]


def flips(seed: int, n: int, fixed: float, broken: float, group_size: int = 1) -> Arms:
    random = np.random.default_rng(seed)
    outcome = random.choice([1.0, -1.0, 0.0], n, p=[fixed, broken, 1 - fixed - broken])
    baseline = np.where(outcome < 0, 1.0, np.where(outcome > 0, 0.0, random.integers(0, 2, n)))
    return baseline, baseline + outcome, np.arange(n) // group_size


def money(differences: list[list[float]], planned_sizes: list[int], null: float, alpha: float) -> list[float]:
    """Money after each group of him who bets on gains, one group after the other, as the paper has it."""
    largest, stakes, purses, course = max(planned_sizes), (1.0, 2.0), [0.5, 0.5], []
    seen: list[tuple[float, float]] = []
    for group in differences:
        mean = sum(gain for gain, _ in seen) / max(sum(weight for _, weight in seen), 1e-12)
        variance = (0.25 + sum((gain - mean * weight) ** 2 for gain, weight in seen)) / (len(seen) + 1)
        gain, weight = sum(group) / largest, len(group) / largest
        for index, multiple in enumerate(stakes):
            stake = multiple * math.sqrt(2 * math.log(2 / alpha) / (len(planned_sizes) * variance))
            purses[index] *= 1 + min(stake, 0.95 / (1 + null)) * (gain - null * weight)
        seen.append((gain, weight))
        course.append(sum(purses))
    return course


@pytest.mark.parametrize("margin", [None, 0.1])
def test_money_equals_betting_group_by_group(margin: float | None) -> None:
    random = np.random.default_rng(0)
    sizes = random.integers(1, 4, 80).tolist()
    groups = np.repeat(np.arange(80), sizes)
    baseline, candidate = random.random((2, len(groups)))
    differences = [(candidate - baseline)[groups == group].tolist() for group in range(80)]
    decision = sequential_decision(baseline, candidate, groups, alpha=0.1, margin=margin)
    course = money(differences, sizes, -(margin or 0.0), 0.1)
    assert decision.e_better == pytest.approx(max(1.0, *course))
    opposite = [[-value for value in group] for group in differences]
    assert decision.e_worse == pytest.approx(max(1.0, *money(opposite, sizes, margin or 0.0, 0.1)))
    # The ends of the interval are the means at which the money just reaches what rules them out.
    if decision.low > -1:
        assert max(money(differences, sizes, decision.low, 0.1)) == pytest.approx(2 / 0.1, rel=1e-4)
    if decision.high < 1:
        assert max(money(opposite, sizes, -decision.high, 0.1)) == pytest.approx(2 / 0.1, rel=1e-4)


def test_bets_on_flips_are_the_beta_binomial_test_of_mcnemar(monkeypatch: pytest.MonkeyPatch) -> None:
    # Stakes spread evenly from 0 to 1 are a uniform prior on the share fixed of those that flip, from one half to one.
    fixed, broken, steps = 14, 3, 2000
    gains = np.random.default_rng(0).permutation(np.repeat([1.0, -1.0, 0.0], [fixed, broken, 40]))
    monkeypatch.setattr(sequential, "LARGEST_STAKE", 1.0)
    stakes = np.tile((np.arange(steps) + 0.5) / steps, (len(gains), 1))
    wealth = sequential._log_wealth(gains, np.ones(len(gains)), stakes, 0.0)[-1]
    share = special.betainc(fixed + 1, broken + 1, 1.0) - special.betainc(fixed + 1, broken + 1, 0.5)
    mixture = 2 * special.beta(fixed + 1, broken + 1) * share / 0.5 ** (fixed + broken)
    assert wealth == pytest.approx(math.log(mixture), abs=1e-4)


@pytest.mark.parametrize(
    ("arms", "margin"),
    [((0.10, 0.10, 1), None), ((0.3, 0.3, 1), None), ((0.15, 0.15, 4), None), ((0.05, 0.15, 1), 0.1)],
)
def test_no_difference_is_called_no_more_often_than_stated_at_whatever_row(
    arms: tuple[float, float, int], margin: float | None
) -> None:
    fixed, broken, size = arms
    worlds = 400
    decisions = [sequential_decision(*flips(seed, 200, fixed, broken, size), margin=margin) for seed in range(worlds)]
    highest = stats.binom.isf(1e-4, worlds, 0.025)
    for state in ("better", "worse"):
        assert sum(decision.state == state for decision in decisions) <= highest
    truth = fixed - broken
    covered = sum(decision.low <= truth <= decision.high for decision in decisions)
    assert covered >= worlds - stats.binom.isf(1e-4, worlds, 0.05)


def test_a_large_effect_is_found_with_less_than_half_of_the_rows() -> None:
    # 300 examples of which 20% flip detect 0.0725 four times in five; this is twice that.
    decisions = [sequential_decision(*flips(seed, 300, 0.1725, 0.0275)) for seed in range(100)]
    assert np.mean([decision.rows for decision in decisions]) <= 0.5 * 300
    assert sum(decision.state == "better" for decision in decisions) >= 97


@settings(max_examples=20)
@given(seed=st.integers(0, 10_000), read=st.integers(1, 120), size=st.sampled_from([1, 3]))
def test_later_rows_never_take_back_a_decision(seed: int, read: int, size: int) -> None:
    baseline, candidate, groups = flips(seed, 120, 0.3, 0.1, size)
    early = sequential_decision(baseline[:read], candidate[:read], groups)
    late = sequential_decision(baseline, candidate, groups)
    assert early.groups == read // size
    if early.state != "open":
        assert (late.state, late.rows) == (early.state, early.rows)
    assert late.e_better >= early.e_better * (1 - 1e-9)
    assert early.low - 1e-6 <= late.low
    assert late.high <= early.high + 1e-6


def test_the_row_of_the_decision_is_the_first_that_decides() -> None:
    baseline, candidate, groups = flips(3, 200, 0.3, 0.02, 2)
    decided = sequential_decision(baseline, candidate, groups)
    assert decided.state == "better"
    assert 0 < decided.rows < 200
    at, before = (
        sequential_decision(baseline[:rows], candidate[:rows], groups) for rows in (decided.rows, decided.rows - 1)
    )
    assert (at.state, before.state) == ("better", "open")


@settings(max_examples=20)
@given(seed=st.integers(0, 10_000))
def test_swapping_the_arms_mirrors(seed: int) -> None:
    baseline, candidate, groups = flips(seed, 80, 0.4, 0.1, 2)
    forth, back = sequential_decision(baseline, candidate, groups), sequential_decision(candidate, baseline, groups)
    assert {forth.state, back.state} in ({"better", "worse"}, {"open"})
    assert (back.low, back.high) == pytest.approx((-forth.high, -forth.low), abs=1e-6)
    assert (back.e_better, back.e_worse) == pytest.approx((forth.e_worse, forth.e_better))


def test_a_group_counts_when_its_last_row_is_there() -> None:
    groups = np.array([0, 1, 0, 1, 2, 2])
    counts = [sequential_decision([0.0] * rows, [1.0] * rows, groups).groups for rows in range(7)]
    assert counts == [0, 0, 0, 1, 2, 2, 3]


def test_rows_without_a_score_say_nothing() -> None:
    baseline, candidate, groups = flips(1, 60, 0.4, 0.1, 2)
    some = np.random.default_rng(0).random(60) < 0.3
    missing = sequential_decision(np.where(some, np.nan, baseline), candidate, groups)
    equal = sequential_decision(np.where(some, candidate, baseline), candidate, groups)
    assert missing.e_better == pytest.approx(equal.e_better, rel=0.2)
    assert missing.e_better != 1
    silent = sequential_decision([math.nan] * 60, candidate, groups)
    assert (silent.state, silent.e_better, silent.groups) == ("open", 1, 30)


def test_unit_of_the_scores_does_not_matter() -> None:
    baseline, candidate, groups = flips(2, 80, 0.4, 0.1)
    plain = sequential_decision(baseline, candidate, groups, margin=0.05)
    scaled = sequential_decision(50 * baseline, 50 * candidate, groups, margin=2.5, span=50)
    assert scaled.e_better == pytest.approx(plain.e_better)
    assert scaled.state == plain.state
    assert (scaled.low, scaled.high) == pytest.approx((50 * plain.low, 50 * plain.high))


def test_nothing_read_says_nothing() -> None:
    assert sequential_decision([], [], range(5)) == SequentialDecision("open", 1.0, 1.0, -1.0, 1.0, 0, 0)


def test_equal_arms_are_shown_not_to_be_worse_by_the_margin() -> None:
    scores = np.tile([0.0, 1.0], 200)
    assert sequential_decision(scores, scores, np.arange(400)).state == "open"
    decided = sequential_decision(scores, scores, np.arange(400), margin=0.05)
    # So many rows without a loss would be seen by luck once in forty where one in twenty is a loss: 0.95^n = 1 / 40.
    assert decided.state == "better"
    assert math.log(1 / 40) / math.log(0.95) <= decided.rows < 100


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"alpha": 0.0}, "alpha is"),
        ({"span": 0.0}, "span is"),
        ({"margin": -0.1}, "margin is"),
        ({"margin": 1.0}, "margin is"),
    ],
)
def test_settings_are_checked(settings: dict[str, float], message: str) -> None:
    with pytest.raises(UserError, match=message):
        sequential_decision([0, 1], [1, 1], "ab", **settings)


def test_scores_are_checked() -> None:
    with pytest.raises(UserError, match="baseline has 3 scores, candidate 3, for 2 groups"):
        sequential_decision([0, 1, 1], [1, 1, 1], "ab")
    with pytest.raises(UserError, match=r"scores of row 1 are 0\.0 and 3\.0: farther apart than span = 1"):
        sequential_decision([0, 0], [1, 3], "ab")
    with pytest.raises(UserError, match="farther apart"):
        sequential_decision([0, 0], [1, math.inf], "ab")
