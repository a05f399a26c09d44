"""Is the answer right, and if the input was right already, was it left alone?"""

from whetstone.data.answer import matches, normalise
from whetstone.data.example import Example
from whetstone.evaluate.metrics.metric import Metric
from whetstone.evaluate.sample import Sample

__all__ = ["COPY_RATE", "EXACT_MATCH", "OVER_EDIT"]


def _exact_match(example: Example, sample: Sample) -> float:
    return float(matches(sample.text, example.references))


def _over_edit(example: Example, sample: Sample) -> float | None:
    if not matches(example.source, example.references):
        return None
    return float(normalise(sample.text) != normalise(example.source))


def _copy_rate(example: Example, sample: Sample) -> float:
    return float(normalise(sample.text) == normalise(example.source))


EXACT_MATCH = Metric(
    name="exact_match",
    title="Exact match",
    unit="share",
    direction="higher",
    definition="The answer equals one of the references (white space apart).",
    score=_exact_match,
)
OVER_EDIT = Metric(
    name="over_edit",
    title="Over-edit",
    unit="share",
    direction="lower",
    definition="Of the inputs that were right already, the share that the answer changed.",
    score=_over_edit,
)
COPY_RATE = Metric(
    name="copy_rate",
    title="Copy rate",
    unit="share",
    direction="neutral",
    definition="The answer equals the input.",
    score=_copy_rate,
)
