"""BLEU and chrF as sacrebleu computes them, of one answer and of a test set.

Notable: every number is sacrebleu's own with its defaults, divided by 100 (and a rounding error above 1 cut off), so
that it can be set beside published ones. The signatures are in docs/metrics.md.
"""

from collections.abc import Sequence
from functools import cache
from itertools import zip_longest
from typing import Protocol

from whetstone.data.example import Example
from whetstone.evaluate.metrics.corpus_metric import CorpusMetric
from whetstone.evaluate.metrics.metric import Metric
from whetstone.evaluate.sample import Sample

__all__ = ["BLEU", "CHRF", "CORPUS_BLEU", "CORPUS_CHRF", "sentence_bleu"]


class _Score(Protocol):
    score: float


class _Scorer(Protocol):
    def sentence_score(self, hypothesis: str, references: Sequence[str]) -> _Score: ...

    def corpus_score(self, hypotheses: Sequence[str], references: Sequence[Sequence[str | None]]) -> _Score: ...


def sentence_bleu(text: str, references: Sequence[str]) -> float:
    """BLEU of one text against all references together, from 0 to 1; sacrebleu's ``sentence_bleu``."""
    return _unit(_sentence_bleu_scorer().sentence_score(text, references))


def _bleu(example: Example, sample: Sample) -> float | None:
    return sentence_bleu(sample.text, example.references) if example.references else None


def _chrf(example: Example, sample: Sample) -> float | None:
    if not example.references:
        return None
    return _unit(_chrf_scorer().sentence_score(sample.text, example.references))


def _corpus_bleu(pairs: Sequence[tuple[Example, Sample]]) -> float | None:
    return _corpus(_corpus_bleu_scorer(), pairs)


def _corpus_chrf(pairs: Sequence[tuple[Example, Sample]]) -> float | None:
    return _corpus(_chrf_scorer(), pairs)


def _corpus(scorer: _Scorer, pairs: Sequence[tuple[Example, Sample]]) -> float | None:
    judged = [(example.references, sample.text) for example, sample in pairs if example.references]
    if not judged:
        return None
    # sacrebleu wants the first references of all, then the second ones; None stands where an example has no more.
    references = list(zip_longest(*(references for references, _ in judged)))
    return _unit(scorer.corpus_score([text for _, text in judged], references))


def _unit(found: _Score) -> float:
    return min(found.score / 100, 1.0)


# sacrebleu is imported when a score is first asked for: it takes a tenth of a second that few commands need to wait.


@cache
def _sentence_bleu_scorer() -> _Scorer:
    from sacrebleu.metrics import BLEU

    scorer: _Scorer = BLEU(effective_order=True)
    return scorer


@cache
def _corpus_bleu_scorer() -> _Scorer:
    from sacrebleu.metrics import BLEU

    scorer: _Scorer = BLEU()
    return scorer


@cache
def _chrf_scorer() -> _Scorer:
    from sacrebleu.metrics import CHRF

    scorer: _Scorer = CHRF()
    return scorer


_BLEU_SOURCE = "Papineni et al., ACL 2002, as sacrebleu computes it (Post, WMT 2018)."
_CHRF_SOURCE = "Popović, WMT 2015, as sacrebleu computes it (Post, WMT 2018)."

BLEU = Metric(
    name="bleu",
    title="BLEU",
    unit="score",
    direction="higher",
    definition=(
        "Word n-grams up to four (tokenizer 13a) shared with the references together, exponentially smoothed, with a "
        "penalty for short answers."
    ),
    score=_bleu,
    source=_BLEU_SOURCE,
)
CHRF = Metric(
    name="chrf",
    title="chrF",
    unit="score",
    direction="higher",
    definition="F2 of the character n-grams up to six that are shared with the best reference, white space apart.",
    score=_chrf,
    source=_CHRF_SOURCE,
)
CORPUS_BLEU = CorpusMetric(
    name="corpus_bleu",
    title="BLEU of the test set",
    unit="score",
    definition="BLEU (n-grams up to four, tokenizer 13a) with its counts summed over the test set.",
    source=_BLEU_SOURCE,
    score=_corpus_bleu,
)
CORPUS_CHRF = CorpusMetric(
    name="corpus_chrf",
    title="chrF of the test set",
    unit="score",
    definition="chrF (F2, character n-grams up to six) with its counts summed over the test set.",
    source=_CHRF_SOURCE,
    score=_corpus_chrf,
)
