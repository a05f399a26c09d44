"""What a metric is."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from whetstone.data.example import Example
from whetstone.evaluate.sample import Sample

__all__ = ["Metric"]

Direction = Literal["higher", "lower", "neutral"]


@dataclass(frozen=True, slots=True)
class Metric:
    """A score for one answer.

    Attributes:
        name: As written in the experiment.
        title: As shown to people.
        unit: ``share`` for 0/1 scores, else the unit of the number.
        direction: Which way is better; ``neutral`` metrics describe and cannot be won.
        definition: One sentence that a reader of the report needs.
        score: None where the metric does not apply to the example.
    """

    name: str
    title: str
    unit: Literal["share", "words"]
    direction: Direction
    definition: str
    score: Callable[[Example, Sample], float | None]
