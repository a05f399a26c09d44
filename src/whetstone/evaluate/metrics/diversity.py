"""How varied is an answer in itself, and how varied are several answers to one example?"""

from collections.abc import Callable, Sequence
from itertools import permutations

from whetstone.data.example import Example
from whetstone.evaluate.metrics.metric import Metric
from whetstone.evaluate.metrics.sacre import sentence_bleu
from whetstone.evaluate.sample import Sample

__all__ = ["DISTINCT_1", "DISTINCT_2", "SELF_BLEU"]


def _distinct(n: int) -> Callable[[Example, Sample], float | None]:
    def score(_: Example, sample: Sample) -> float | None:
        words = sample.text.split()
        ngrams = list(zip(*(words[start:] for start in range(n)), strict=False))
        return len(set(ngrams)) / len(ngrams) if ngrams else None

    return score


def _one_answer(_: Example, sample: Sample) -> None:
    """One answer has no other to be like."""


def _self_bleu(_: Example, samples: Sequence[Sample]) -> float | None:
    if len(samples) < 2:
        return None
    texts = [sample.text for sample in samples]
    scores = [1.0 if text == other else sentence_bleu(text, [other]) for text, other in permutations(texts, 2)]
    return sum(scores) / len(scores)


DISTINCT_1 = Metric(
    name="distinct_1",
    title="Distinct words",
    unit="score",
    direction="neutral",
    definition="Different words of the answer, divided by all its words.",
    score=_distinct(1),
    source="Li et al., NAACL 2016, who count over all answers together.",
)
DISTINCT_2 = Metric(
    name="distinct_2",
    title="Distinct word pairs",
    unit="score",
    direction="neutral",
    definition="Different pairs of neighbouring words in the answer, divided by all such pairs.",
    score=_distinct(2),
    source="Li et al., NAACL 2016, who count over all answers together and divide by the words.",
)
SELF_BLEU = Metric(
    name="self_bleu",
    title="Self-BLEU",
    unit="score",
    direction="neutral",
    definition=(
        "Mean BLEU of each of several answers to one example against each other one; the lower, the more they vary."
    ),
    score=_one_answer,
    over_repeats=_self_bleu,
    source="Zhu et al., SIGIR 2018, who take all other texts for references at once.",
)
