"""GLEU, the measure of grammatical error correction, of one answer and of a test set.

Notable: it is BLEU's precision with a penalty: words of the source that the reference does not keep are held against an
answer that keeps them. The GLEU of nltk and of Google's translation system (Wu et al. 2016) is another measure that
shares the name; it never looks at the source.

Sources: Napoles, Sakaguchi, Post and Tetreault, "Ground Truth for Grammatical Error Correction Metrics", ACL 2015, and
"GLEU Without Tuning", 2016 (arXiv 1605.02592), whose published script's numbers are reproduced.
"""

import math
import random
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from whetstone.data.example import Example
from whetstone.evaluate.metrics.corpus_metric import CorpusMetric
from whetstone.evaluate.metrics.metric import Metric
from whetstone.evaluate.sample import Sample

__all__ = ["CORPUS_GLEU", "GLEU"]

_ORDER = 4
"""The longest n-grams that are compared."""

_ROUNDS = 500
"""How often the published script draws a reference for each sentence."""

_SEED_STEP = 101
"""Round ``j`` of the published script draws with the seed ``101 j``."""

_Statistics = tuple[int, ...]
"""Words of the answer, words of the reference, then for each order the n-grams that count and those that could."""

_NGrams = Counter[tuple[str, ...]]


def _gleu(example: Example, sample: Sample) -> float | None:
    if not example.references:
        return None
    # A short answer has no 4-grams and a bad one shares none; the script then takes one for zero.
    scores = [_value([count or 1 for count in statistics]) for statistics in _by_reference(example, sample)]
    return sum(scores) / len(scores)


def _corpus_gleu(pairs: Sequence[tuple[Example, Sample]]) -> float | None:
    tables = [_by_reference(example, sample) for example, sample in pairs if example.references]
    if not tables:
        return None
    rows = np.array([statistics for table in tables for statistics in table])
    draws = _draws(tuple(map(len, tables)))
    return float(np.mean([_value(rows[drawn].sum(axis=0).tolist()) for drawn in draws]))


def _by_reference(example: Example, sample: Sample) -> list[_Statistics]:
    """The answer's statistics against each reference."""
    words = sample.text.split()
    said = [_ngrams(words, n) for n in range(1, _ORDER + 1)]
    table = []
    for reference in example.references:
        reference_words, worth = _worth(example.source, reference)
        statistics = [len(words), reference_words]
        for n, ngrams in enumerate(said, 1):
            gains = sum(_gain(count, worth[n - 1].get(ngram, 0)) for ngram, count in ngrams.items())
            statistics += [max(gains, 0), max(len(words) + 1 - n, 0)]
        table.append(tuple(statistics))
    return table


def _gain(said: int, worth: int) -> int:
    return min(said, worth) if worth >= 0 else -min(said, -worth)


@lru_cache(maxsize=4096)
def _worth(source: str, reference: str) -> tuple[int, tuple[dict[tuple[str, ...], int], ...]]:
    """The reference's words, and by order how often each n-gram may count, for the answer or (below zero) against it.

    Against it count the n-grams of the source that the reference has nowhere.
    """
    words, source_words = reference.split(), source.split()
    worth = []
    for n in range(1, _ORDER + 1):
        kept = _ngrams(words, n)
        unwanted = {ngram: -count for ngram, count in _ngrams(source_words, n).items() if ngram not in kept}
        worth.append({**kept, **unwanted})
    return len(words), tuple(worth)


def _ngrams(words: list[str], n: int) -> _NGrams:
    return Counter(tuple(words[start : start + n]) for start in range(len(words) + 1 - n))


def _value(statistics: Sequence[int]) -> float:
    """The geometric mean of the precisions, with BLEU's penalty for answers shorter than their references."""
    if not all(statistics):
        return 0.0
    words, reference_words, *counts = statistics
    log_precision = sum(math.log(kept / all_) for kept, all_ in zip(counts[::2], counts[1::2], strict=True)) / _ORDER
    return math.exp(min(0.0, 1 - reference_words / words) + log_precision)


@lru_cache(maxsize=1)
def _draws(references: tuple[int, ...]) -> NDArray[np.integer]:
    """Which row of statistics each round takes for each example, ``(rounds, examples)``; the same for every arm.

    Args:
        references: How many each example has; their rows lie one after the other.
    """
    first = np.cumsum((0, *references[:-1]))
    if max(references) == 1:
        return first[None]
    draws = np.empty((_ROUNDS, len(references)), dtype=np.min_scalar_type(sum(references)))
    for number, row in enumerate(draws):
        generator = random.Random(number * _SEED_STEP)
        row[:] = first + [generator.randint(0, count - 1) for count in references]
    return draws


_SOURCE = "Napoles et al., ACL 2015, in the revision of 2016 (arXiv 1605.02592); not the GLEU of nltk."

GLEU = Metric(
    name="gleu",
    title="GLEU",
    unit="score",
    direction="higher",
    definition=(
        "Word n-grams up to four shared with a reference, less those of the input that should have gone, as a mean "
        "over the references; a count of zero is taken for one, which flatters answers of a few words."
    ),
    score=_gleu,
    source=_SOURCE,
)
CORPUS_GLEU = CorpusMetric(
    name="corpus_gleu",
    title="GLEU of the test set",
    unit="score",
    definition=(
        "GLEU with its counts summed over the test set, one reference drawn for each example, as a mean over 500 fixed "
        "draws."
    ),
    source=_SOURCE,
    score=_corpus_gleu,
)
