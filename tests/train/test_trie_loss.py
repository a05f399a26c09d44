"""The loss and every gradient on tries are those of the padded batch."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from torch.nn import functional
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from whetstone.train import head
from whetstone.train.batch import Row, collate
from whetstone.train.lean_adapter import lean_adapters
from whetstone.train.loss import Loss, completion_loss
from whetstone.train.packing import CostModel, pack

Result = tuple[float, dict[str, torch.Tensor]]

SIZES = {
    "vocab_size": 23,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
EXACT: dict[str, dict[str, Any]] = {
    "llama": {},
    "qwen2": {},
    "qwen2-sliding": {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 1},
    "mistral": {"sliding_window": None, "head_dim": 16},
    "mistral-sliding": {"sliding_window": 4, "head_dim": 16},
    "phi": {},
    "phi3": {},
    "phi3-sliding": {"sliding_window": 6},
    "gpt_neox": {},
    "gemma": {"head_dim": 16},
    "gemma2-sliding": {"head_dim": 16, "sliding_window": 5, "query_pre_attn_scalar": 16},
    "gemma3_text-sliding": {"head_dim": 16, "sliding_window": 5, "sliding_window_pattern": 2},
    "qwen3": {"head_dim": 16},
    "smollm3": {},
    "gpt2": {
        "n_embd": 32,
        "n_layer": 2,
        "n_head": 2,
        "n_positions": 64,
        "resid_pdrop": 0,
        "embd_pdrop": 0,
        "attn_pdrop": 0,
    },
}


@pytest.fixture(autouse=True)
def _float64_throughout(monkeypatch: pytest.MonkeyPatch) -> None:
    """Norms and eager attention go through float32, whatever the model's type; their rounding would hide an error."""
    to, narrow, softmax = torch.Tensor.to, torch.Tensor.float, functional.softmax

    def to_but_never_narrower(tensor: torch.Tensor, *arguments: Any, **options: Any) -> torch.Tensor:
        narrows = tensor.dtype == torch.float64 and torch.float32 in (*arguments, *options.values())
        return tensor if narrows else to(tensor, *arguments, **options)

    def softmax_as_it_is(tensor: torch.Tensor, dim: int, dtype: torch.dtype | None = None) -> torch.Tensor:
        return softmax(tensor, dim, dtype=None if tensor.dtype == torch.float64 else dtype)

    monkeypatch.setattr(functional, "softmax", softmax_as_it_is)
    monkeypatch.setattr(torch.Tensor, "to", to_but_never_narrower)
    monkeypatch.setattr(
        torch.Tensor, "float", lambda tensor: tensor if tensor.dtype == torch.float64 else narrow(tensor)
    )


def _model(name: str) -> PreTrainedModel:
    torch.manual_seed(0)
    config = CONFIG_MAPPING[name.partition("-")[0]](**SIZES, **EXACT[name])
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float64)
    # Fresh weights are so small that attention hardly looks at anything.
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4) if parameter.dim() > 1 else parameter.add_(0.1 * torch.randn_like(parameter))
    return model.train()


ids = st.lists(st.integers(3, 6), min_size=1, max_size=12)


@st.composite
def rows(draw: st.DrawFn) -> list[Row]:
    """Rows of few token ids, so that many share a prefix, some are equal, and some are the beginning of others."""
    return [
        Row(str(place), (*prompt, *answer), len(prompt))
        for place, (prompt, answer) in enumerate(draw(st.lists(st.tuples(ids, ids), min_size=1, max_size=6)))
    ]


def _padded(model: torch.nn.Module, batch: list[Row]) -> Result:
    return _backward(model, completion_loss(model, collate(batch, 0)))


def _one_by_one(model: torch.nn.Module, batch: list[Row]) -> Result:
    """Padding that is longer than a sliding window sees nothing, and its NaN spreads in transformers' own forward."""
    return _backward(model, torch.stack([completion_loss(model, collate([row], 0)) for row in batch]).sum())


