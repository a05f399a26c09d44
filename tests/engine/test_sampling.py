"""Choosing tokens."""

from collections import Counter

import pytest
import torch

from whetstone.engine.api import Sampling
from whetstone.engine.sampling import choose_token

LOGITS = torch.tensor([2.0, 1.0, 0.0, -1.0])


def draws(sampling: Sampling, count: int = 4000) -> dict[int, float]:
    generator = torch.Generator().manual_seed(0)
    counted = Counter(choose_token(LOGITS, sampling, generator) for _ in range(count))
    return {token: counted[token] / count for token in range(4)}


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_frequencies_follow_the_softmax(temperature: float) -> None:
    expected = torch.softmax(LOGITS / temperature, 0).tolist()
    found = draws(Sampling(temperature))
    for token in range(4):
        assert found[token] == pytest.approx(expected[token], abs=0.025)


@pytest.mark.parametrize(
    ("top_p", "kept"), [(0.01, {0}), (0.6, {0}), (0.7, {0, 1}), (0.9, {0, 1, 2}), (1.0, {0, 1, 2, 3})]
)
def test_top_p_keeps_the_smallest_sufficient_set(top_p: float, kept: set[int]) -> None:
    assert {token for token, share in draws(Sampling(1.0, top_p)).items() if share} == kept
