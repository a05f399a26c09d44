"""The loss against a slow reference, and accumulation against one large batch."""

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional
from transformers import LlamaConfig, LlamaForCausalLM

from whetstone.train.batch import IGNORE, Row, collate
from whetstone.train.loss import completion_loss
from whetstone.train.order import RowOrder
from whetstone.train.recorder import StepMetrics
from whetstone.train.trainer import fit
from whetstone.tune_section import Tune


def tiny(dtype: torch.dtype = torch.float64) -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=50,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=64,
        pad_token_id=0,
    )
    return LlamaForCausalLM(config).to(dtype)


rows = st.lists(
    st.tuples(
        st.lists(st.integers(1, 49), min_size=1, max_size=8), st.lists(st.integers(1, 49), min_size=1, max_size=6)
    ).map(lambda parts: Row("e", (*parts[0], *parts[1]), len(parts[0]))),
    min_size=1,
    max_size=5,
)
MODEL = tiny()


def slow_loss(model: torch.nn.Module, row: Row) -> torch.Tensor:
    """One row alone, all logits, token by token."""
    logits = model(input_ids=torch.tensor([row.input_ids])).logits[0]
    log_probabilities = functional.log_softmax(logits, dim=-1)
    terms = [-log_probabilities[i - 1, label] for i, label in enumerate(row.labels) if label != IGNORE]
    return torch.stack(terms).sum()


@settings(max_examples=25, deadline=None)
@given(batch=rows)
def test_loss_and_gradients_equal_rows_one_by_one(batch: list[Row]) -> None:
    MODEL.zero_grad()
    fast = completion_loss(MODEL, collate(batch, 0))
    fast.backward()
    gradients = [parameter.grad.clone() for parameter in MODEL.parameters()]
    MODEL.zero_grad()
    slow = torch.stack([slow_loss(MODEL, row) for row in batch]).sum()
    slow.backward()
    assert fast.item() == pytest.approx(slow.item(), rel=1e-11)
    for parameter, gradient in zip(MODEL.parameters(), gradients, strict=True):
        assert torch.allclose(parameter.grad, gradient, rtol=1e-9, atol=1e-12)


def some_rows(count: int) -> list[Row]:
    generator = torch.Generator().manual_seed(1)
    made = []
    for number in range(count):
        ids = tuple(torch.randint(1, 50, (6 + number % 7,), generator=generator).tolist())
        made.append(Row(str(number), ids, 2 + number % 4))
    return made


@pytest.mark.parametrize("share", [True, False])
def test_accumulation_equals_one_large_batch(tmp_path: Path, make_session: Any, share: bool) -> None:
    """Rows differ in length, so a mean of micro-batch means would give other weights."""
    trained = []
    for batch_size, accumulation in ((64, 1), (1, 64), (16, 4)):
        model = tiny(torch.float64)
        tune = Tune(
            method="full",
            steps=3,
            batch_size=batch_size,
            accumulation=accumulation,
            learning_rate=1e-3,
            share_tokens=share,
        )
        fit(model, RowOrder(some_rows(160), 64, 0), [], tune, make_session(tmp_path))
        trained.append(model.state_dict())
    large, *others = trained
    for other in others:
        for name, weights in large.items():
            assert torch.allclose(weights, other[name], rtol=0, atol=2e-8), name


def test_fit_reports_what_it_did(tmp_path: Path, make_session: Any) -> None:
    model, seen = tiny(torch.float32), list[StepMetrics]()
    tune = Tune(method="full", steps=8, batch_size=8, learning_rate=1e-2)
    result = fit(model, RowOrder(some_rows(32), 8, 0), some_rows(5), tune, make_session(tmp_path, seen.append))
    assert result.steps == 8
    assert result.loss_tokens == 2 * sum(row.loss_tokens for row in some_rows(32))
    assert [metrics.step for metrics in seen] == list(range(1, 9))
    assert seen[-1].loss < seen[0].loss
    assert sum(metrics.validation_loss is not None for metrics in seen) == 4
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 8
