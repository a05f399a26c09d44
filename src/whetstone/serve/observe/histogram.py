"""Durations counted in buckets, many at a time."""

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from itertools import accumulate

__all__ = ["Histogram"]


class Histogram:
    """How many durations were at most so long, and their sum.

    The histogram of prometheus_client takes a lock and searches its buckets from the left for each value, which for the
    pauses between a hundred tokens costs more than all the rest that is noted of an answer. This one is used in one
    event loop and needs no lock.

    Attributes:
        bounds: Upper bounds of the buckets in seconds, ascending; one without a bound follows them.
        total: Sum of what was counted.
    """

    __slots__ = ("_counts", "bounds", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = tuple(bounds)
        self.total = 0.0
        self._counts = [0] * (len(self.bounds) + 1)

    def add(self, value: float) -> None:
        """Counts one; a bound belongs to the bucket below it."""
        self._counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def add_all(self, values: Iterable[float]) -> None:
        """Counts many."""
        bounds, counts, total = self.bounds, self._counts, self.total
        for value in values:
            counts[bisect_left(bounds, value)] += 1
            total += value
        self.total = total

    def cumulative(self) -> list[tuple[str, float]]:
        """Each bound as Prometheus writes it, with how many values were at most that."""
        names = [*(repr(float(bound)) for bound in self.bounds), "+Inf"]
        return list(zip(names, map(float, accumulate(self._counts)), strict=True))
