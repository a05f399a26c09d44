"""The estimate of memory: counts, the sum of storages against known cases, and the bounds that it must keep."""

from pathlib import Path
from typing import Any, Literal

import numpy as np
import psutil
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig

from whetstone.errors import UserError
from whetstone.models.adapter import add_adapter
from whetstone.train import estimate
from whetstone.train.advice import alternatives
from whetstone.train.batch import Row, RowLengths, collate, cut_padding
from whetstone.train.estimate import BatchShape, Plan, available_bytes, estimate_memory, largest_batch
from whetstone.train.loss import completion_loss
from whetstone.train.order import RowOrder
from whetstone.train.storages import StorageTracker
from whetstone.tune_section import Tune

CPU = torch.device("cpu")
SMALL: dict[str, Any] = {
    "vocab_size": 100,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
ARCHITECTURES = {
    "llama": {"num_key_value_heads": 2, "tie_word_embeddings": True},
    "qwen2": {"num_key_value_heads": 2},
    "gpt_neox": {},
    "phi": {},
    "gemma": {"num_key_value_heads": 1, "head_dim": 8},
}


def config(kind: str = "llama", **changes: Any) -> PretrainedConfig:
    return AutoConfig.for_model(kind, **SMALL | ARCHITECTURES.get(kind, {}) | changes)


def plan(rows: int = 4, tokens: int = 16, columns: int = 8, dtype: str = "float32", **tune: Any) -> Plan:
    return Plan(
        config(num_hidden_layers=1), Tune(**{"batch_size": rows} | tune), dtype, BatchShape(rows, tokens, columns), CPU
    )


@pytest.mark.parametrize("method", ["lora", "full"])
@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_parameters_are_those_of_the_real_model(kind: str, method: Literal["lora", "full"]) -> None:
    shape, tune = config(kind), Tune(method=method, rank=3)
    real: nn.Module = AutoModelForCausalLM.from_config(shape)
    real = add_adapter(real, tune) if method == "lora" else real
    counted = estimate_memory(Plan(shape, tune, "float32", BatchShape(2, 8, 4), CPU))
    assert counted.total_parameters == sum(parameter.numel() for parameter in real.parameters())
    trainable = [parameter for parameter in real.parameters() if parameter.requires_grad]
    assert counted.trainable_parameters == sum(parameter.numel() for parameter in trainable)
    assert counted.optimiser_bytes == 2 * 4 * counted.trainable_parameters
    held = {storage.untyped_storage().data_ptr(): storage.nbytes for storage in (*real.parameters(), *real.buffers())}
    assert counted.weights_bytes == sum(held.values())


def test_a_model_of_gigabytes_allocates_nothing() -> None:
    large = config(hidden_size=4096, intermediate_size=14336, vocab_size=128_000)
    before = psutil.Process().memory_info().rss
    peak = estimate_memory(Plan(large, Tune(method="full"), "float32", BatchShape(16, 64, 32), CPU))
    assert peak.peak_bytes > 10e9
    assert psutil.Process().memory_info().rss - before < 300e6


@pytest.mark.parametrize("fake", [True, False])
@pytest.mark.parametrize(("rows", "inputs", "outputs"), [(500, 4, 8), (5, 40, 80)])
def test_one_linear_layer_takes_what_can_be_worked_out_by_hand(
    rows: int, inputs: int, outputs: int, fake: bool
) -> None:
    tracker = StorageTracker(loss_columns=0, logits=0)
    with FakeTensorMode() if fake else torch.device("cpu"):
        layer, data = nn.Linear(inputs, outputs, bias=False), torch.ones(rows, inputs)
        tracker.hold("weights", [layer.weight, data])
        with tracker:
            layer(data).sum().backward()
    forward = rows * outputs * 4 + 4  # the products, and their sum
    backward = 4 + 4 + outputs * inputs * 4  # the sum, its gradient, and that of the weights
    assert sum(tracker.peak.values()) == tracker.peak["weights"] + max(forward, backward)
    assert tracker.peak["weights"] == 4 * (inputs * outputs + rows * inputs)
    assert tracker.live["activations"] == outputs * inputs * 4


def test_a_gradient_is_called_by_its_name_and_holes_follow_what_shares_the_arena() -> None:
    tracker = StorageTracker(loss_columns=0, logits=64 * 3, arena_waste=0.5)
    with FakeTensorMode():
        layer, small, large = nn.Linear(16, 3, bias=False), torch.ones(64, 16), torch.ones(2**20, 16)
        tracker.hold("weights", [layer.weight, small, large])
        held = tracker.live["weights"]
        layer.weight.register_post_accumulate_grad_hook(tracker.name_gradient)
        with tracker:
            logits = layer(small)
            assert tracker.live == {"weights": held, "logits": 64 * 3 * 4, "allocator": 64 * 3 * 2}
            logits.sum().backward()
            assert tracker.live["gradients"] == 16 * 3 * 4
            holes = tracker.live["allocator"]
            copy = large * 2
            assert tracker.live["allocator"] == holes
            assert tracker.live["activations"] >= copy.nbytes > 32 * 2**20


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_fake_tensors_take_as_much_as_real_ones(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimate, "_ARENA_WASTE", 0.0)
    shape, rows, tokens, columns = config(kind), 3, 12, 7
    expected = estimate_memory(Plan(shape, Tune(method="full"), "float32", BatchShape(rows, tokens, columns), CPU))
    model = AutoModelForCausalLM.from_config(shape).train()
    batch = collate(
        [Row("a", [3] * tokens, tokens - columns), *[Row("b", [3] * (tokens - 2), tokens - columns)] * (rows - 1)], 0
    )
    tracker = StorageTracker(columns, rows * columns * 100)
    tracker.hold("weights", [*model.parameters(), *model.buffers()])
    with tracker:
        completion_loss(model, batch).backward()
    measured = sum(tracker.peak.values())
    followed = expected.training_bytes - expected.runtime_bytes - expected.optimiser_bytes
    # The batch itself is made under the tracker in one case and before it in the other.
    assert measured == pytest.approx(followed, abs=3 * 8 * rows * tokens)


def test_more_rows_tokens_logits_or_rank_take_more() -> None:
    rows, tokens, columns, rank = 3, 16, 4, 2

    def taken(rows: int, tokens: int, columns: int, rank: int) -> int:
        followed = estimate_memory(plan(rows, tokens, columns, rank=rank))
        return followed.training_bytes - followed.runtime_bytes

    least = taken(rows, tokens, columns, rank)
    assert taken(rows + 1, tokens, columns, rank) > least
    assert taken(rows, tokens + 8, columns, rank) > least
    assert taken(rows, tokens, columns + 4, rank) >= least  # the peak need not fall into the loss
    assert taken(rows, tokens, columns, rank + 1) > least


def test_accumulated_gradients_are_there_at_the_peak() -> None:
    once = estimate_memory(plan(method="full"))
    twice = estimate_memory(plan(method="full", accumulation=2))
    assert twice.gradients_bytes == 4 * twice.trainable_parameters
    assert twice.gradients_bytes > once.gradients_bytes


def test_bfloat16_halves_frozen_weights_alone() -> None:
    lora, half = estimate_memory(plan(rank=1)), estimate_memory(plan(rank=1, dtype="bfloat16"))
    assert half.weights_bytes < 0.6 * lora.weights_bytes
    assert half.optimiser_bytes == lora.optimiser_bytes  # the adapter stays float32
    full, mixed = estimate_memory(plan(method="full")), estimate_memory(plan(method="full", dtype="bfloat16"))
    assert full.weights_bytes == mixed.weights_bytes


def test_loading_counts_the_stored_type_beside_the_asked_one() -> None:
    def loading(stored: str) -> int:
        row = estimate_memory(Plan(config(dtype=stored), Tune(), "float32", BatchShape(1, 4, 2), CPU))
        return row.loading_bytes - row.runtime_bytes

    assert loading("bfloat16") == loading("float32") * 3 // 2


def test_what_cannot_be_followed_is_one_line() -> None:
    experts = config("mixtral", num_local_experts=2, num_key_value_heads=2)
    with pytest.raises(UserError, match="'mixtral' takes cannot be foreseen"):
        estimate_memory(Plan(experts, Tune(method="full"), "float32", BatchShape(2, 8, 4), CPU))
    with pytest.raises(UserError, match="causal language model"):
        estimate_memory(Plan(AutoConfig.for_model("vit"), Tune(method="full"), "float32", BatchShape(2, 8, 4), CPU))


def parts(estimated: estimate.MemoryEstimate) -> int:
    return estimated.peak_bytes - estimated.held_bytes


@pytest.mark.parametrize(("method", "share"), [("lora", 0.5), ("full", 0.8)])
def test_advice_fits(method: str, share: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimate, "_START_UP_BYTES", 0)
    asked = plan(16, 64, 32, method=method, accumulation=3)
    budget = int(share * parts(estimate_memory(asked)))
    monkeypatch.setattr(estimate, "available_bytes", lambda device: budget)
    assert not estimate_memory(asked).fits
    found = alternatives(asked)
    assert found
    for way in found:
        assert estimate_memory(way.plan).fits
        assert way.plan != asked
    smaller = found[0].plan.tune
    assert smaller.batch_size * smaller.accumulation == 48
    assert f"tune.batch_size: {smaller.batch_size}, tune.accumulation: {smaller.accumulation}" in found[0].text
    assert any("data.max_tokens:" in way.text for way in found)


def test_all_is_changed_together_only_when_nothing_suffices_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimate, "_START_UP_BYTES", 0)
    asked = plan(16, 64, 32, method="full")
    least = plan(1, 8, 8, dtype="bfloat16", accumulation=16)
    budget = parts(estimate_memory(least))
    monkeypatch.setattr(estimate, "available_bytes", lambda device: budget)
    (only,) = alternatives(asked)
    for setting in ("tune.method: lora", "model.dtype: bfloat16", "tune.batch_size: 1,", "data.max_tokens: 8"):
        assert setting in only.text
    monkeypatch.setattr(estimate, "available_bytes", lambda device: 0)
    assert alternatives(asked) == []


