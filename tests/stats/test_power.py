import math

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.power import TTestPower

from whetstone.errors import UserError
from whetstone.stats.paired import compare_paired
from whetstone.stats.power import examples_needed, minimum_detectable_effect
from whetstone.stats.resample import FloatArray, IntArray


def world(generator: np.random.Generator, groups: int, effect: float) -> tuple[FloatArray, FloatArray, IntArray]:
    numbers = np.repeat(np.arange(groups), 3)
    baseline = generator.normal(size=3 * groups)
    noise = 0.5 * generator.normal(size=groups)[numbers] + 0.5 * generator.normal(size=3 * groups)
    return baseline, baseline + effect + noise, numbers


def test_effect_of_single_examples_has_the_power_asked_for() -> None:
    generator = np.random.default_rng(0)
    baseline, candidate = generator.normal(size=(2, 80))
    effect = minimum_detectable_effect(baseline, candidate, range(80), alpha=0.01, power=0.9)
    standardised = effect / np.std(candidate - baseline, ddof=1)
    assert TTestPower().power(standardised, 80, 0.01) == pytest.approx(0.9)


def test_effect_is_detected_four_times_in_five() -> None:
    generator = np.random.default_rng(1)
    effect = minimum_detectable_effect(*world(generator, 20_000, 0.0)) * math.sqrt(20_000 / 40)
    worlds = 400
    detected = sum(
        compare_paired(*world(generator, 40, effect), resamples=400, seed=seed).p_value <= 0.05
        for seed in range(worlds)
    )
    assert stats.binom.ppf(1e-4, worlds, 0.77) <= detected <= stats.binom.isf(1e-4, worlds, 0.81)


def test_copies_within_a_group_are_no_evidence() -> None:
    baseline, candidate, groups = world(np.random.default_rng(2), 30, 0.1)
    once = minimum_detectable_effect(baseline, candidate, groups)
    twice = [values.repeat(2) for values in (baseline, candidate, groups)]
    assert minimum_detectable_effect(twice[0], twice[1], twice[2].tolist()) == pytest.approx(once)
    needed = examples_needed(baseline, candidate, groups, effect=0.1)
    assert needed is not None
    assert examples_needed(twice[0], twice[1], twice[2].tolist(), effect=0.1) == 2 * needed


def test_examples_needed_inverts_the_detectable_effect() -> None:
    arms = world(np.random.default_rng(3), 50, 0.0)
    effect = minimum_detectable_effect(*arms)
    assert examples_needed(*arms, effect=1.0001 * effect) == 150
    assert examples_needed(*arms, effect=-1.0001 * effect) == 150
    assert examples_needed(*arms, effect=effect / 2) == pytest.approx(4 * 150, rel=0.03)


def test_no_number_shows_an_effect_of_zero() -> None:
    assert examples_needed(*world(np.random.default_rng(4), 10, 0.0), effect=0) is None


@pytest.mark.parametrize(("effect", "expected"), [(1e6, 9), (50, 9)])
def test_a_huge_effect_still_needs_three_groups(effect: float, expected: int) -> None:
    assert examples_needed(*world(np.random.default_rng(4), 10, 0.0), effect=effect) == expected


def test_a_tiny_effect_needs_very_many() -> None:
    needed = examples_needed(*world(np.random.default_rng(4), 10, 0.0), effect=1e-5)
    assert needed is not None
    assert needed > 1e9


def test_equal_arms_do_not_promise_to_detect_everything() -> None:
    scores = np.tile([0.0, 1.0], 50)
    few, many = (minimum_detectable_effect(scores[:n], scores[:n], range(n)) for n in (20, 100))
    assert 0.03 < many < few
    assert examples_needed(scores, scores, range(100), effect=many) == pytest.approx(100, abs=1)


@pytest.mark.parametrize(("alpha", "power"), [(0.0, 0.8), (0.05, 1.0), (0.8, 0.5), (float("nan"), 0.8)])
def test_rates_are_checked(alpha: float, power: float) -> None:
    with pytest.raises(UserError, match="alpha is"):
        minimum_detectable_effect([0, 1], [1, 1], "ab", alpha=alpha, power=power)


def test_effect_is_checked() -> None:
    with pytest.raises(UserError, match="effect is nan"):
        examples_needed([0, 1], [1, 1], "ab", effect=float("nan"))


@pytest.mark.parametrize("alpha", [0.01, 0.025, 0.05, 0.1, 0.2, 0.4])
def test_every_alpha_has_a_solution(alpha: float) -> None:
    rng = np.random.default_rng(1)
    baseline, candidate = rng.integers(0, 2, 300), rng.integers(0, 2, 300)
    found = minimum_detectable_effect(baseline, candidate, np.arange(300), alpha=alpha)
    assert 0 < found < 1
    needed = examples_needed(baseline, candidate, np.arange(300), effect=found, alpha=alpha)
    assert needed == pytest.approx(300, abs=3)
