"""Every honest way to say, in percent or as a ratio, how one value became another."""

import math
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from itertools import combinations

from whetstone.audit.numbers import Number

__all__ = ["Readings", "readings"]

_LEAST = 1e-12
"""In the place of zero and of what rounds to less, by which nothing can be divided."""

_MOST_NUMBERS = 40
"""Of one section; with more of them, some pair gives any percentage."""


_SHARES = ("after / before, %", "before / after, %")


def readings(before: Number, after: Number) -> dict[str, tuple[float, float]]:
    """The least and the greatest value of each reading that the printed digits allow.

    Percentages are relative to either value, or a share of one in the other; of two percentages their difference is a
    reading too. "2x faster" is read as twice and as thrice the speed: both are in use.

    Args:
        before: One value.
        after: Another of the same unit.

    Returns:
        ``(low, high)`` by words that say how it is computed; percentages end with ``%``, ratios with ``x``.
    """
    (a, b), (c, d) = (before.low, before.high), (after.low, after.high)
    a, b, c, d = (max(end, _LEAST) for end in (a, b, c, d))
    found: dict[str, tuple[float, float]] = {}
    for name, (low, high) in (("after / before", (c / b, d / a)), ("before / after", (a / d, b / c))):
        near, far = _distances(low - 1, high - 1)
        found[f"{name}, x"] = (low, high)
        found[f"{name} - 1, x"] = (near, far)
        found[f"{name}, %"] = (100 * low, 100 * high)
        found[f"{name} - 1, %"] = (100 * near, 100 * far)
    if before.unit == after.unit == "%":
        found["difference, %"] = _distances(c - b, d - a)
    return found


def _distances(low: float, high: float) -> tuple[float, float]:
    """The least and the greatest size of what lies from ``low`` to ``high``."""
    far = max(abs(low), abs(high))
    return (0.0, far) if low <= 0 <= high else (min(abs(low), abs(high)), far)


class Readings:
    """What any of many pairs of values would be said to be; asked in logarithmic time."""

    def __init__(self, pairs: Iterable[tuple[Number, Number]]) -> None:
        spans: dict[str, list[tuple[float, float]]] = {"%": [], "x": []}
        for before, after in pairs:
            if before.value > 0 and after.value > 0 and before.value != after.value:
                for name, span in readings(before, after).items():
                    # A share of one value in another is no change.
                    if name not in _SHARES:
                        spans[name[-1]].append(span)
        self._merged = {unit: _merge(found) for unit, found in spans.items()}

    @classmethod
    def among(cls, numbers: Sequence[Number]) -> "Readings":
        """Of every two numbers that have a unit in common."""
        few = numbers[:_MOST_NUMBERS]
        return cls((one, other) for one, other in combinations(few, 2) if one.unit == other.unit)

    def give(self, number: Number) -> bool:
        """Whether some pair gives a change as it was printed."""
        merged = self._merged.get(number.unit, [])
        at = bisect_right(merged, (number.most, math.inf))
        return at > 0 and number.admits(*merged[at - 1])


def _merge(spans: list[tuple[float, float]]) -> list[tuple[float, float]]:
    merged: list[tuple[float, float]] = []
    for low, high in sorted(spans):
        if merged and low <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], high))
        else:
            merged.append((low, high))
    return merged
