"""Looking at the scores while they come in, and stopping as soon as they decide.

A p-value of a fixed number of examples may be read once. Here two bettors watch the groups of examples in the order of
the rows: one stakes a part of his money on every group being a gain, the other on its being a loss, at odds that are
fair if the mean difference is a given value. If it is that value or less, the first one's money is multiplied by a
given factor with at most one in that factor as probability, *ever*. So his money (the e-value) may be read after any
row, and the values of the mean difference that neither bettor has ruled out form an interval that holds at all times.

- The rows must be in an order that knows nothing of the scores: shuffled by whole groups, not sorted by length.
- A bet is decided before its group is seen, from the groups before it alone.
- A group is bet on as a whole, when its last row is there, because its examples rise and fall together.
- To look early costs power where the effect is just large enough to be seen. `EARLY_SHARE` of alpha buys most of the
  saving; the rest is kept for the tests of a fixed number of examples, should all rows be read undecided. The chance of
  a wrong call by either stays below their sum, alpha.
- The money that counts is the highest ever reached: what is decided stays decided, whatever rows follow, so that an
  interrupted run decides as an uninterrupted one, in rounds of any size.
"""

import math
from dataclasses import dataclass
from typing import Literal, Self

import numpy as np
from scipy import optimize

from whetstone.errors import UserError
from whetstone.stats.resample import FloatArray, IntArray
from whetstone.stats.scores import Groups, Scores, numbered

__all__ = ["EARLY_SHARE", "SequentialDecision", "sequential_decision"]

EARLY_SHARE = 0.2  # of alpha, spent on looks before the end

STAKES = (1.0, 2.0)  # multiples of the stake that is best for deciding with the last group
LARGEST_STAKE = 0.95  # share of the money that one group can take away
FIRST_VARIANCE = 0.25  # of group means in units of the span, before any is seen


@dataclass(frozen=True, slots=True)
class SequentialDecision:
    """What the rows so far decide.

    Attributes:
        state: ``better`` when a difference of -margin or less is ruled out, ``worse`` when one of -margin or more is;
            otherwise ``open``.
        e_better: Highest evidence so far against "-margin or less"; 1 / e_better is a p-value that holds at any time.
        e_worse: Highest evidence so far against "-margin or more".
        low: Lowest mean difference that is not ruled out.
        high: Highest mean difference that is not ruled out. With a smallest gain that is of interest, a lower `high`
            says that going on cannot find it.
        rows: Number of rows with which the state was decided, or that were read, where it is open.
        groups: Number of groups that are complete.
    """

    state: Literal["better", "worse", "open"]
    e_better: float
    e_worse: float
    low: float
    high: float
    rows: int
    groups: int