def test_the_control_group_limits_what_is_available(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimate, "_CGROUP", tmp_path)
    free = available_bytes(CPU)
    assert 0 < free <= psutil.virtual_memory().total
    (tmp_path / "memory.max").write_text("max\n")
    assert available_bytes(CPU) > 0.5 * free
    (tmp_path / "memory.max").write_text("5000\n")
    (tmp_path / "memory.current").write_text("4000\n")
    (tmp_path / "memory.stat").write_text("anon 3000\ninactive_file 700\n")
    assert available_bytes(CPU) == 1700


def lengths(*rows: tuple[int, int]) -> RowLengths:
    table = np.array(rows, dtype=np.int32)
    return RowLengths(np.arange(len(rows), dtype=np.int32), table[:, 0], table[:, 1])


def test_the_largest_batch_is_made_of_the_longest_rows() -> None:
    rows = lengths((5, 5), (20, 10), (2, 18), (25, 4))
    assert largest_batch(rows, None, Tune(batch_size=2), 512) == BatchShape(2, 30, 18)
    assert largest_batch(rows, None, Tune(batch_size=2), 24) == BatchShape(2, 24, 22)
    assert largest_batch(rows, None, Tune(batch_size=16), 512) == BatchShape(4, 30, 28)
    assert largest_batch(lengths((0, 10)), None, Tune(batch_size=1), 512) == BatchShape(1, 10, 9)


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(1, 20)), min_size=1, max_size=80), st.integers(1, 5))
@settings(max_examples=30)
def test_no_batch_of_an_epoch_is_wider(sizes: list[tuple[int, int]], size: int) -> None:
    shape = largest_batch(lengths(*sizes), None, Tune(batch_size=size), 512)
    rows = [Row("x", [1] * (prompt + answer), prompt) for prompt, answer in sizes]
    order = RowOrder(rows, size, seed=0)
    longest = max(len(rows[index].input_ids) for index in order.epoch(0))
    assert shape.tokens == longest
    assert shape.rows == min(size, len(rows))
    assert shape.loss_columns <= shape.tokens


