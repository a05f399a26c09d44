"""Quantiles with intervals: of independent values by order statistics, of values that come in groups by Woodruff.

Notable: a sample of n holds nothing beyond its extremes, so the upper bound of a high quantile exists only when the
largest value lies above the quantile with enough certainty. :func:`values_needed` says from which n on; below it there
is no estimate here, for a number without a bound would be read as one that has it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

from whetstone.errors import UserError
from whetstone.stats.paired import Interval

__all__ = ["Quantile", "Values", "grouped_quantile", "quantile", "values_needed"]


Values = Sequence[float] | npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Quantile:
    """One quantile of a sample.

    Attributes:
        share: Which: 0.9 is the 90th percentile.
        n: Values there are.
        needed: Values that the estimate needs; those in groups count once a group.
        estimate: By linear interpolation between order statistics; None where ``needed`` is not reached.
        interval: Of the quantile; None with it.
    """

    share: float
    n: int
    needed: int
    estimate: float | None
    interval: Interval | None


def values_needed(share: float, level: float = 0.95) -> int:
    """The least n whose smallest and largest value lie on either side of a quantile with confidence ``level``.

    All n independent values lie below the quantile with probability ``share ** n`` and above it with probability
    ``(1 - share) ** n``; neither may exceed half of what the level leaves. For 95%: 6 values for the median, 36 for
    the 90th percentile, 368 for the 99th.

    Args:
        share: Which quantile, between 0 and 1.
        level: Coverage aimed at.

    Raises:
        UserError: ``share`` or ``level`` is not between 0 and 1.
    """
    for name, value in (("share", share), ("level", level)):
        if not 0 < value < 1:
            raise UserError(f"{name} is {value}: give one between 0 and 1")
    return math.ceil(math.log((1 - level) / 2) / math.log(max(share, 1 - share)))


def quantile(values: Values, share: float, *, level: float = 0.95) -> Quantile:
    """Estimates a quantile of independent values, with the equal-tailed interval of order statistics.

    How many of n values lie below the quantile is binomial, whatever their distribution; the interval runs from the
    largest order statistic that lies above it with probability at most ``(1 - level) / 2`` to the smallest that lies
    below it with no more. Its coverage is at least ``level``.

    Args:
        values: The sample.
        share: Which quantile.
        level: Coverage aimed at.

    Source: David and Nagaraja (2003), Order Statistics, section 7.1.
    """
    n, needed = len(values), values_needed(share, level)
    if n < needed:
        return Quantile(share, n, needed, None, None)
    ordered = np.sort(np.asarray(values, dtype=np.float64))
    tail = (1 - level) / 2
    # P(X(l) > quantile) = P(Bin <= l - 1), and P(X(u) < quantile) = P(Bin >= u); order statistics count from 1.
    below = stats.binom.cdf(np.arange(n + 1), n, share)
    low = int(np.searchsorted(below, tail, side="right"))
    high = int(np.searchsorted(below, 1 - tail, side="left")) + 1
    interval = Interval(
        float(ordered[max(low, 1) - 1]), float(ordered[min(high, n) - 1]), level, f"order statistics of {n} values"
    )
    return Quantile(share, n, needed, float(np.quantile(ordered, share)), interval)


def grouped_quantile(groups: Sequence[Values], share: float, *, level: float = 0.95) -> Quantile:
    """Estimates a quantile of values that are alike within groups, such as the gaps between the tokens of a request.

    Woodruff's interval: the share of values at or below the estimate gets a confidence interval whose variance is
    taken between groups, and its two ends are turned back into values. It is never taken to be narrower than that of
    independent values. Groups take the place of values in the rule of :func:`values_needed`; where they differ so much
    that an end of the share's interval leaves 0 to 1, more of them are needed.

    Args:
        groups: The values of each group; empty groups do not count.
        share: Which quantile.
        level: Coverage aimed at.

    Source: Woodruff (1952), JASA 47, 635-646; the variance is that of a ratio of group sums, Cochran (1977),
    Sampling Techniques, section 3.12.
    """
    filled = [np.asarray(group, dtype=np.float64) for group in groups if len(group)]
    n, needed = sum(map(len, filled)), values_needed(share, level)
    if len(filled) < needed:
        return Quantile(share, n, needed, None, None)
    pooled = np.concatenate(filled)
    estimate = float(np.quantile(pooled, share))
    sizes = np.array([len(group) for group in filled])
    below = np.array([int((group <= estimate).sum()) for group in filled])
    observed = below.sum() / n
    between = len(filled) / (len(filled) - 1) * float(((below - observed * sizes) ** 2).sum()) / n**2
    error = math.sqrt(max(between, share * (1 - share) / n))
    reach = float(stats.t.ppf((1 + level) / 2, len(filled) - 1)) * error
    room = min(share, 1 - share)
    if reach >= room:
        # The bound would lie beyond the extremes; the reach shrinks with the root of the number of groups.
        return Quantile(share, n, math.ceil(len(filled) * (reach / room) ** 2), None, None)
    low, high = np.quantile(pooled, [share - reach, share + reach])
    method = f"Woodruff over {len(filled)} groups"
    return Quantile(share, n, needed, estimate, Interval(float(low), float(high), level, method))
