"""Statistical significance without a test, and p-values that are no probabilities."""

import re
from collections.abc import Iterator

from whetstone.audit.finding import Check, Claim
from whetstone.audit.markdown import Section, Sentence
from whetstone.audit.material import Material
from whetstone.audit.words import CITED, HYPOTHETICAL, INTERVAL, says

__all__ = ["check_significance"]

_CLAIMED = re.compile(r"statistically significant(?:ly)?", re.IGNORECASE)
_DENIED = re.compile(r"(?<![a-z])(?:not?|without|n't|whether|cannot|never|lacks?|un\w{0,12})(?![a-z])", re.IGNORECASE)
_TESTED = re.compile(
    r"\b(?:t-test|McNemar|Wilcoxon|permutation|bootstrap|chi-?squared?|ANOVA|Mann-?Whitney|Fisher|sign test|z-test"
    r"|binomial)\b",
    re.IGNORECASE,
)
_P_VALUE = re.compile(
    r"(?<![\w.])p(?:-value)?\s?(?:=|:|of|is)\s?(?P<p>-?[0-9]{1,9}(?:\.[0-9]{1,12})?)"
    r"(?![\w%×*-]|[.,][0-9]|\s?[×*])"
)

_STATISTICS = re.compile(r"p-value|significan|statistic|\btests?\b|\bnull\b|\bhypothes", re.IGNORECASE)
"""Without these, p may be a power or a norm."""


def check_significance(material: Material) -> Iterator[Check]:
    """Judges the words "statistically significant", and every p-value."""
    is_tested = any(_shows_a_test(section) for section in material.report.sections)
    for section in material.report.sections:
        for sentence in section.sentences:
            match = _CLAIMED.search(sentence.text)
            if match is not None and _is_own(sentence, section):
                claim = Claim(sentence.line_at(match.start()), match[0], sentence.text[:160])
                yield Check(claim) if is_tested else _untested(claim)
    for passage in material.passages:
        if not _STATISTICS.search(passage.context) and not _TESTED.search(passage.context):
            continue
        for match in _P_VALUE.finditer(passage.text):
            claim = passage.claim(match.start(), match.end())
            yield Check(claim) if 0 <= float(match["p"]) <= 1 else _no_probability(claim, match["p"])


def _shows_a_test(section: Section) -> bool:
    texts = [sentence.text for sentence in section.sentences]
    texts += [row.text for table in section.tables for row in table.rows]
    return any(_TESTED.search(text) or says(INTERVAL, text) for text in texts)


def _is_own(sentence: Sentence, section: Section) -> bool:
    text = sentence.text
    return not (
        _DENIED.search(text) or says(CITED, text) or says(HYPOTHETICAL, text) or says(HYPOTHETICAL, section.title)
    )


def _untested(claim: Claim) -> Check:
    return Check.failed(
        "untested-significance",
        "unsupported",
        claim,
        "the report names no test, no p-value and no interval",
        "name the test, the n and the p-value, or leave the words out",
    )


def _no_probability(claim: Claim, p: str) -> Check:
    return Check.failed(
        "untested-significance",
        "impossible",
        claim,
        f"a probability lies from 0 to 1, and {p} does not",
        "give the p-value",
    )
