"""What a metric of a whole test set is."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from whetstone.data.example import Example
from whetstone.evaluate.metrics.metric import Unit
from whetstone.evaluate.sample import Sample

__all__ = ["CorpusMetric"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CorpusMetric:
    """A score for all answers of one arm together, to be set beside published numbers; higher is better.

    It adds up counts before it divides, so it is not the mean of the scores of single answers, and no paired test is
    made of it.

    Attributes:
        name: As written in the experiment.
        title: As shown to people.
        unit: Of the number; ``score`` is from 0 to 1, where papers often print a hundred times as much.
        definition: One sentence that a reader of the report needs.
        source: Where the definition comes from.
        score: Of an arm's answers, in the order of the examples; examples without references are left out. None where
            nothing is left.
    """

    name: str
    title: str
    unit: Unit
    definition: str
    source: str
    score: Callable[[Sequence[tuple[Example, Sample]]], float | None]