def sequential_decision(
    baseline: Scores,
    candidate: Scores,
    groups: Groups,
    *,
    alpha: float = 0.05,
    margin: float | None = None,
    span: float = 1.0,
) -> SequentialDecision:
    """Decide by the rows so far, with an error rate that holds however often it is called.

    Measured (`docs/calibration.md`) over 2000 worlds of 300 to 400 examples each, at alpha 0.05: base against base is
    called better or worse in 2% to 4%; at twice the minimum detectable effect 33% to 40% of the rows are read, and at
    a fifth of alpha 45% to 55%; a loss of the margin passes in 1.5% to 2% (of 2.5%). A look takes a millisecond, and
    four seconds at a million rows.

    Args:
        baseline: One score a row, for the first rows; NaN where the row has none.
        candidate: One score a row, in the same order.
        groups: Group of *every* example that is planned, in the order of the rows: how many and how large the groups
            will be must be known before the first look. Where the rows of a group are far apart, it counts late; rounds
            of whole groups lose nothing.
        alpha: Chance of a wrong decision, half of it in either direction, as with a two-sided test. For one of several
            gates, alpha divided by their number.
        margin: Largest loss that still counts as no regression; None to ask for a gain.
        span: How far two scores of an example can lie apart by the metric's definition: 1 for shares.

    Returns:
        The decision.

    Raises:
        UserError: `alpha`, `margin` or `span` is out of range, there are more rows than groups, uneven numbers of
            scores, a score is infinite, a difference exceeds the span, or there are fewer than two groups.

    Source: Waudby-Smith and Ramdas (2024), Estimating means of bounded random variables by betting, Journal of the
    Royal Statistical Society B 86, 1-27: the predictable plug-in for a planned number (section 3.2 with the stake of
    section 4.4), two stakes shared half and half. For 0/1 scores of single examples it is a sequential McNemar test: a
    stake of s multiplies the money by 1 + s for an example fixed and 1 - s for one broken.
    """
    _check_settings(alpha, margin, span)
    planned = _Planned.of(numbered(groups))
    differences = _differences(baseline, candidate, len(groups), span)
    sums, sizes, ends = planned.complete(differences)
    gains, weights = sums / span / planned.largest, sizes / planned.largest
    stakes = _stakes(gains, weights, planned.count, alpha / 2)
    threshold = math.log(2 / alpha)
    null = 0.0 if margin is None else -margin / span
    up, down = _log_wealth(gains, weights, stakes, null), _log_wealth(-gains, weights, stakes, -null)
    decided = {"better": _first(up, threshold), "worse": _first(down, threshold)}
    state: Literal["better", "worse", "open"] = "open"
    rows = len(differences)
    if len(up) and min(decided.values()) < len(up):
        state = "better" if decided["better"] <= decided["worse"] else "worse"
        rows = int(ends[decided[state]]) + 1
    return SequentialDecision(
        state=state,
        e_better=_highest(up),
        e_worse=_highest(down),
        low=span * _bound(gains, weights, stakes, threshold),
        high=-span * _bound(-gains, weights, stakes, threshold),
        rows=rows,
        groups=len(sums),
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Planned:
    """The groups of all planned examples: their number by row, their sizes, and their last rows."""

    numbers: IntArray
    sizes: IntArray
    last_rows: IntArray

    @classmethod
    def of(cls, numbers: IntArray) -> Self:
        sizes = np.bincount(numbers)
        last_rows = np.zeros(len(sizes), dtype=np.intp)
        np.maximum.at(last_rows, numbers, np.arange(len(numbers)))
        return cls(numbers, sizes, last_rows)

    @property
    def count(self) -> int:
        return len(self.sizes)

    @property
    def largest(self) -> int:
        return int(self.sizes.max())

    def complete(self, differences: FloatArray) -> tuple[FloatArray, FloatArray, IntArray]:
        """Sums, sizes and last rows of the groups that are complete, in the order in which they became so."""
        order = np.argsort(self.last_rows)
        order = order[self.last_rows[order] < len(differences)]
        numbers, has_score = self.numbers[: len(differences)], ~np.isnan(differences)
        sums = np.bincount(numbers, weights=np.where(has_score, differences, 0.0), minlength=self.count).astype(
            np.float64
        )
        sizes = np.bincount(numbers, weights=has_score, minlength=self.count)
        return sums[order], sizes[order].astype(np.float64), self.last_rows[order]


def _stakes(gains: FloatArray, weights: FloatArray, planned: int, alpha: float) -> FloatArray:
    """The stakes on every group, from the spread of the groups before it; `(groups, stakes)`."""

    def before(values: FloatArray) -> FloatArray:
        return np.cumsum(values) - values

    mean = before(gains) / np.maximum(before(weights), 1e-12)
    squares = before(gains**2) - 2 * mean * before(gains * weights) + mean**2 * before(weights**2)
    variance = (FIRST_VARIANCE + np.maximum(squares, 0.0)) / (np.arange(len(gains)) + 1)
    best_with_last = np.sqrt(-2 * math.log(alpha) / (planned * variance))
    return np.asarray(best_with_last[:, None] * np.array(STAKES))


def _log_wealth(gains: FloatArray, weights: FloatArray, stakes: FloatArray, null: float) -> FloatArray:
    """Log of the money after each group, of him who bets on gains at odds that are fair for a mean of `null`.

    Falls as `null` rises, at a stake that is kept to a share of what one group can cost.
    """
    worst = max(1 + null, 1e-12)
    kept = np.minimum(stakes, LARGEST_STAKE / worst)
    logs = np.log1p(kept * (gains - null * weights)[:, None]).cumsum(axis=0)
    return np.asarray(np.logaddexp.reduce(logs, axis=1)) - math.log(stakes.shape[1])


def _bound(gains: FloatArray, weights: FloatArray, stakes: FloatArray, threshold: float) -> float:
    """The lowest mean, in units of the span, that the bets on gains have not ruled out."""

    def excess(null: float) -> float:
        return float(_log_wealth(gains, weights, stakes, null).max()) - threshold

    if len(gains) == 0 or excess(-1.0) < 0:
        return -1.0
    return float(optimize.brentq(excess, -1.0, 1.0, xtol=1e-7))


def _first(log_wealth: FloatArray, threshold: float) -> int:
    """Index of the first group after which the money reaches the threshold; their number where it never does."""
    reached = log_wealth >= threshold
    return int(reached.argmax()) if reached.any() else len(log_wealth)


def _highest(log_wealth: FloatArray) -> float:
    return math.exp(min(700.0, float(log_wealth.max(initial=0.0))))


def _check_settings(alpha: float, margin: float | None, span: float) -> None:
    if not 0 < alpha < 1:
        raise UserError(f"alpha is {alpha}: give an error rate between 0 and 1, such as 0.05")
    if not 0 < span < math.inf:
        raise UserError(f"span is {span}: give how far two scores can lie apart, such as 1 for shares")
    if margin is not None and not 0 < margin < span:
        raise UserError(
            f"margin is {margin}: a non-inferiority margin is a loss above 0 and below {span}, such as 0.02"
        )


def _differences(baseline: Scores, candidate: Scores, planned: int, span: float) -> FloatArray:
    before, after = np.asarray(baseline, dtype=np.float64), np.asarray(candidate, dtype=np.float64)
    if len(before) != len(after) or len(before) > planned:
        raise UserError(
            f"baseline has {len(before)} scores, candidate {len(after)}, for {planned} groups: give the same rows of "
            "both, and the group of every planned example"
        )
    differences = after - before
    too_far = np.flatnonzero(np.abs(differences) > span * (1 + 1e-9))
    if len(too_far):
        row = int(too_far[0])
        raise UserError(f"the scores of row {row} are {before[row]} and {after[row]}: farther apart than span = {span}")
    return differences