def test_long_replayed_rows_are_counted_as_often_as_they_come() -> None:
    task, replay, tune = [(10, 20)] * 300, [(100, 200)] * 20, Tune(batch_size=16)
    shape = largest_batch(lengths(*task), lengths(*replay), tune, 512, replay_fraction=0.2)
    rows = [Row("t", [1] * 30, 10) for _ in task] + [Row("r", [1] * 300, 100, "replay") for _ in replay]
    order = RowOrder(rows, 16, 0, 0.2)
    sizes = []
    for number in range(0, len(epoch := order.epoch(0)) - 16, 16):
        chosen = [rows[index] for index in epoch[number : number + 16]]
        batches = cut_padding(collate(chosen, 0), [len(row.input_ids) for row in chosen])
        sizes.append(sum(part["input_ids"].numel() for part in batches))
    assert max(sizes) <= shape.rows * shape.tokens <= 2 * max(sizes) < 16 * 300


def test_the_same_plan_is_estimated_the_same() -> None:
    first, second = estimate_memory(plan()), estimate_memory(plan())
    assert first.training_bytes - first.runtime_bytes == second.training_bytes - second.runtime_bytes
    row = first.as_row()
    assert row["fits"]
    assert row["peak_bytes"] == first.peak_bytes
    assert row["calibrated"]
