"""ROUGE-L: how much of a reference comes in the answer in the same order."""

import re
from collections.abc import Sequence

from rapidfuzz.distance import LCSseq

from whetstone.data.example import Example
from whetstone.evaluate.metrics.metric import Metric
from whetstone.evaluate.sample import Sample

__all__ = ["ROUGE_L"]

_WORD = re.compile(r"[^\W_]+")


def _rouge_l(example: Example, sample: Sample) -> float | None:
    wanted = [words for words in map(_words, example.references) if words]
    said = _words(sample.text)
    return max((_f1(said, words) for words in wanted), default=None)


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())


def _f1(said: Sequence[str], wanted: Sequence[str]) -> float:
    # F1 of the precision LCS / said and the recall LCS / wanted.
    return 2 * LCSseq.similarity(said, wanted) / (len(said) + len(wanted))


ROUGE_L = Metric(
    name="rouge_l",
    title="ROUGE-L",
    unit="score",
    direction="higher",
    definition=(
        "F1 of the longest common subsequence of words (letters and digits in lower case) with the best reference; "
        "without stemming."
    ),
    score=_rouge_l,
    source="Lin, 'ROUGE: A Package for Automatic Evaluation of Summaries', 2004, with equal weights.",
)
