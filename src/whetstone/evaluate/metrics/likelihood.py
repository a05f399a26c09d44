"""How well does the model predict a text that it did not write?"""

import math

from whetstone.data.example import Example
from whetstone.evaluate.metrics.metric import Metric
from whetstone.evaluate.sample import Sample

__all__ = ["BITS_PER_BYTE", "NLL"]


def _nll(_: Example, sample: Sample) -> float | None:
    return _per(sample, "nll_tokens")


def _bits_per_byte(_: Example, sample: Sample) -> float | None:
    nats_per_byte = _per(sample, "text_bytes")
    return None if nats_per_byte is None else nats_per_byte / math.log(2)


def _per(sample: Sample, count: str) -> float | None:
    nats, many = sample.measured.get("nll_nats"), sample.measured.get(count)
    return nats / many if nats is not None and many else None


NLL = Metric(
    name="nll",
    title="Negative log-likelihood",
    unit="nats/token",
    direction="lower",
    definition="Negative log-likelihood of the text, divided by its predicted tokens; comparable within one tokenizer.",
    score=_nll,
)
BITS_PER_BYTE = Metric(
    name="bits_per_byte",
    title="Bits per byte",
    unit="bits/byte",
    direction="lower",
    definition="Negative log-likelihood of the text in bits, divided by its UTF-8 bytes; comparable across tokenizers.",
    score=_bits_per_byte,
    source="Gao et al., 'The Pile', 2020.",
)
