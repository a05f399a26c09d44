"""Numbers in a text, each with its unit, and with how exactly it was printed."""

import math
import re
from dataclasses import dataclass
from typing import Literal

__all__ = ["Fraction", "Number", "Unit", "find_fractions", "find_numbers"]

Unit = Literal["", "%", "points", "x", "s", "/s", "bytes", "$"]
"""Times are in seconds and sizes in bytes, so that 2 min and 90 s can be compared."""

Bound = Literal["", "about", "least", "most"]

_ROUGHLY = 0.05
"""How far, as a share, a number may be from what is called "about" that number."""

_DIGITS = r"(?:[0-9]{1,3}(?:,[0-9]{3}){1,5}(?:\.[0-9]{1,9})?|[0-9]{1,15}(?:\.[0-9]{1,15})?|\.[0-9]{1,15})"
_INTEGER = r"(?:[0-9]{1,3}(?:,[0-9]{3}){1,4}|[0-9]{1,9})"
_ABOUT = r"~|≈|about |around |approximately |approx\. ?|roughly |nearly |almost |circa |ca\. "
_LEAST = r">=?|≥|over |above |more than |at least |beyond "
_MOST = r"<=?|≤|under |below |less than |up to |at most |within "
_THINGS = (
    "tok|token|tokens|sample|samples|it|iter|iters|iteration|iterations|step|steps|req|request|requests|example|examples"
    "|image|images|sentence|sentences|word|words|query|queries|batch|batches"
)
_UNITS: tuple[tuple[str, Unit, float], ...] = (
    (rf"(?:{_THINGS})\s?(?:/|per\s)\s?(?:s|sec|second)|t/s|qps|rps|tps", "/s", 1.0),
    (r"percentage[\s-]points?|points?|pp|pts", "points", 1.0),
    (r"%|percent|per cent", "%", 1.0),
    (r"[x×](?!\s?[0-9])|-?fold|times", "x", 1.0),
    (r"ns|nanoseconds?", "s", 1e-9),
    (r"[µμ]s|us|microseconds?", "s", 1e-6),
    (r"ms|milliseconds?", "s", 1e-3),
    (r"seconds?|secs?|s", "s", 1.0),
    (r"minutes?|mins?", "s", 60.0),
    (r"hours?|hrs?|h", "s", 3600.0),
    (r"days?", "s", 86400.0),
    (r"[kK]i?B", "bytes", 1e3),
    (r"Mi?B", "bytes", 1e6),
    (r"Gi?B", "bytes", 1e9),
    (r"Ti?B", "bytes", 1e12),
)
_SCALES = {"k": 1e3, "K": 1e3, "M": 1e6, "B": 1e9, "T": 1e12}
_SCALE_WORDS = {"thousand": 1e3, "million": 1e6, "billion": 1e9, "trillion": 1e12}
_ALTERNATIVES = "|".join(f"(?P<u{at}>{pattern})" for at, (pattern, _, _) in enumerate(_UNITS))
_NUMBER = re.compile(
    rf"(?:(?:(?P<about>{_ABOUT})|(?P<least>{_LEAST})|(?P<most>{_MOST}))\s?)?"
    r"(?:(?<![\w)\]%.,/:@#])(?P<sign>[+±-])|(?<![\w.,/@#^-])(?<![0-9]:)|(?<=→)|(?<=\|))"
    r"(?P<money>[$€£])?"
    rf"(?P<first>{_DIGITS})(?P<exponent>e[+-]?[0-9]{{1,2}}\b)?"
    rf"(?:\s?%?\s?[-–—]\s?(?P<top>{_DIGITS}))?"
    r"(?:(?P<scale>[kKMBT])(?![\w])|\s(?P<word>thousand|million|billion|trillion)\b)?"
    rf"(?:[\s-]?(?:{_ALTERNATIVES})(?![\w]))?"
    r"(?P<more>\+)?"
    r"(?![\w@^]|[.,:/][0-9]|-[0-9])",
)
_FRACTION = re.compile(
    rf"(?<![\w./,:@#$-])(?P<k>{_INTEGER})(?:\s?/\s?|\s(?:out\s)?of\s(?:the\s|all\s|our\s|these\s)?)"
    rf"(?P<n>{_INTEGER})(?![\w/%@^]|[.,:-][0-9]|\s?(?:%|/))"
)


