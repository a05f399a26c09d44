"""What a metric is."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from whetstone.data.example import Example
from whetstone.evaluate.sample import Sample

__all__ = ["Metric", "Unit"]

Unit = Literal["share", "words", "tokens", "score", "nats/token", "bits/byte"]
"""``share``: of 0/1 scores. ``score``: a number from 0 to 1 that is no share of anything."""

Direction = Literal["higher", "lower", "neutral"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """A score for the answers of one arm to one example.

    An example is answered once, or several times (``judge.repeats``); its score is the mean over its answers, unless
    the metric says with ``over_repeats`` what it makes of several.

    Attributes:
        name: As written in the experiment.
        title: As shown to people.
        unit: ``share`` for 0/1 scores, else the unit of the number.
        direction: Which way is better; ``neutral`` metrics describe and cannot be won.
        definition: One sentence that a reader of the report needs.
        score: Of one answer; None where the metric does not apply to the example.
        over_repeats: Of all answers to one example, where that is not the mean of their scores.
        source: Where the definition comes from: paper, documentation; empty where it is obvious.
    """

    name: str
    title: str
    unit: Unit
    direction: Direction
    definition: str
    score: Callable[[Example, Sample], float | None]
    over_repeats: Callable[[Example, Sequence[Sample]], float | None] | None = None
    source: str = ""

    def of(self, example: Example, samples: Sequence[Sample]) -> float | None:
        """The arm's score on one example, from all its answers to it."""
        if self.over_repeats is not None:
            return self.over_repeats(example, samples)
        if len(samples) == 1:
            return self.score(example, samples[0])
        scores = [score for sample in samples if (score := self.score(example, sample)) is not None]
        return sum(scores) / len(scores) if scores else None
