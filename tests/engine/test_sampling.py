"""Choosing tokens: what may be chosen, how often, and that rows do not see each other."""

import math
from collections import Counter
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare
from transformers import (
    LogitsProcessorList,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from whetstone.engine.api import Request, Sampling
from whetstone.engine.sampling import Chooser, choose

PROMPT = (1, 2, 3)
GRID = 1000

samplings = st.builds(
    Sampling,
    temperature=st.floats(0.2, 3),
    top_p=st.one_of(st.just(1.0), st.floats(0.05, 0.999)),
    top_k=st.one_of(st.none(), st.integers(1, 700)),
    min_p=st.one_of(st.just(0.0), st.floats(0.001, 0.9)),
    repetition_penalty=st.one_of(st.just(1.0), st.floats(0.5, 2)),
)


def made_logits(rows: int, vocabulary: int, seed: int, spread: float = 2.0) -> torch.Tensor:
    """No two of a row are equal, so sets of the likeliest are not a matter of taste."""
    generator = torch.Generator().manual_seed(seed)
    return spread * torch.randn(rows, vocabulary, generator=generator, dtype=torch.float64)


def reference(logits: torch.Tensor, sampling: Sampling) -> torch.Tensor:
    """Probabilities of one row by the processors of transformers."""
    steps = LogitsProcessorList()
    if sampling.repetition_penalty != 1:
        steps.append(RepetitionPenaltyLogitsProcessor(sampling.repetition_penalty))
    steps.append(TemperatureLogitsWarper(sampling.temperature))
    if sampling.top_k is not None:
        steps.append(TopKLogitsWarper(sampling.top_k))
    if sampling.top_p < 1:
        steps.append(TopPLogitsWarper(sampling.top_p))
    if sampling.min_p > 0:
        steps.append(MinPLogitsWarper(sampling.min_p))
    return torch.softmax(steps(torch.tensor([PROMPT]), logits[None].clone())[0], dim=-1)


class Fixed(Chooser):
    """A chooser whose uniform number is given."""

    def __init__(self, sampling: Sampling, number: float) -> None:
        super().__init__(Request(PROMPT, 4, sampling))
        self.number = number

    def uniform(self) -> float:
        return self.number


def found_probabilities(logits: torch.Tensor, sampling: Sampling) -> torch.Tensor:
    """What is drawn for an even grid of uniform numbers, as shares."""
    grid = GRID
    choosers = [Fixed(sampling, (index + 0.5) / grid) for index in range(grid)]
    choices = choose(logits[None].expand(grid, -1), choosers)
    counted = torch.bincount(torch.tensor([choice.token_id for choice in choices]), minlength=len(logits))
    return counted.double() / grid


@settings(max_examples=40, deadline=None)
@given(sampling=samplings, vocabulary=st.sampled_from([5, 40, 300]), seed=st.integers(0, 10_000))
def test_probabilities_are_those_of_transformers(sampling: Sampling, vocabulary: int, seed: int) -> None:
    if sampling.top_k is not None:
        sampling = replace(sampling, top_k=min(sampling.top_k, vocabulary))
    logits = made_logits(1, vocabulary, seed)[0]
    expected = reference(logits, sampling)
    found = found_probabilities(logits, sampling)
    assert (found - expected).abs().max() <= 1.01 / GRID
    # Both the least likely token that is kept and the likeliest that is not show where the cut is.
    assert bool((found[expected == 0] == 0).all())
    assert bool((found[expected > 1.01 / GRID] > 0).all())


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(1.0, top_p=0.9999),
        Sampling(1.0, top_p=0.97),
        Sampling(3.0, top_p=0.9, min_p=0.5),
        Sampling(1.0, top_p=0.999, top_k=1000),
        Sampling(1.0, top_k=5000),
    ],
)
def test_flat_rows_are_cut_where_transformers_cuts_them(sampling: Sampling) -> None:
    logits = made_logits(1, 9000, 3, spread=0.5)[0]
    expected = reference(logits, sampling)
    # Only the two ends of the kept set: what is drawn at the border between kept and left out.
    order = expected.argsort(descending=True)
    kept = int((expected > 0).sum())
    last, first = choose(logits[None].expand(2, -1), [Fixed(sampling, 1 - 1e-12), Fixed(sampling, 0.0)])
    assert {first.token_id, last.token_id} == {int(order[0]), int(order[kept - 1])}


