"""Does the answer have the shape of an answer: present, complete, and nothing around it?"""

from whetstone.data.answer import has_extra_text, is_empty, is_too_short
from whetstone.data.example import Example
from whetstone.evaluate.metrics.metric import Metric
from whetstone.evaluate.sample import Sample

__all__ = ["EMPTY", "EXTRA_TEXT", "TOO_SHORT", "TRUNCATED"]


def _extra_text(example: Example, sample: Sample) -> float | None:
    if not example.references:
        return None
    return float(has_extra_text(sample.text, example.references))


def _empty(_: Example, sample: Sample) -> float:
    return float(is_empty(sample.text))


def _too_short(example: Example, sample: Sample) -> float | None:
    if not example.references:
        return None
    return float(is_too_short(sample.text, example.references))


def _truncated(_: Example, sample: Sample) -> float:
    return float(sample.finish_reason == "length")


EXTRA_TEXT = Metric(
    name="extra_text",
    title="Extra text",
    unit="share",
    direction="lower",
    definition="A reference stands in the answer with other text around it.",
    score=_extra_text,
)
EMPTY = Metric(
    name="empty",
    title="Empty",
    unit="share",
    direction="lower",
    definition="The answer holds nothing but white space.",
    score=_empty,
)
TOO_SHORT = Metric(
    name="too_short",
    title="Too short",
    unit="share",
    direction="lower",
    definition="The answer has fewer than half the words of the shortest reference.",
    score=_too_short,
)
TRUNCATED = Metric(
    name="truncated",
    title="Truncated",
    unit="share",
    direction="lower",
    definition="The answer was cut off at the token limit.",
    score=_truncated,
)
