"""Two arms on one metric: the paired statistics of the rows, with the power that they have."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from whetstone.evaluate.evidence import Evidence
from whetstone.evaluate.metrics.metric import Metric
from whetstone.stats.paired import PairedComparison, compare_paired
from whetstone.stats.power import examples_needed, minimum_detectable_effect
from whetstone.stats.resample import FloatArray, IntArray

__all__ = ["Comparison", "compare_arms", "paired_scores"]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Candidate minus baseline on one metric, over the examples to which the metric applies.

    Attributes:
        metric: What was scored.
        baseline: The arm compared with.
        candidate: The arm compared.
        paired: Difference, interval, p and flips; not turned by the metric's direction.
        minimum_detectable_effect: The true difference that this many examples would find 4 times in 5.
        examples_needed: How many examples would make the observed difference significant 4 times in 5;
            None when there is no difference.
    """

    metric: Metric
    baseline: str
    candidate: str
    paired: PairedComparison
    minimum_detectable_effect: float
    examples_needed: int | None

    @property
    def gain(self) -> float:
        """The difference, positive when the candidate is better."""
        return self.sign * self.paired.difference

    @property
    def gain_low(self) -> float:
        """The end of the interval that is worst for the candidate, as a gain."""
        return min(self.sign * self.paired.interval.low, self.sign * self.paired.interval.high)

    @property
    def gain_high(self) -> float:
        """The end of the interval that is best for the candidate, as a gain."""
        return max(self.sign * self.paired.interval.low, self.sign * self.paired.interval.high)

    @property
    def sign(self) -> int:
        """-1 for metrics that are better when lower."""
        return -1 if self.metric.direction == "lower" else 1


def paired_scores(
    evidence: Evidence, metric: Metric, baseline: str, candidate: str, *, without: Sequence[int] = ()
) -> tuple[FloatArray, FloatArray, IntArray]:
    """The two arms' scores and the groups, on the examples where both have a score.

    Args:
        evidence: The rows.
        metric: What to score.
        baseline: The arm compared with.
        candidate: The arm compared.
        without: Examples to leave out, by their place.
    """
    left, right = evidence.scores(baseline, metric), evidence.scores(candidate, metric)
    both = np.isfinite(left) & np.isfinite(right)
    both[list(without)] = False
    return left[both], right[both], evidence.groups[both]


def compare_arms(
    evidence: Evidence,
    metric: Metric,
    baseline: str,
    candidate: str,
    *,
    confidence: float = 0.95,
    tests: int = 1,
    without: Sequence[int] = (),
) -> Comparison | None:
    """Compares two arms on one metric.

    Args:
        evidence: The rows.
        metric: What to score.
        baseline: The arm compared with.
        candidate: The arm compared.
        confidence: Of the interval.
        tests: How many tests the p value will be corrected for. Power is computed at alpha divided by it (Bonferroni),
            which promises a little too little under Holm's correction, never too much.
        without: Examples to leave out, by their place.

    Returns:
        None where fewer than two groups have a score: nothing can be said.
    """
    before, after, groups = paired_scores(evidence, metric, baseline, candidate, without=without)
    if len(groups) == 0 or np.all(groups == groups[0]):
        return None
    paired = compare_paired(before, after, groups, level=confidence)
    alpha = (1 - confidence) / tests
    return Comparison(
        metric=metric,
        baseline=baseline,
        candidate=candidate,
        paired=paired,
        minimum_detectable_effect=minimum_detectable_effect(before, after, groups, alpha=alpha),
        examples_needed=examples_needed(before, after, groups, effect=paired.difference, alpha=alpha),
    )