@pytest.mark.parametrize(
    "sampling", [Sampling(0.7), Sampling(1.3, top_p=0.8), Sampling(1.0, top_k=6), Sampling(1.0, min_p=0.1)]
)
def test_frequencies_follow_the_probabilities(sampling: Sampling) -> None:
    logits = made_logits(1, 12, 7, spread=1.0)[0].float()
    draws = 2500
    chooser = Chooser(Request(PROMPT, draws, sampling, seed=11))
    counted = Counter(choose(logits[None], [chooser])[0].token_id for _ in range(draws))
    expected = reference(logits.double(), sampling)
    kept = [token for token in range(12) if expected[token] > 0]
    assert set(counted) <= set(kept)
    shares = [float(expected[token]) * counted.total() for token in kept]
    assert chisquare([counted[token] for token in kept], shares).pvalue > 0.001


@settings(max_examples=25, deadline=None)
@given(mixed=st.lists(st.one_of(samplings, st.just(Sampling())), min_size=2, max_size=7), seed=st.integers(0, 1000))
def test_a_row_draws_the_same_alone_and_among_others(mixed: list[Sampling], seed: int) -> None:
    # Few levels, as in 16-bit types: many tokens are equally likely.
    logits = (made_logits(len(mixed), 1200, seed).float() * 4).round() / 4
    requests = [Request(PROMPT, 4, sampling, seed + row) for row, sampling in enumerate(mixed)]
    together, alone = [Chooser(request) for request in requests], [Chooser(request) for request in requests]
    for _ in range(3):
        found = choose(logits, together)
        assert found == [choose(logits[row : row + 1], [chooser])[0] for row, chooser in enumerate(alone)]


def test_equal_seeds_draw_alike_and_others_do_not() -> None:
    logits = torch.zeros(1, 1000)

    def drawn(seed: int) -> list[int | None]:
        chooser = Chooser(Request(PROMPT, 9, Sampling(1.0), seed))
        return [choose(logits, [chooser])[0].token_id for _ in range(9)]

    assert drawn(4) == drawn(4)
    assert drawn(4) != drawn(5)


def test_greedy_takes_the_likeliest_token_of_each_row() -> None:
    logits = made_logits(5, 50, 1).to(torch.bfloat16)
    before = logits.clone()
    choices = choose(logits, [Chooser(Request(PROMPT, 3)) for _ in range(5)])
    assert [choice.token_id for choice in choices] == before.argmax(-1).tolist()
    assert torch.equal(logits, before)


def test_the_repetition_penalty_counts_what_was_answered() -> None:
    logits = torch.tensor([[4.0, 3.0, 2.0, -1.0]])
    chooser = Chooser(Request((3, 3), 5, Sampling(repetition_penalty=2.5)))
    assert [choose(logits, [chooser])[0].token_id for _ in range(4)] == [0, 1, 2, 0]
    assert logits.tolist() == [[4.0, 3.0, 2.0, -1.0]]


@pytest.mark.parametrize("sampling", [Sampling(), Sampling(0.5, top_k=3, repetition_penalty=1.7)])
def test_logprobs_are_those_of_the_models_own_logits(sampling: Sampling) -> None:
    logits = made_logits(3, 30, 2)
    choosers = [Chooser(Request(PROMPT, 5, sampling, row, logprobs=n)) for row, n in enumerate((None, 0, 4))]
    none, only, four = choose(logits, choosers)
    expected = torch.log_softmax(logits, dim=-1)
    assert none.logprob is None
    assert only.logprob is not None and only.logprob.top == () and only.logprob.token_id == only.token_id
    assert only.logprob.logprob == pytest.approx(float(expected[1, only.token_id]))
    assert four.logprob is not None
    values, ids = expected[2].topk(4)
    assert [token for token, _ in four.logprob.top] == ids.tolist()
    assert [value for _, value in four.logprob.top] == pytest.approx(values.tolist())


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("sampling", [Sampling(), Sampling(1.0), Sampling(1.0, top_p=0.5), Sampling(1.0, top_k=2)])
def test_logits_that_are_not_numbers_concern_their_row_alone(bad: float, sampling: Sampling) -> None:
    logits = made_logits(3, 30, 4).float()
    logits[1, 7] = bad
    requests = [Request(PROMPT, 5, sampling, row, logprobs=1) for row in range(3)]
    first, broken, last = choose(logits, [Chooser(request) for request in requests])
    assert broken.token_id is None and broken.error is not None and "not numbers" in broken.error
    assert broken.logprob is None
    assert choose(logits[2:], [Chooser(requests[2])])[0] == last
    assert first.token_id is not None and first.error is None


def test_masked_tokens_are_never_drawn() -> None:
    logits = torch.full((200, 8), -math.inf)
    logits[:, 3] = 0.0
    logits[:, 5] = -1.0
    for sampling in (Sampling(1.0), Sampling(1.0, top_p=0.99), Sampling(1.0, top_k=6)):
        choosers = [Fixed(sampling, (row + 0.5) / 200) for row in range(200)]
        assert {choice.token_id for choice in choose(logits, choosers)} == {3, 5}
