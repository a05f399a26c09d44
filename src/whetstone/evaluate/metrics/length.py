"""How long is the answer?"""

from whetstone.data.answer import count_words
from whetstone.data.example import Example
from whetstone.evaluate.metrics.metric import Metric
from whetstone.evaluate.sample import Sample

__all__ = ["LENGTH_TOKENS", "LENGTH_WORDS"]


def _length_words(_: Example, sample: Sample) -> float:
    return float(count_words(sample.text))


def _length_tokens(_: Example, sample: Sample) -> float | None:
    return None if sample.new_tokens is None else float(sample.new_tokens)


LENGTH_WORDS = Metric(
    name="length_words",
    title="Length",
    unit="words",
    direction="neutral",
    definition="Words in the answer.",
    score=_length_words,
)
LENGTH_TOKENS = Metric(
    name="length_tokens",
    title="Length in tokens",
    unit="tokens",
    direction="neutral",
    definition="Tokens that were generated, the end of the turn included, as the arm's own tokenizer counts.",
    score=_length_tokens,
)
