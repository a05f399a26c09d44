"""How many characters lie between the answer and a right one."""

from rapidfuzz.distance import Levenshtein

from whetstone.data.answer import normalise
from whetstone.data.example import Example
from whetstone.evaluate.metrics.metric import Metric
from whetstone.evaluate.sample import Sample

__all__ = ["EDIT_SIMILARITY"]


def _edit_similarity(example: Example, sample: Sample) -> float | None:
    answer = normalise(sample.text)
    similarities = (Levenshtein.normalized_similarity(answer, normalise(text)) for text in example.references)
    return max(similarities, default=None)


EDIT_SIMILARITY = Metric(
    name="edit_similarity",
    title="Edit similarity",
    unit="score",
    direction="higher",
    definition=(
        "One less the share of characters to insert, delete or replace (of the longer text) to make the best reference "
        "of the answer, white space apart."
    ),
    score=_edit_similarity,
    source="Levenshtein 1966, normalised by the longer text, as rapidfuzz computes it.",
)
