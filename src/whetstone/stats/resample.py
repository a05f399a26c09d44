"""Resampling of whole groups: the bootstrap and the sign flip behind an interval and a p-value.

Examples made from one source rise and fall together, so a group is drawn, or has its sign flipped, as a whole.
Only the sum and the size of each group are needed, which turns both into array arithmetic over the groups.
Groups are kept in an order that depends on their values alone: neither the order of the examples nor the names
of the groups change a result, for a given seed.
"""

import math
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt
from scipy import stats

__all__ = ["FloatArray", "GroupSums", "IntArray", "bootstrap_bounds", "sign_flip_p"]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.intp]

CHUNK_CELLS = 2**22  # draws held at once: about 50 MB, whatever the number of groups and resamples
ENUMERATED_GROUPS = 12  # up to here all 2**12 sign patterns are fewer than the usual 10,000 draws
SPARSE_GROUPS = 20
RELATIVE_TOLERANCE = 1e-9  # sums taken in another order differ in the last bits, and are still ties


@dataclass(frozen=True, slots=True, eq=False)
class GroupSums:
    """Sum and size of every group: all that resampling whole groups needs to know.

    Attributes:
        sums: Sum of the values of each group, `(groups,)`.
        sizes: Number of examples in each group, `(groups,)`.
    """

    sums: FloatArray
    sizes: FloatArray

    @classmethod
    def of(cls, values: FloatArray, group_numbers: IntArray) -> Self:
        """Add up `values` by group, where `group_numbers` runs from 0 without a gap."""
        sums = np.bincount(group_numbers, weights=values).astype(np.float64)
        sizes = np.bincount(group_numbers).astype(np.float64)
        order = np.lexsort((sizes, sums))
        return cls(sums[order], sizes[order])

    @property
    def count(self) -> int:
        """Number of groups."""
        return len(self.sums)

    @property
    def mean(self) -> float:
        """Mean over examples: the sum of the group sums over the sum of the group sizes."""
        return float(self.sums.sum() / self.sizes.sum())

    @property
    def means(self) -> FloatArray:
        """Mean of each group, `(groups,)`."""
        return self.sums / self.sizes

    @property
    def outlying(self) -> int:
        """Number of groups whose mean is not the most common one (for differences: usually zero)."""
        means = self.means
        scale = float(np.abs(means).max()) or 1.0
        _, counts = np.unique(np.round(means / scale / RELATIVE_TOLERANCE), return_counts=True)
        return self.count - int(counts.max())

    @property
    def is_sparse(self) -> bool:
        """Whether most groups agree and the few that do not (under 20) are too few to show their spread."""
        return self.outlying < min(SPARSE_GROUPS, self.count / 2)


def bootstrap_bounds(grouped: GroupSums, *, level: float, resamples: int, seed: int) -> tuple[float, float, str]:
    """Bound the mean by a bootstrap of whole groups, BCa where it can be trusted and percentile elsewhere.

    Both are taken at Hesterberg's expanded level: the normal quantile is replaced by
    `sqrt(groups / (groups - 1))` times Student's, which undoes most of the narrowness of a bootstrap over few
    groups. Percentile is used where BCa is undefined or leaves the mean itself out, and where the values are
    sparse: its two corrections are then estimated from a handful of groups and do harm.

    Measured, coverage of a nominal 95% over 1000 to 2000 worlds each, plain BCa -> this. Normal group means: 5 groups
    0.83 -> 0.91, 10 groups 0.92 -> 0.94, 20 groups 0.92 -> 0.93, 50 and more 0.95. Log-normal (heavily skewed):
    5 groups 0.75 -> 0.81, 20 groups 0.88 -> 0.90, 100 groups 0.91 -> 0.92. A beta(1, 3) change of either sign in 10%
    of the groups, where the expanded BCa alone covers 0.81 with 50 groups and 0.90 with 200: 0.91 and 0.92. Skew and
    rare changes are the limit, not the number of resamples.

    Args:
        grouped: At least two groups that do not all have the same mean.
        level: Coverage aimed at, such as 0.95.
        resamples: Number of bootstrap resamples.
        seed: The same seed gives the same bounds.

    Returns:
        The lower bound, the upper bound, and the method in words.

    Source: Efron (1987), Better bootstrap confidence intervals, JASA 82, 171-185; Hesterberg (2015), What
    teachers should know about the bootstrap, The American Statistician 69, 371-386.
    """
    groups = grouped.count
    means = _bootstrap_means(grouped, resamples, seed)
    quantile = math.sqrt(groups / (groups - 1)) * float(stats.t.ppf((1 - level) / 2, groups - 1))
    if not grouped.is_sparse and (tails := _bca_tails(grouped, means, quantile)) is not None:
        low, high = (float(bound) for bound in np.quantile(means, tails))
        if low <= grouped.mean <= high:
            return low, high, f"BCa bootstrap over {groups} groups"
    tail = float(stats.norm.cdf(quantile))
    low, high = (float(bound) for bound in np.quantile(means, (tail, 1 - tail)))
    return low, high, f"percentile bootstrap over {groups} groups"


