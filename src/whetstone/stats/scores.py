"""Checked scores of one or two arms, and the groups that the examples belong to."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from whetstone.errors import UserError
from whetstone.stats.resample import FloatArray, GroupSums, IntArray

__all__ = ["ArmScores", "Groups", "PairedScores", "Scores", "numbered"]

Scores = Sequence[float] | npt.NDArray[np.number]
Groups = Sequence[Hashable] | npt.NDArray[Any]


@dataclass(frozen=True, slots=True, eq=False)
class ArmScores:
    """Scores of one arm; both arrays have one entry an example.

    Attributes:
        values: The scores.
        group_numbers: Group of each example, numbered from 0 without a gap.
    """

    values: FloatArray
    group_numbers: IntArray

    @classmethod
    def of(cls, name: str, scores: Scores, groups: Groups) -> Self:
        """Check the scores of the arm called `name`.

        Raises:
            UserError: The lengths differ, a score is not finite, or there are fewer than two groups.
        """
        return cls(_checked(name, scores, groups), numbered(groups))

    @property
    def is_binary(self) -> bool:
        """Whether every score is 0 or 1."""
        return bool(np.all((self.values == 0) | (self.values == 1)))

    @property
    def is_ungrouped(self) -> bool:
        """Whether every example is a group of its own."""
        return int(self.group_numbers.max()) + 1 == len(self.group_numbers)

    @property
    def grouped(self) -> GroupSums:
        """Sums of the scores by group."""
        return GroupSums.of(self.values, self.group_numbers)

    @property
    def range(self) -> tuple[float, float]:
        """Lowest and highest score, zero included; 0 and 1 where all are 0, as 0/1 scores can be."""
        low, high = min(0.0, float(self.values.min())), max(0.0, float(self.values.max()))
        return low, high if high > low else 1.0


@dataclass(frozen=True, slots=True, eq=False)
class PairedScores:
    """Scores of two arms on the same examples in the same order."""

    baseline: ArmScores
    candidate: ArmScores

    @classmethod
    def of(cls, baseline: Scores, candidate: Scores, groups: Groups) -> Self:
        """Check two arms and their groups.

        Raises:
            UserError: The lengths differ, a score is not finite, or there are fewer than two groups.
        """
        before, after = _checked("baseline", baseline, groups), _checked("candidate", candidate, groups)
        numbers = numbered(groups)
        return cls(ArmScores(before, numbers), ArmScores(after, numbers))

    @property
    def difference(self) -> ArmScores:
        """Candidate minus baseline, by example."""
        return ArmScores(self.candidate.values - self.baseline.values, self.baseline.group_numbers)

    @property
    def is_binary(self) -> bool:
        """Whether every score of both arms is 0 or 1."""
        return self.baseline.is_binary and self.candidate.is_binary

    @property
    def are_independent_flips(self) -> bool:
        """Whether every example is its own group and moves by the whole span of 1 or not at all.

        True of 0/1 scores, and of 0/-1 scores, by which a metric that is better when lower is turned round.
        """
        whole = np.isin(self.difference.values, (-1.0, 0.0, 1.0))
        return self.baseline.is_ungrouped and self.span == 1 and bool(np.all(whole))

    @property
    def span(self) -> float:
        """Range of the scores of both arms, zero included: how far one example can be taken to move."""
        (low, high), (candidate_low, candidate_high) = self.baseline.range, self.candidate.range
        return max(high, candidate_high) - min(low, candidate_low)


def _checked(name: str, scores: Scores, groups: Groups) -> FloatArray:
    values = np.asarray(scores, dtype=np.float64)
    if len(values) != len(groups):
        raise UserError(
            f"{name} has {len(values)} scores for {len(groups)} groups: give one score and one group an example"
        )
    if len(values) == 0:
        raise UserError(f"{name} has no scores: give examples of at least 2 groups")
    if not np.all(np.isfinite(values)):
        index = int(np.flatnonzero(~np.isfinite(values))[0])
        raise UserError(
            f"{name} score of example {index} is {values[index]}: leave the example out of both arms or score it"
        )
    return values


def numbered(groups: Groups) -> IntArray:
    """Groups numbered from 0 without a gap; whole numbers in an array are numbered without a loop."""
    if isinstance(groups, np.ndarray) and groups.dtype.kind in "iu":
        group_numbers = np.unique(groups, return_inverse=True)[1].astype(np.intp, copy=False)
    else:
        numbers: dict[Hashable, int] = {}
        group_numbers = np.array([numbers.setdefault(group, len(numbers)) for group in groups], dtype=np.intp)
    if group_numbers.max() == 0:
        raise UserError(
            f"all examples ({len(groups)}) are of group {groups[0]!r}: one group says nothing about others, "
            "give examples of at least 2"
        )
    return group_numbers
