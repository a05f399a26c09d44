"""Likelihoods per token and per byte."""

from collections.abc import Callable

import pytest

from whetstone.data.example import Example
from whetstone.evaluate.metrics.likelihood import BITS_PER_BYTE, NLL
from whetstone.evaluate.sample import Sample


def test_by_hand(example: Callable[..., Example], answer: Callable[..., Sample]) -> None:
    # 8 ln 2 nats are 8 bits.
    text = answer(measured={"nll_nats": 8 * 0.6931471805599453, "nll_tokens": 4.0, "text_bytes": 16.0})
    assert NLL.score(example(), text) == pytest.approx(2 * 0.6931471805599453)
    assert BITS_PER_BYTE.score(example(), text) == pytest.approx(0.5)


@pytest.mark.parametrize("measured", [{}, {"nll_nats": 3.0}, {"nll_nats": 0.0, "nll_tokens": 0.0, "text_bytes": 0.0}])
def test_what_was_not_measured_has_no_score(
    measured: dict[str, float], example: Callable[..., Example], answer: Callable[..., Sample]
) -> None:
    assert NLL.score(example(), answer(measured=measured)) is None
    assert BITS_PER_BYTE.score(example(), answer(measured=measured)) is None


def test_a_text_that_is_certain_has_none_to_spare(
    example: Callable[..., Example], answer: Callable[..., Sample]
) -> None:
    certain = answer(measured={"nll_nats": 0.0, "nll_tokens": 4.0, "text_bytes": 16.0})
    assert NLL.score(example(), certain) == BITS_PER_BYTE.score(example(), certain) == 0
