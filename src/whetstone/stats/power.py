"""How small a difference a comparison can see, and how many examples would show a given one.

Both read the spread of the paired difference between groups, so that examples of one group do not count as
independent evidence. They tell an inconclusive verdict what to do next; they are no verdict themselves.
"""

import math

import numpy as np
from statsmodels.stats.power import TTestPower
from statsmodels.stats.proportion import proportion_confint

from whetstone.errors import UserError
from whetstone.stats.scores import Groups, PairedScores, Scores

__all__ = ["examples_needed", "minimum_detectable_effect"]

LARGEST_STANDARDISED_EFFECT = 5.0  # from here on 3 groups suffice; the solver fails to converge near 10


def minimum_detectable_effect(
    baseline: Scores, candidate: Scores, groups: Groups, *, alpha: float = 0.05, power: float = 0.8
) -> float:
    """Smallest true difference that a comparison of this size and spread would detect.

    Args:
        baseline: One score an example.
        candidate: One score an example, in the same order.
        groups: Group of each example.
        alpha: Two-sided error rate of the test.
        power: Chance of detecting the difference.

    Returns:
        The size of the difference, above 0, in the unit of the scores. Where all groups differ by the same amount,
        their spread is taken at the worst that Wilson's bound for so many groups leaves open.

    Raises:
        UserError: `alpha` or `power` is not between 0 and 1 with alpha below power, or the scores are empty, uneven
            in length, not finite, or of fewer than two groups.

    Source: Student's t over groups with the design effect of their sizes and correlation (Kish 1965, Survey
    Sampling; Miller 2024, Adding error bars to evals, arXiv:2411.00640); solved by statsmodels' `TTestPower`.
    """
    _check_rates(alpha, power)
    scores = PairedScores.of(baseline, candidate, groups)
    count = scores.difference.grouped.count
    return _solved(effect_size=None, nobs=count, alpha=alpha, power=power) * _group_spread(scores, alpha)


def examples_needed(
    baseline: Scores,
    candidate: Scores,
    groups: Groups,
    *,
    effect: float,
    alpha: float = 0.05,
    power: float = 0.8,
) -> int | None:
    """Number of examples with which a true difference of `effect` would be detected.

    Assumes more examples of the same kind: same spread, same number of examples a group.

    Args:
        baseline: One score an example.
        candidate: One score an example, in the same order.
        groups: Group of each example.
        effect: The difference to detect, in the unit of the scores; its sign does not matter.
        alpha: Two-sided error rate of the test.
        power: Chance of detecting the difference.

    Returns:
        The number of examples, at least three groups' worth; None for an effect of 0, which no number shows.

    Raises:
        UserError: As `minimum_detectable_effect`, or the effect is not finite.
    """
    _check_rates(alpha, power)
    if not math.isfinite(effect):
        raise UserError(f"effect is {effect}: give the difference to detect, such as 0.02")
    scores = PairedScores.of(baseline, candidate, groups)
    if effect == 0:
        return None
    standardised = min(abs(effect) / _group_spread(scores, alpha), LARGEST_STANDARDISED_EFFECT)
    needed = _solved(effect_size=standardised, nobs=None, alpha=alpha, power=power)
    examples_a_group = len(scores.difference.values) / scores.difference.grouped.count
    return math.ceil(math.ceil(needed) * examples_a_group)


def _solved(**known: float | None) -> float:
    """The one unknown of the t test's power; statsmodels gives a number or, from its second solver, an array of one."""
    return float(np.ravel(TTestPower().solve_power(**known))[0])


def _group_spread(scores: PairedScores, alpha: float) -> float:
    """Standard deviation of what one group of average size adds to the mean difference."""
    grouped = scores.difference.grouped
    if grouped.outlying > 0:
        return grouped.mean_error * math.sqrt(grouped.count)
    share = float(proportion_confint(0, grouped.count, alpha=alpha, method="wilson")[1])
    return math.sqrt(share * (1 - share)) * (scores.span + abs(grouped.mean))


def _check_rates(alpha: float, power: float) -> None:
    if not 0 < alpha < power < 1:
        raise UserError(f"alpha is {alpha} and power {power}: give 0 < alpha < power < 1, such as 0.05 and 0.8")
