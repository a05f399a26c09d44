"""Is the answer right, to the letter or nearly?"""

from functools import lru_cache

import regex

from whetstone.data.answer import matches, normalise
from whetstone.data.example import Example
from whetstone.evaluate.metrics.metric import Metric
from whetstone.evaluate.sample import Sample

__all__ = ["EXACT_MATCH", "EXACT_MATCH_LENIENT"]

_PUNCTUATION = regex.compile(r"(?![#%&@/\\])\p{P}(?!(?<=[-.,:])\d)")
"""What is overlooked. Signs that make another thing of a word or number stay: C#, 5%, 1.5, -3, 10:30, and/or."""


def _exact_match(example: Example, sample: Sample) -> float | None:
    if not example.references:
        return None
    return float(matches(sample.text, example.references))


def _exact_match_lenient(example: Example, sample: Sample) -> float | None:
    if not example.references:
        return None
    return float(_lenient(sample.text) in map(_lenient, example.references))


@lru_cache(maxsize=16384)
def _lenient(text: str) -> str:
    return normalise(_PUNCTUATION.sub("", text.casefold())) or normalise(text)


EXACT_MATCH = Metric(
    name="exact_match",
    title="Exact match",
    unit="share",
    direction="higher",
    definition="The answer equals one of the references (white space apart).",
    score=_exact_match,
)
EXACT_MATCH_LENIENT = Metric(
    name="exact_match_lenient",
    title="Exact match, leniently",
    unit="share",
    direction="higher",
    definition=(
        "The answer equals one of the references, case, punctuation and white space apart; # % & @ / \\ count, and so "
        "does a point, comma, colon or hyphen before a digit."
    ),
    score=_exact_match_lenient,
    source="After the normalisation of SQuAD (Rajpurkar et al. 2016), which also drops articles.",
)
