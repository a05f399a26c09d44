"""Was what needed a change changed, and what needed none left alone?"""

from whetstone.data.answer import matches, normalise
from whetstone.data.example import Example
from whetstone.evaluate.metrics.metric import Metric
from whetstone.evaluate.sample import Sample

__all__ = ["COPY_RATE", "OVER_EDIT", "UNDER_EDIT"]


def _over_edit(example: Example, sample: Sample) -> float | None:
    if not example.references or not matches(example.source, example.references):
        return None
    return float(not _is_copy(example, sample))


def _under_edit(example: Example, sample: Sample) -> float | None:
    if not example.references or matches(example.source, example.references):
        return None
    return float(_is_copy(example, sample))


def _copy_rate(example: Example, sample: Sample) -> float:
    return float(_is_copy(example, sample))


def _is_copy(example: Example, sample: Sample) -> bool:
    return normalise(sample.text) == normalise(example.source)


OVER_EDIT = Metric(
    name="over_edit",
    title="Over-edit",
    unit="share",
    direction="lower",
    definition="Of the inputs that were right already, the share that the answer changed.",
    score=_over_edit,
)
UNDER_EDIT = Metric(
    name="under_edit",
    title="Under-edit",
    unit="share",
    direction="lower",
    definition="Of the inputs that needed a change, the share that was returned unchanged.",
    score=_under_edit,
)
COPY_RATE = Metric(
    name="copy_rate",
    title="Copy rate",
    unit="share",
    direction="neutral",
    definition="The answer equals the input.",
    score=_copy_rate,
)
