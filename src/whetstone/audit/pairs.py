"""Two values of one measure, and claims that something changed, as sentences say them."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from whetstone.audit.material import Passage, is_name
from whetstone.audit.numbers import Number

__all__ = ["Change", "Direction", "Joint", "Pair", "find_changes", "find_pairs", "joined", "same_kind"]

Direction = Literal["faster", "slower", "up", "down", "better", "worse", ""]

_WIDEST_JOINT = 60


@dataclass(frozen=True, slots=True)
class Pair:
    """Two values of one measure; ``ordered`` where the words say which came first."""

    before: Number
    after: Number
    start: int
    end: int
    ordered: bool


@dataclass(frozen=True, slots=True)
class Joint:
    """How two things are joined, and where the words that join them begin."""

    order: Literal["ordered", "reversed", "unordered"]
    start: int


@dataclass(frozen=True, slots=True)
class Change:
    """A claim that something became so much more, less, better, worse, faster or slower."""

    number: Number
    direction: Direction
    start: int
    end: int


_DIRECTIONS: tuple[tuple[Direction, str], ...] = (
    ("faster", r"faster|quicker|speed-?\s?ups?|accelerat\w{0,4}"),
    ("slower", r"slower|slow-?downs?"),
    ("down", r"reductions?|decreases?|drops?|lower|less|fewer|smaller|shorter|cheaper|savings?|saved|cut"),
    ("up", r"increases?|higher|more|larger|longer|greater|rise|growth|gains?|boosts?|uplift"),
    ("better", r"improvements?|better|improved"),
    ("worse", r"worse|regressions?|degradations?"),
)
_VERBS: tuple[tuple[Direction, str], ...] = (
    ("faster", r"sped up|speeds? up|accelerat(?:ed|es)"),
    ("slower", r"slow(?:ed|s) down"),
    ("down", r"reduc(?:ed|es|ing)|decreas(?:ed|es|ing)|dropped|drops|fell|falls|lower(?:ed|s)|cuts?|shr(?:ank|unk)"),
    ("up", r"increas(?:ed|es|ing)|rose|rises|grew|grown|rais(?:ed|es)|gain(?:ed|s)"),
    ("better", r"improv(?:ed|es|ing)|boost(?:ed|s|ing)|outperform(?:ed|s|ing)|enhanc(?:ed|es|ing)|beats?"),
    ("worse", r"degrad(?:ed|es|ing)|worsen(?:ed|s)|regress(?:ed|es)"),
)
_BETWEEN = (
    r"(?:relative|absolute|overall|average|total|inference|training|latency|memory|throughput|speed|performance|quality"
    r"|cost|time|parameter|token|size|accuracy|response|wall-clock|further|end-to-end|in|of|a|the|trainable|vram|gpu)"
)
_AFTER = re.compile(
    rf"[\s-]{{1,2}}(?:{_BETWEEN}[\s-]){{0,3}}(?:"
    + "|".join(f"(?P<{name}>{words})" for name, words in _DIRECTIONS)
    + r")(?![a-z])",
    re.IGNORECASE,
)
_BEFORE = re.compile(
    r"(?<![a-z])(?:" + "|".join(f"(?P<{name}>{words})" for name, words in _VERBS) + r")"
    r"(?![a-z])(?P<object>[^.;:|()0-9]{0,60}?)\sby\s(?:an?\s|some\s|about\s|around\s|approximately\s|roughly\s|over\s"
    r"|more than\s|nearly\s|up to\s|~|≈|>){0,2}$",
    re.IGNORECASE,
)
_OBJECT_DIRECTION = re.compile(r"(?:speed|throughput)", re.IGNORECASE)
_FROM = re.compile(r"from\s(?:an?\s|about\s|around\s|~|≈|[a-z]{1,12}\s(?:of\s)?){0,2}$", re.IGNORECASE)
_TO = re.compile(r"\s*(?:[a-z/]{1,12}\s)?(?:→|to)\s*(?:an?\s|about\s|around\s|just\s|only\s|~|≈)?", re.IGNORECASE)
_ARROW = re.compile(r"\s*(?:[a-zA-Z/]{1,12}\s)?→\s*(?:[a-zA-Z-]{1,12}:?\s)?(?:~|≈)?")
_AGAINST = re.compile(
    r",?\s*(?:[a-z/]{1,12}\s)?"
    r"\(?(?:vs\.?|versus|against|compared (?:to|with)|instead of|rather than|down from|up from|was)\s"
    r"(?:an?\s|the\s|about\s|~|≈|[a-z]{1,10}\s(?:of\s)?){0,3}",
    re.IGNORECASE,
)
_REVERSED = re.compile(r"down from|up from|instead of|rather than|\(was", re.IGNORECASE)


def find_changes(passage: Passage) -> Iterator[Change]:
    """Numbers that a word beside them makes a change."""
    text = passage.text
    for number in passage.numbers:
        if number.unit not in ("%", "x"):
            continue
        after = _AFTER.match(text, number.end)
        before = _BEFORE.search(text, max(0, number.start - 100), number.start)
        if after is not None:
            yield Change(number, _named(after), number.start, after.end())
        elif before is not None:
            direction: Direction = _named(before)
            if _OBJECT_DIRECTION.search(before["object"] or "") and direction in ("up", "better"):
                direction = "faster"
            yield Change(number, direction, before.start(), number.end)
        elif number.sign and number.unit == "%" and number.sign != "±":
            yield Change(number, "up" if number.sign == "+" else "down", number.start, number.end)


def find_pairs(passage: Passage) -> Iterator[Pair]:
    """Two neighbouring numbers of a kind that words or an arrow join."""
    text = passage.text
    for first, second in pairwise(passage.numbers):
        if first.unit not in (second.unit, ""):
            continue
        if first.unit == "" and is_name(text, first.start):
            continue
        joint = joined(text, first.start, first.end, second.start)
        if joint is not None:
            # "from 120 to 95 s": the unit is said once.
            named = first if same_kind(first, second) else _with_unit(first, second)
            before, after = (second, named) if joint.order == "reversed" else (named, second)
            yield Pair(before, after, joint.start, second.end, joint.order != "unordered")


def joined(text: str, start: int, end: int, next_start: int) -> Joint | None:
    """How what stands from ``start`` to ``end`` is joined to what begins at ``next_start``."""
    between = text[end:next_start]
    if len(between) > _WIDEST_JOINT:
        return None
    opening = _FROM.search(text, max(0, start - _WIDEST_JOINT), start)
    if _ARROW.fullmatch(between) or (opening and _TO.fullmatch(between)):
        return Joint("ordered", opening.start() if opening else start)
    if _AGAINST.fullmatch(between):
        return Joint("reversed" if _REVERSED.search(between) else "unordered", start)
    return None


def same_kind(first: Number, second: Number) -> bool:
    """Whether one can be divided by the other."""
    return first.unit == second.unit


def _with_unit(number: Number, named: Number) -> Number:
    """A number without a unit, given that of another which is printed once for both."""
    factor = _factor(named)
    value, step = number.value * factor, number.step * factor
    return Number(number.text, number.start, number.end, value, value, step, named.unit, number.sign, number.bound)


def _factor(number: Number) -> float:
    digits = re.match(r"[+-]?\s?([0-9,.]+)", number.text)
    printed = float(digits[1].replace(",", "").rstrip(".") or 0) if digits else 0.0
    return number.value / printed if printed else 1.0


def _named(match: re.Match[str]) -> Direction:
    names: tuple[Direction, ...] = ("faster", "slower", "up", "down", "better", "worse")
    return next((name for name in names if match[name]), "")
