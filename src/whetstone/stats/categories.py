"""The difference between two arms by category: where a model became better, and where worse.

A table of many tests looks for surprises, so its p-values stand beside q-values that allow for the number of
categories tested. The intervals are those of each category alone, at the level asked for.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from whetstone.errors import UserError
from whetstone.stats.multiplicity import benjamini_hochberg
from whetstone.stats.paired import PairedComparison, compare_paired
from whetstone.stats.scores import Scores

__all__ = ["CategoryComparison", "compare_categories"]


@dataclass(frozen=True, slots=True)
class CategoryComparison:
    """Candidate against baseline on the examples of one category.

    Attributes:
        name: The category.
        n: Number of its examples.
        groups: Number of groups that they are of.
        paired: Means, difference, interval and raw p; None for fewer than two groups: not measured.
        q_value: The p-value adjusted for the false discovery rate over all categories measured; None as `paired`.
    """

    name: str
    n: int
    groups: int
    paired: PairedComparison | None
    q_value: float | None


def compare_categories(
    baseline: Scores,
    candidate: Scores,
    groups: npt.NDArray[np.integer],
    categories: npt.NDArray[np.integer],
    names: Sequence[str],
    *,
    level: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> list[CategoryComparison]:
    """Compare two arms within each category.

    Args:
        baseline: One score an example.
        candidate: One score an example, in the same order.
        groups: Number of the group of each example.
        categories: Number of the category of each example, an index into `names`.
        names: Names of the categories; one without examples is listed with n = 0.
        level: Coverage aimed at for the interval of each category alone.
        resamples: Number of bootstrap resamples and of sign patterns of each category.
        seed: The same seed gives the same table.

    Returns:
        One row a category, in the order of `names`.

    Raises:
        UserError: The input is uneven in length, a category is not an index into `names`, or the scores of a category
            are not finite.
    """
    before, after = np.asarray(baseline, dtype=np.float64), np.asarray(candidate, dtype=np.float64)
    lengths = [len(before), len(after), len(groups), len(categories)]
    if len(set(lengths)) > 1:
        raise UserError(f"scores, groups and categories have {lengths} entries: give one of each an example")
    if len(categories) and not 0 <= int(categories.min()) <= int(categories.max()) < len(names):
        raise UserError(
            f"categories run from {categories.min()} to {categories.max()} for {len(names)} names: give numbers from 0"
        )
    order = np.argsort(categories, kind="stable")
    ends = np.cumsum(np.bincount(categories, minlength=len(names)))
    rows = []
    for name, members in zip(names, np.split(order, ends[:-1]), strict=True):
        count, paired = len(np.unique(groups[members])), None
        if count > 1:
            paired = compare_paired(
                before[members], after[members], groups[members], level=level, resamples=resamples, seed=seed
            )
        rows.append((name, len(members), count, paired))
    adjusted = iter(benjamini_hochberg([paired.p_value for *_, paired in rows if paired is not None]))
    return [
        CategoryComparison(name, n, count, paired, None if paired is None else next(adjusted))
        for name, n, count, paired in rows
    ]