def _bootstrap_means(grouped: GroupSums, resamples: int, seed: int) -> FloatArray:
    generator = np.random.default_rng(seed)
    groups, sizes = grouped.count, grouped.sizes
    are_equal_in_size = bool(np.all(sizes == sizes[0]))
    rows = max(1, CHUNK_CELLS // groups)
    means = np.empty(resamples)
    for start in range(0, resamples, rows):
        stop = min(start + rows, resamples)
        drawn = generator.integers(0, groups, size=(stop - start, groups), dtype=np.uint32)
        drawn_sizes = groups * sizes[0] if are_equal_in_size else sizes[drawn].sum(axis=1)
        means[start:stop] = grouped.sums[drawn].sum(axis=1) / drawn_sizes
    return means


def _bca_tails(grouped: GroupSums, means: FloatArray, quantile: float) -> tuple[float, float] | None:
    """Tail probabilities after the bias and skewness corrections, or None where they are undefined."""
    below = (np.mean(means < grouped.mean) + np.mean(means <= grouped.mean)) / 2
    if not 0 < below < 1:
        return None
    bias = float(stats.norm.ppf(below))
    left_out = (grouped.sums.sum() - grouped.sums) / (grouped.sizes.sum() - grouped.sizes)
    influence = left_out.mean() - left_out
    influence /= np.abs(influence).max() or 1.0  # the ratio does not see the scale, and cubes of small numbers vanish
    acceleration = float((influence**3).sum() / (6 * (influence**2).sum() ** 1.5))
    shifted = np.array([bias + quantile, bias - quantile])
    stretch = 1 - acceleration * shifted
    if np.any(stretch <= 0):
        return None
    low, high = stats.norm.cdf(bias + shifted / stretch)
    return float(low), float(high)


def sign_flip_p(sums: FloatArray, *, resamples: int, seed: int) -> tuple[float, str]:
    """Test, two-sided, whether group sums of a difference centre on zero by flipping the sign of whole groups.

    If neither arm is better, each group's summed difference was as likely to have the other sign. All patterns
    of signs are counted for up to 12 differing groups; beyond that, random patterns, with the observed one
    counted among them, so that the p-value is never zero. Five differing groups or fewer can never give a two-sided
    p-value below 0.05: the smallest is 2 / 2**5.

    Exact where differences are as likely to have the other sign. A mean of zero made of many small gains and few large
    losses is not: measured at 5% over 1000 worlds with such differences, exponential 0.09 for 10 groups and 0.05 for
    100; log-normal 0.15 for 10 groups and 0.08 for 100.

    Args:
        sums: Summed difference of each group, `(groups,)`.
        resamples: Number of random patterns.
        seed: The same seed gives the same p-value.

    Returns:
        The p-value and the method in words.

    Source: Fisher (1935), The Design of Experiments, section 21; Phipson and Smyth (2010), Permutation p-values
    should never be zero, Statistical Applications in Genetics and Molecular Biology 9(1), article 39.
    """
    magnitudes = np.sort(np.abs(sums[sums != 0]))
    differing, total = len(magnitudes), float(magnitudes.sum())
    threshold = abs(float(sums.sum())) - RELATIVE_TOLERANCE * total

    def count_extreme(patterns: npt.NDArray[np.uint8]) -> int:
        flipped = 2 * (patterns.astype(np.float64) @ magnitudes) - total
        return int(np.sum(np.abs(flipped) >= threshold))

    if differing <= ENUMERATED_GROUPS:
        patterns = np.arange(2**differing)[:, None] >> np.arange(differing) & 1
        extreme = count_extreme(patterns.astype(np.uint8))
        return extreme / 2**differing, f"exact sign flip over {differing} differing groups"
    generator = np.random.default_rng(seed)
    packed, extreme = -(-differing // 8), 0
    rows = max(1, CHUNK_CELLS // differing)
    for start in range(0, resamples, rows):
        drawn = generator.integers(0, 256, size=(min(rows, resamples - start), packed), dtype=np.uint8)
        extreme += count_extreme(np.unpackbits(drawn, axis=1, count=differing))
    method = f"sign flip over {differing} differing groups, {resamples} draws"
    return (1 + extreme) / (1 + resamples), method
