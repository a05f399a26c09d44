"""One quantity with two values: a summary that says what no other part of the report says.

Only summaries are compared, because elsewhere the same words often mean another model, data set or run; and only with a
report that gives the measure somewhere else, in numbers of which none is the summary's.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from whetstone.audit.finding import Check, Claim
from whetstone.audit.markdown import Section
from whetstone.audit.material import Material
from whetstone.audit.numbers import Number
from whetstone.audit.pairs import find_changes
from whetstone.audit.words import CITED, HYPOTHETICAL, says

__all__ = ["check_values"]

_SUMMARY = re.compile(
    r"summary|abstract|overview|tl;?dr|highlights|key (?:findings|results|numbers)|at a glance|conclusions?"
    r"|introduction",
    re.IGNORECASE,
)
_MEASURES = {
    "exact match": r"exact[\s-]match(?:es)?(?:\srate|\sscore)?",
    "accuracy": r"(?:test\s|overall\s)?accuracy",
    "F1": r"f1(?:[\s-]score)?",
    "BLEU": r"bleu(?:-4)?",
    "perplexity": r"perplexity",
    "training time": r"(?:total\s)?training time",
    "final loss": r"final (?:training\s|validation\s)?loss",
    "learning rate": r"learning rate",
    "batch size": r"(?:effective\s)?batch size",
    "training examples": r"training (?:examples|samples|pairs|sentences|rows)",
    "test examples": r"test (?:examples|samples|pairs|sentences|questions|prompts)",
    "tokens per second": r"tokens? (?:per|/) second",
    "peak memory": r"peak (?:gpu\s)?memory",
}
_PATTERNS = {
    name: (
        re.compile(rf"(?<![a-z]){words}\s?(?:of|is|was|:|=|\||reached|at|reaches)?\s?[~≈]?\s?$", re.IGNORECASE),
        re.compile(rf"\s(?:test\s)?{words}(?![a-z])", re.IGNORECASE),
        re.compile(rf"(?<![a-z]){words}(?![a-z])", re.IGNORECASE),
    )
    for name, words in _MEASURES.items()
}
_ANY = re.compile("|".join(_MEASURES.values()), re.IGNORECASE)
_MOST_VALUES = 200
"""Of one measure; with more, a report is a log."""


@dataclass(frozen=True, slots=True)
class _Stated:
    name: str
    number: Number
    claim: Claim
    section: Section


def check_values(material: Material) -> Iterator[Check]:
    """Judges what summaries say of a measure."""
    stated = list(_stated(material))
    elsewhere: dict[str, list[_Stated]] = {}
    for one in stated:
        if not _is_summary(one.section):
            elsewhere.setdefault(one.name, []).append(one)
    for one in stated:
        if not _is_summary(one.section) or len(elsewhere.get(one.name, [])) > _MOST_VALUES:
            continue
        others = [other for other in elsewhere.get(one.name, []) if other.number.unit == one.number.unit]
        if not others:
            continue
        if any(_same(one.number, other.number) for other in others):
            yield Check(one.claim)
        else:
            yield _differs(one, others)


def _is_summary(section: Section) -> bool:
    return bool(section.titles) and _SUMMARY.search(section.titles[-1]) is not None


def _stated(material: Material) -> Iterator[_Stated]:
    for passage in material.passages:
        if not _ANY.search(passage.context) or says(HYPOTHETICAL, passage.context) or says(CITED, passage.context):
            continue
        changes = {change.number.start for change in find_changes(passage)}
        for number in passage.numbers:
            if number.start in changes or number.sign or number.unit == "x":
                continue
            before = passage.text[max(0, number.start - 50) : number.start]
            for name, (ahead, behind, heading) in _PATTERNS.items():
                in_table = passage.row is not None and heading.search(passage.context[: -len(passage.text)] or " ")
                if in_table or ahead.search(before) or behind.match(passage.text, number.end):
                    yield _Stated(name, number, passage.claim(number.start, number.end), passage.section)
                    break


def _same(one: Number, other: Number) -> bool:
    return one.admits(other.low, other.high) or other.admits(one.low, one.high)


def _differs(one: _Stated, others: list[_Stated]) -> Check:
    shown = ", ".join(f"{other.number.text} (line {other.claim.line})" for other in others[:3])
    more = f" and {len(others) - 3} more" if len(others) > 3 else ""
    return Check.failed(
        "two-values",
        "contradicted",
        one.claim,
        f"{one.name}: {one.number.text} here; elsewhere {shown}{more}",
        "give the same value everywhere, or say what each was measured on",
    )
