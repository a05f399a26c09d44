"""Rates that no count can give, and rates that are not the count printed beside them.

A rate over n items is one of n + 1 numbers. The test is GRIM: Brown and Heathers (2017), Social Psychological and
Personality Science 8, 363-369; rounding and cutting off the last printed digit are both allowed for.
"""

import re
from collections.abc import Iterator
from functools import lru_cache
from math import ceil, floor

from whetstone.audit.finding import Check
from whetstone.audit.material import Material, Passage
from whetstone.audit.numbers import Number
from whetstone.audit.shares import Rate, find_rates
from whetstone.audit.words import HYPOTHETICAL, NOT_A_SHARE, SHARE, says

__all__ = ["check_rates", "is_share", "possible_counts"]

_MOVED = re.compile(r"(?:improv|increas|decreas|reduc|gain|boost|drop)[a-z]{0,5}(?=\s(?:from|to)\s)", re.IGNORECASE)
"""What moves from one rate to another leaves both of them rates."""


def check_rates(material: Material) -> Iterator[Check]:
    """Judges every percentage that says what it is counted over, and every share above 100 %."""
    for passage in material.passages:
        for rate in find_rates(passage):
            if rate.percent is None:
                continue
            if rate.fraction is not None:
                yield _against_count(rate, rate.percent, rate.fraction.k, rate.fraction.n)
            elif rate.n is not None and is_share(rate):
                yield _against_n(rate, rate.percent, rate.n)
            elif rate.percent.value > 100 and not rate.percent.bound and _is_share_here(passage, rate.percent):
                yield _above_all(rate, rate.percent)


def possible_counts(percent: Number, n: int) -> list[int]:
    """The counts out of n that would be printed as a percentage."""
    nearest = percent.value * n / 100
    near = range(max(0, floor(nearest) - 1), min(n, ceil(nearest) + 1) + 1)
    if percent.bound:
        return [k for k in near if percent.admits(100 * k / n, 100 * k / n)] or [min(n, round(nearest))]
    return [k for k in near if abs(100 * k / n - percent.value) < percent.step * (1 + 1e-9)]


def is_share(rate: Rate) -> bool:
    """Whether a percentage counts items that are so, and is not the mean of some score."""
    passage, percent = rate.passage, rate.percent
    if percent is None:
        return True
    near = passage.text[max(0, percent.start - 60) : percent.end + 40]
    if rate.direct:
        label = passage.context if passage.row else ""
        return not says(NOT_A_SHARE, near) and not says(NOT_A_SHARE, label)
    return _is_plain_share(passage.context)


@lru_cache(maxsize=512)
def _is_plain_share(context: str) -> bool:
    context = _MOVED.sub("", context)
    return says(SHARE, context) and not says(NOT_A_SHARE, context)


def _is_share_here(passage: Passage, percent: Number) -> bool:
    near = passage.context if passage.row else passage.text[max(0, percent.start - 40) : percent.end + 25]
    return says(SHARE, near) and not says(NOT_A_SHARE, near) and not says(HYPOTHETICAL, near)


def _against_count(rate: Rate, percent: Number, k: int, n: int) -> Check:
    if k in possible_counts(percent, n):
        return Check(rate.claim)
    exact = 100 * k / n
    return Check.failed(
        "rate-against-count",
        "contradicted",
        rate.claim,
        f"{k}/{n} = {exact:.4g} %, not {percent.text}",
        f"write {k}/{n} = {exact:.3g} %, or the count that gives {percent.text}",
    )


def _against_n(rate: Rate, percent: Number, n: int) -> Check:
    if percent.value <= 100 and possible_counts(percent, n):
        return Check(rate.claim)
    below = min(n, floor(percent.value * n / 100))
    above = min(n, below + 1)
    nearest = " and ".join(f"{k}/{n} = {100 * k / n:.4g} %" for k in sorted({below, above}))
    return Check.failed(
        "impossible-rate",
        "impossible",
        rate.claim,
        f"no whole number of {n} is {percent.text}: the nearest are {nearest}",
        "print the count beside the rate; if it is a mean of scores, say of which, and over how many",
    )


def _above_all(rate: Rate, percent: Number) -> Check:
    return Check.failed(
        "impossible-rate",
        "impossible",
        rate.claim,
        f"a share of what was counted is at most 100 %, not {percent.text}",
        "print the count and the n; if it is a change, say from which value",
    )
