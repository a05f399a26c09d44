"""Rates, and what they are counted over."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from whetstone.audit.columns import row_n
from whetstone.audit.finding import Claim
from whetstone.audit.material import Passage, is_name
from whetstone.audit.numbers import Fraction, Number, find_fractions
from whetstone.audit.pairs import find_changes
from whetstone.audit.words import ITEMS, SETTING, says

__all__ = ["Rate", "find_rates", "stated_n"]


@dataclass(frozen=True, slots=True)
class Rate:
    """A share of a count, in percent or as ``k/n``, and what it is counted over.

    Attributes:
        passage: Where it stands.
        percent: The percentage, if one is printed.
        fraction: The count, if one is printed beside it or alone.
        n: How many were counted; None where the passage does not say.
        direct: Whether n stands at the rate itself ("70 % of 15 prompts"), not only in the same sentence.
    """

    passage: Passage
    percent: Number | None
    fraction: Fraction | None
    n: int | None
    direct: bool

    @property
    def claim(self) -> Claim:
        """The rate as a claim."""
        spans = [(part.start, part.end) for part in (self.percent, self.fraction) if part is not None]
        start, end = min(start for start, _ in spans), max(end for _, end in spans)
        closing = "(" in self.passage.text[start:end] and self.passage.text[end : end + 1] == ")"
        return self.passage.claim(start, end + closing)

    @property
    def share(self) -> float:
        """From 0 to 1."""
        if self.fraction is not None:
            return self.fraction.k / self.fraction.n
        return self.percent.value / 100 if self.percent else 0.0


_COUNT = r"(?P<n>[0-9]{1,3}(?:,[0-9]{3}){1,3}|[0-9]{1,9})"
_COUNTED = rf"{_COUNT}\s(?:[a-z][\w-]{{1,20}}\s){{0,2}}{ITEMS}(?![a-z])"
_N_EQUALS = re.compile(rf"(?<![a-z])n\s?=\s?{_COUNT}(?![0-9]|[.,][0-9])", re.IGNORECASE)
_N_ITEMS = re.compile(rf"(?<![\w.,/$-]){_COUNTED}", re.IGNORECASE)
_OF_N = re.compile(
    rf"\s(?:of|on|over|across|out of)\s(?:the\s|our\s|all\s|these\s|a total of\s)?{_COUNTED}", re.IGNORECASE
)
_BRACKETED_N = re.compile(rf"\s?[(,]\s?n\s?=\s?{_COUNT}(?![0-9]|[.,][0-9])", re.IGNORECASE)
_JOINT = re.compile(
    r"\s*(?:[(=:≈]|, or|, i\.e\.,?|, that is,?|or)\s*"
    rf"|\s(?:[a-z]{{2,12}}\s)?(?:{ITEMS}|correct|passed|solved|right|wins?)\s?[(=:,]\s*",
    re.IGNORECASE,
)
_OF_ONE = re.compile(r"\s(?:of|the|as)\s", re.IGNORECASE)
"""After a part of one thing, which is no count: "1/4 of the weights"."""
_CLOSED = re.compile(rf"\s?\)|\s?(?:{ITEMS}|correct|passed|solved|right)?\s?(?:[).,;|]|$)", re.IGNORECASE)


def find_rates(passage: Passage) -> Iterator[Rate]:
    """Shares of a count: percentages, and counts of counts; settings and changes are neither."""
    fractions = tuple(one for one in find_fractions(passage.text) if not is_name(passage.text, one.start))
    paired = set()
    changes = {change.number.start for change in find_changes(passage)}
    for number in passage.numbers:
        if number.unit != "%" or number.sign or number.start in changes or number.top != number.value:
            continue
        fraction = _fraction_beside(passage.text, number, fractions)
        if fraction is not None:
            paired.add(fraction)
            yield Rate(passage, number, fraction, fraction.n, direct=True)
        elif not _is_setting(passage, number):
            direct = _n_at(passage.text, number)
            n = direct or (row_n(passage.row) if passage.row else None) or stated_n(passage.beside)
            yield Rate(passage, number, None, n, direct=direct is not None)
    for fraction in fractions:
        if fraction not in paired and not _OF_ONE.match(passage.text, fraction.end):
            yield Rate(passage, None, fraction, fraction.n, direct=True)


@lru_cache(maxsize=512)
def stated_n(text: str) -> int | None:
    """The number of items that a text names, if it names one and only one."""
    found = {int(match["n"].replace(",", "")) for match in _N_EQUALS.finditer(text)}
    found = found or {
        int(match["n"].replace(",", "")) for match in _N_ITEMS.finditer(text) if not is_name(text, match.start())
    }
    return found.pop() if len(found) == 1 and 0 not in found else None


def _fraction_beside(text: str, number: Number, fractions: tuple[Fraction, ...]) -> Fraction | None:
    """The count that is printed as the same thing as a percentage: ``7/10 (70 %)``, ``70 % (7/10)``."""
    for fraction in fractions:
        (_, first_end), (second_start, last_end) = sorted([(fraction.start, fraction.end), (number.start, number.end)])
        if _JOINT.fullmatch(text[first_end:second_start]) and _CLOSED.match(text, last_end):
            return fraction
    return None


def _n_at(text: str, number: Number) -> int | None:
    match = _OF_N.match(text, number.end) or _BRACKETED_N.match(text, number.end)
    return int(match["n"].replace(",", "")) or None if match else None


def _is_setting(passage: Passage, number: Number) -> bool:
    around = passage.text[max(0, number.start - 40) : number.end + 40]
    label = passage.context[: len(passage.context) - len(passage.text)] if passage.row else ""
    return says(SETTING, around) or says(SETTING, label)