@dataclass(frozen=True, slots=True)
class Number:
    """A number as it was printed.

    Attributes:
        text: The number and its unit.
        start: Where it begins in its text.
        end: Where it ends.
        value: In the base of its unit.
        top: The upper end of a range ("20-30 %"), otherwise the value.
        step: What one more in its last printed digit would add.
        unit: What it measures.
        sign: As printed.
        bound: What the words before it make of it.
    """

    text: str
    start: int
    end: int
    value: float
    top: float
    step: float
    unit: Unit
    sign: str
    bound: Bound

    @property
    def low(self) -> float:
        """The least that would have been printed so."""
        return min(self.value, self.top) * (1 - self._slack) - self._half

    @property
    def high(self) -> float:
        """The most that would have been printed so."""
        return max(self.value, self.top) * (1 + self._slack) + self._half

    @property
    def is_integer(self) -> bool:
        """Whether it is a count: a whole number without a unit, printed in full."""
        return self.unit == "" and self.value == int(self.value) and self.step == 1 and self.top == self.value

    def admits(self, low: float, high: float) -> bool:
        """Whether somebody honest who found a value from ``low`` to ``high`` could have printed this.

        Rounding up or down and cutting digits off are all honest; "over 3" admits all above, "up to 3" all below.
        """
        least = -math.inf if self.bound == "most" else self.low
        tiny = 1e-9 * max(1.0, abs(self.value))
        return low <= self.most + tiny and high >= least - tiny

    @property
    def most(self) -> float:
        """The most that could have been printed so, cutting digits off included."""
        return math.inf if self.bound == "least" else self.high + self._half

    @property
    def _half(self) -> float:
        """Half of what one more in the last digit adds; counts are exact."""
        return 0.0 if self.is_integer else self.step / 2

    @property
    def _slack(self) -> float:
        return _ROUGHLY if self.bound else 0.0


@dataclass(frozen=True, slots=True)
class Fraction:
    """``k/n``, ``k of n`` or ``k out of n`` in whole numbers, ``k`` not above ``n``."""

    k: int
    n: int
    start: int
    end: int


def find_numbers(text: str) -> tuple[Number, ...]:
    """All numbers of a text that stand alone: none of versions, dates, names or fractions."""
    found: list[Number] = []
    for match in _NUMBER.finditer(text):
        number = _number(match)
        before = found[-1] if found else None
        if before and before.unit == number.unit == "s" and not text[before.end : number.start].strip():
            found[-1] = _compound(before, number, text)
        else:
            found.append(number)
    return tuple(found)


def find_fractions(text: str) -> tuple[Fraction, ...]:
    """All shares of a count."""
    found = []
    for match in _FRACTION.finditer(text):
        k, n = (int(match[name].replace(",", "")) for name in ("k", "n"))
        if 0 <= k <= n and n > 0 and (k, n) != (24, 7):
            found.append(Fraction(k, n, match.start(), match.end()))
    return tuple(found)


def _number(match: re.Match[str]) -> Number:
    unit, factor = _unit(match)
    factor *= _SCALES.get(match["scale"] or "", 1.0) * _SCALE_WORDS.get(match["word"] or "", 1.0)
    digits = match["first"].replace(",", "")
    exponent = match["exponent"] or ""
    value = float(digits + exponent) * factor
    top = float(match["top"].replace(",", "")) * factor if match["top"] else value
    decimals = len(digits.partition(".")[2])
    step = float(f"1e-{decimals}") * float("1" + exponent) * factor
    bound: Bound = (
        "about" if match["about"] else "least" if match["least"] or match["more"] else "most" if match["most"] else ""
    )
    start = match.start("sign") if match["sign"] else match.start("first")
    text = match.string[start : match.end()]
    return Number(text, start, match.end(), value, top, step, unit, match["sign"] or "", bound)


def _unit(match: re.Match[str]) -> tuple[Unit, float]:
    for at, (_, unit, factor) in enumerate(_UNITS):
        if match[f"u{at}"]:
            return unit, factor
    return ("$", 1.0) if match["money"] else ("", 1.0)


def _compound(large: Number, small: Number, text: str) -> Number:
    """``4 min 05 s`` is one time."""
    value = large.value + small.value
    shown = text[large.start : small.end]
    return Number(shown, large.start, small.end, value, value, small.step, "s", large.sign, large.bound)