def _shared(model: Any, batch: list[Row], loss: Loss) -> Result:
    return _backward(model, torch.stack([part.total for part in loss.parts(batch)]).sum())


def _backward(model: torch.nn.Module, total: torch.Tensor) -> Result:
    model.zero_grad()
    total.backward()
    gradients = {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}
    return total.item(), gradients


def _check_equal(one: Result, other: Result) -> None:
    assert one[0] == pytest.approx(other[0], rel=1e-10)
    assert one[1].keys() == other[1].keys()
    scale = max(float(gradient.norm()) for gradient in other[1].values())
    for name, gradient in one[1].items():
        assert float((gradient - other[1][name]).norm()) < 1e-10 * scale, name


EXAMPLE = [Row("a", (3, 4, 5, 6, 3, 4, 5, 3, 4, 5, 6), 4), Row("b", (3, 4, 5, 6, 3, 5, 5), 4), Row("c", (4, 4), 1)]


@pytest.mark.parametrize("name", EXACT)
def test_loss_and_all_gradients_equal_those_of_the_padded_batch(name: str) -> None:
    model = _model(name)
    loss = Loss(model, EXAMPLE)
    assert loss.shares, loss.notes
    reference = _one_by_one if "sliding" in name else _padded

    @settings(max_examples=12, deadline=None)
    @given(rows())
    def check(batch: list[Row]) -> None:
        _check_equal(_shared(model, batch, loss), reference(model, batch))

    check()


@pytest.mark.parametrize("targets", ["all-linear", ["q_proj", "lm_head"]])
def test_adapters_learn_the_same_from_tries(targets: str | list[str]) -> None:
    model: Any = get_peft_model(
        _model("llama"), LoraConfig(r=4, target_modules=targets, task_type="CAUSAL_LM")
    ).double()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.normal_(0, 0.2)
    expected = _padded(model, EXAMPLE)
    assert lean_adapters(model) > 0
    _check_equal(_shared(model, EXAMPLE, Loss(model, EXAMPLE)), expected)


def test_an_architecture_without_positions_from_outside_is_padded_and_says_so() -> None:
    config = CONFIG_MAPPING["bloom"](vocab_size=23, hidden_size=32, n_layer=2, n_head=2)
    model: Any = AutoModelForCausalLM.from_config(config, dtype=torch.float64)
    loss = Loss(model, EXAMPLE)
    assert not loss.shares
    assert "bloom" in loss.notes[0]
    _check_equal(_shared(model, EXAMPLE, loss), _padded(model, EXAMPLE))


def test_a_recurrent_architecture_is_padded() -> None:
    config = CONFIG_MAPPING["mamba"](vocab_size=23, hidden_size=32, num_hidden_layers=2)
    model: Any = AutoModelForCausalLM.from_config(config, dtype=torch.float64)
    assert not Loss(model, EXAMPLE).shares


def test_the_chunked_head_equals_the_plain_formula_over_many_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(head, "_CHUNK", 3)
    torch.manual_seed(0)
    output = torch.nn.Linear(5, 11, dtype=torch.float64)
    rows = [Row("a", (1, 2, 3, 4, 5, 6, 7, 8), 1), Row("b", (1, 2, 3, 9), 2), Row("c", (1, 2, 3, 9), 1)]
    batch = pack(rows, CostModel(1, 0), share=True)
    hidden = torch.randn(len(batch.predictors), 5, dtype=torch.float64, requires_grad=True)
    logs = torch.log_softmax(output(hidden), -1)
    expected = -(logs[batch.pair_predictor, batch.pair_target] * batch.pair_weight).sum()
    loss = head.head_loss(hidden, output, batch)
    assert len(batch.pair_target) > len(batch.predictors) > 6
    assert loss.item() == pytest.approx(expected.item(), rel=1e-12)
    learned = hidden, output.weight, output.bias
    gradients = zip(torch.autograd.grad(loss, learned), torch.autograd.grad(expected, learned), strict=True)
    assert all(torch.allclose(one, other, rtol=1e-11, atol=1e-12) for one, other in gradients)
