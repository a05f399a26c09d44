"""The primary metric by category: every arm's mean, and where tuning helped or hurt."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from whetstone.evaluate.evidence import Evidence
from whetstone.evaluate.metrics.metric import Metric
from whetstone.evaluate.sample import BASE, TUNED
from whetstone.stats.categories import CategoryComparison, compare_categories

__all__ = ["CategoryRow", "CategoryTable", "category_table"]

_AT_MOST = 60
"""Categories that are compared: a longer table is not read, and leaves little of any p."""


@dataclass(frozen=True, slots=True)
class CategoryMean:
    """An arm's mean score over the ``n`` examples of a category to which the metric applies."""

    mean: float
    n: int


@dataclass(frozen=True, slots=True)
class CategoryRow:
    """One category.

    Attributes:
        name: As the examples say it.
        n: How many examples are of it.
        groups: How many groups they form.
        arms: Each measured arm's mean; None where the metric applies to no example.
        compared: Tuned against base; None where one of them was not measured or fewer than two groups have a score.
        gain: The difference, positive when tuned is better; None as ``compared``.
        side: On which side of zero the whole interval lies, turned as ``gain``; None as ``compared``.
    """

    name: str
    n: int
    groups: int
    arms: dict[str, CategoryMean | None]
    compared: CategoryComparison | None
    gain: float | None
    side: Literal["better", "worse", "unclear"] | None


@dataclass(frozen=True, slots=True)
class CategoryTable:
    """The categories of a suite.

    Attributes:
        total: How many there are.
        rows: Those with the most examples; what tuning hurt most first, what was not compared last.
    """

    total: int
    rows: tuple[CategoryRow, ...]

    def tint(self, mean: float, unit: str) -> float:
        """How deep a mean's colour is, in percent: a share as it is, others between the least and the greatest."""
        if unit in ("share", "score"):
            return round(100 * mean)
        means = [one.mean for row in self.rows for one in row.arms.values() if one is not None]
        low, high = min(means), max(means)
        return round(100 * (mean - low) / (high - low)) if high > low else 50


def category_table(evidence: Evidence, metric: Metric, confidence: float) -> CategoryTable:
    """Breaks a metric down by category.

    Args:
        evidence: The rows of a suite.
        metric: What to break down.
        confidence: Of each category's interval.
    """
    counts = np.bincount(evidence.category_numbers, minlength=len(evidence.categories))
    listed = np.argsort(-counts, kind="stable")[:_AT_MOST]
    compared = _compared(evidence, metric, listed, confidence)
    means = {arm: _means(evidence, arm, metric) for arm in evidence.arms}
    groups = _group_counts(evidence)
    rows = []
    for number in listed.tolist():
        name = evidence.categories[number]
        arms = {arm: of_arm[number] for arm, of_arm in means.items()}
        rows.append(_row(name, int(counts[number]), int(groups[number]), arms, compared.get(name), metric))
    rows.sort(key=lambda row: (row.gain is None, row.gain or 0.0, row.name))
    return CategoryTable(len(evidence.categories), tuple(rows))


def _row(
    name: str,
    n: int,
    groups: int,
    arms: dict[str, CategoryMean | None],
    compared: CategoryComparison | None,
    metric: Metric,
) -> CategoryRow:
    if compared is None or compared.paired is None:
        return CategoryRow(name, n, groups, arms, None, None, None)
    sign, paired = -1 if metric.direction == "lower" else 1, compared.paired
    ends = sorted((sign * paired.interval.low, sign * paired.interval.high))
    side: Literal["better", "worse", "unclear"] = "better" if ends[0] > 0 else "worse" if ends[1] < 0 else "unclear"
    return CategoryRow(name, n, groups, arms, compared, sign * paired.difference, side)


def _compared(
    evidence: Evidence, metric: Metric, listed: npt.NDArray[np.int64], confidence: float
) -> dict[str, CategoryComparison]:
    """Tuned against base in the listed categories, by name."""
    if not {BASE, TUNED} <= evidence.arms.keys():
        return {}
    before, after = evidence.scores(BASE, metric), evidence.scores(TUNED, metric)
    places = np.full(len(evidence.categories), -1)
    places[listed] = np.arange(len(listed))
    numbers = places[evidence.category_numbers]
    kept = np.isfinite(before) & np.isfinite(after) & (numbers >= 0)
    names = [evidence.categories[number] for number in listed]
    found = compare_categories(before[kept], after[kept], evidence.groups[kept], numbers[kept], names, level=confidence)
    return {one.name: one for one in found}


def _means(evidence: Evidence, arm: str, metric: Metric) -> Sequence[CategoryMean | None]:
    scores = evidence.scores(arm, metric)
    applies = np.isfinite(scores)
    numbers, bins = evidence.category_numbers[applies], len(evidence.categories)
    counts = np.bincount(numbers, minlength=bins)
    sums = np.bincount(numbers, weights=scores[applies], minlength=bins)
    return [
        CategoryMean(float(total / count), int(count)) if count else None
        for total, count in zip(sums, counts, strict=True)
    ]


def _group_counts(evidence: Evidence) -> npt.NDArray[np.int64]:
    """How many groups each category has."""
    bins = len(evidence.categories)
    pairs = np.unique(evidence.groups * bins + evidence.category_numbers)
    return np.bincount(pairs % max(bins, 1), minlength=bins)
