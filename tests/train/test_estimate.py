"""The estimate of memory: counts, the sum of storages against known cases, and the bounds that it must keep."""

import importlib.util
from dataclasses import replace
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
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig

from whetstone.errors import UserError
from whetstone.models.adapter import add_adapter
from whetstone.models.load import load_weights
from whetstone.train import advice, estimate
from whetstone.train.advice import alternatives
from whetstone.train.batch import Row, RowLengths
from whetstone.train.estimate import (
    BatchShape,
    MemoryEstimate,
    Plan,
    available_bytes,
    estimate_memory,
    largest_batch,
)
from whetstone.train.lean_adapter import lean_adapters
from whetstone.train.loss import trie_loss
from whetstone.train.optimiser_memory import optimiser_bytes
from whetstone.train.order import RowOrder
from whetstone.train.packing import CostModel, pack
from whetstone.train.prepare import prepare
from whetstone.train.settings import Precision, Settings, weights_dtype
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


def config(kind: str = "llama", **changes: Any) -> PreTrainedConfig:
    return AutoConfig.for_model(kind, **SMALL | ARCHITECTURES.get(kind, {}) | changes)


def settled(tune: Tune, precision: Precision = "float32", **changes: Any) -> Settings:
    values = Settings(
        precision=precision,
        weights_dtype=weights_dtype(tune, precision),
        attention="sdpa",
        optimiser="adamw_torch_fused",
        compile=False,
        activation_checkpointing=False,
        quantised=tune.method == "qlora",
        double_quantisation=tune.double_quantisation,
        notes=(),
    )
    return replace(values, **changes)


def equal_rows(rows: int, tokens: int, learned: int) -> BatchShape:
    return BatchShape((tokens,) * rows, (learned,) * rows)


def of(
    shape: PreTrainedConfig, tune: Tune, batch: BatchShape, precision: Precision = "float32", **changes: Any
) -> Plan:
    return Plan(shape, tune, settled(tune, precision, **changes), batch, CPU)


def plan(rows: int = 4, tokens: int = 16, learned: int = 8, precision: Precision = "float32", **tune: Any) -> Plan:
    asked = Tune(**{"batch_size": rows} | tune)
    return of(config(num_hidden_layers=1), asked, equal_rows(rows, tokens, learned), precision)


def followed_bytes(found: MemoryEstimate) -> int:
    return found.training_bytes - found.runtime_bytes


@pytest.mark.parametrize("method", ["lora", "full"])
@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_parameters_are_those_of_the_real_model(kind: str, method: Literal["lora", "full"]) -> None:
    shape, tune = config(kind), Tune(method=method, rank=3)
    real: nn.Module = AutoModelForCausalLM.from_config(shape)
    real = add_adapter(real, tune) if method == "lora" else real
    counted = estimate_memory(of(shape, tune, equal_rows(2, 8, 4)))
    assert counted.total_parameters == sum(parameter.numel() for parameter in real.parameters())
    trainable = [parameter for parameter in real.parameters() if parameter.requires_grad]
    assert counted.trainable_parameters == sum(parameter.numel() for parameter in trainable)
    assert counted.optimiser_bytes == 2 * 4 * counted.trainable_parameters
    held = {storage.untyped_storage().data_ptr(): storage.nbytes for storage in (*real.parameters(), *real.buffers())}
    assert counted.weights_bytes == sum(held.values())


def test_a_model_of_gigabytes_allocates_nothing() -> None:
    large = config(hidden_size=4096, intermediate_size=14336, vocab_size=128_000)
    before = psutil.Process().memory_info().rss
    peak = estimate_memory(of(large, Tune(method="full"), equal_rows(16, 64, 32)))
    assert peak.peak_bytes > 10e9
    assert psutil.Process().memory_info().rss - before < 300e6


@pytest.mark.parametrize("fake", [True, False])
@pytest.mark.parametrize(("rows", "inputs", "outputs"), [(500, 4, 8), (5, 40, 80)])
def test_one_linear_layer_takes_what_can_be_worked_out_by_hand(
    rows: int, inputs: int, outputs: int, fake: bool
) -> None:
    tracker = StorageTracker(loss_columns=0, vocabulary=0)
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
    tracker = StorageTracker(loss_columns=0, vocabulary=3, arena_waste=0.5)
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


def tracked_for_real(model: nn.Module, asked: Plan) -> int:
    """What the same step takes with tensors that have data."""
    causal: Any = model.get_base_model() if asked.tune.adapts else model  # type: ignore[operator]
    tries = pack(asked.batch.rows(), CostModel.of(causal), share=False)
    tracker = StorageTracker(0, asked.config.vocab_size)
    tracker.hold("weights", [*model.parameters(), *model.buffers()])
    with tracker:
        trie_loss(causal, tries, plain_head=True).backward()
    return int(sum(tracker.peak.values()))


@pytest.mark.parametrize(
    ("kind", "method", "checkpointing"),
    [
        *((kind, "full", False) for kind in ARCHITECTURES),
        *((kind, "lora", False) for kind in ("llama", "gpt_neox")),
        ("llama", "lora", True),
    ],
)
def test_fake_tensors_take_as_much_as_real_ones(
    kind: str, method: Literal["lora", "full"], checkpointing: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(estimate, "_ARENA_WASTE", 0.0)
    lengths = BatchShape((12, 12, 7), (5, 3, 2))
    asked = of(config(kind), Tune(method=method), lengths, activation_checkpointing=checkpointing)
    expected = estimate_memory(asked)
    model = prepare(AutoModelForCausalLM.from_config(asked.config), asked.tune, asked.settings)
    lean_adapters(model)
    # Constants of the loss are turned into fake tensors, and those are followed, too.
    allowed = 2000
    assert followed_bytes(expected) - expected.optimiser_bytes == pytest.approx(
        tracked_for_real(model, asked), abs=allowed
    )


@pytest.mark.skipif(importlib.util.find_spec("bitsandbytes") is None, reason="NF4 needs bitsandbytes")
@pytest.mark.parametrize("double", [True, False])
def test_nf4_weights_take_what_those_of_bitsandbytes_take(
    double: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(estimate, "_ARENA_WASTE", 0.0)
    tune = Tune(method="qlora", double_quantisation=double)
    shape = config(hidden_size=64, intermediate_size=128)
    asked = of(shape, tune, equal_rows(3, 12, 5))
    expected = estimate_memory(asked)
    AutoModelForCausalLM.from_config(shape).save_pretrained(tmp_path)
    base = load_weights(tmp_path, dtype=torch.float32, device=CPU, quantisation=asked.settings.quantisation(CPU))
    model = prepare(base, tune, asked.settings)
    held: dict[int, int] = {}
    for weight in (*model.parameters(), *model.buffers()):
        held[weight.data_ptr()] = weight.nbytes
        state = getattr(weight, "quant_state", None)
        # Two tables of 16 and 256 numbers belong to all layers; bitsandbytes keeps them with each.
        for constants in [] if state is None else [state.absmax, *([state.state2.absmax] if double else [])]:
            held[constants.data_ptr()] = constants.nbytes
    assert expected.weights_bytes == sum(held.values())
    assert expected.trainable_parameters == sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    assert followed_bytes(expected) - expected.optimiser_bytes - expected.weights_bytes == pytest.approx(
        tracked_for_real(model, asked) - sum(weight.nbytes for weight in (*model.parameters(), *model.buffers())),
        rel=0.05,
    )


def test_more_rows_tokens_or_rank_take_more() -> None:
    def taken(rows: int, tokens: int, learned: int, rank: int) -> int:
        return followed_bytes(estimate_memory(plan(rows, tokens, learned, rank=rank)))

    least = taken(3, 16, 4, 2)
    assert taken(4, 16, 4, 2) > least
    assert taken(3, 24, 4, 2) > least
    assert taken(3, 16, 8, 2) >= least  # the peak need not fall into the loss
    assert taken(3, 16, 4, 3) > least


def test_logits_are_never_held_whole() -> None:
    many = config(vocab_size=5000, num_hidden_layers=1)
    few, more = (estimate_memory(of(many, Tune(), equal_rows(8, 200, learned))) for learned in (32, 190))
    assert few.logits_bytes == more.logits_bytes == 2 * 256 * 5000 * 4


def test_a_head_that_is_not_plain_holds_its_logits() -> None:
    capped = config("gemma2", num_key_value_heads=1, head_dim=8, vocab_size=5000, final_logit_softcapping=30.0)
    found = estimate_memory(of(capped, Tune(), equal_rows(4, 32, 16)))
    assert found.logits_bytes >= 2 * 4 * 16 * 5000 * 4


def test_an_architecture_that_takes_no_trie_is_followed_on_padded_rows() -> None:
    bloom = AutoConfig.for_model("bloom", vocab_size=3000, hidden_size=16, n_layer=1, n_head=2)
    found = estimate_memory(of(bloom, Tune(method="full"), BatchShape((20, 18, 16), (10, 8, 6))))
    assert found.logits_bytes >= 2 * 3 * 10 * 3000 * 4


def test_activation_checkpointing_takes_less() -> None:
    deep, batch = config(num_hidden_layers=6), equal_rows(4, 48, 24)
    plain = estimate_memory(of(deep, Tune(), batch))
    checkpointed = estimate_memory(of(deep, Tune(), batch, activation_checkpointing=True))
    assert checkpointed.activations_bytes < 0.5 * plain.activations_bytes


def test_eager_attention_holds_its_scores() -> None:
    batch = equal_rows(2, 64, 8)
    sdpa, eager = (estimate_memory(of(config(), Tune(), batch, attention=kind)) for kind in ("sdpa", "eager"))
    scores = 2 * 4 * 64 * 64 * 4
    assert eager.activations_bytes - sdpa.activations_bytes >= 2 * scores


@pytest.mark.parametrize("optimiser", ["adamw_torch_fused", "adafactor", "sgd"])
def test_an_optimiser_keeps_what_is_foreseen(optimiser: str) -> None:
    from transformers import Adafactor

    model = nn.Sequential(nn.Embedding(30, 8), nn.Linear(8, 5))
    makers: dict[str, Any] = {
        "adamw_torch_fused": lambda: torch.optim.AdamW(model.parameters()),
        "adafactor": lambda: Adafactor(model.parameters(), lr=1e-3, relative_step=False),
        "sgd": lambda: torch.optim.SGD(model.parameters()),
    }
    trained = makers[optimiser]()
    model(torch.zeros(3, dtype=torch.long)).sum().backward()
    trained.step()
    states = [value for state in trained.state.values() for value in state.values() if isinstance(value, torch.Tensor)]
    assert optimiser_bytes(optimiser, model) == sum(value.nbytes for value in states if value.ndim)


def test_moments_of_8_bits_are_for_large_matrices_alone() -> None:
    model = nn.Sequential(nn.Embedding(100, 64), nn.Linear(64, 128))
    embedding, weight, bias = 8 * 6400, 2 * (8192 + 4 * 32), 8 * 128
    assert optimiser_bytes("adamw_bnb_8bit", model) == embedding + weight + bias


def test_accumulated_gradients_are_there_at_the_peak() -> None:
    once = estimate_memory(plan(method="full"))
    twice = estimate_memory(plan(method="full", accumulation=2))
    assert twice.gradients_bytes == 4 * twice.trainable_parameters
    assert twice.gradients_bytes > once.gradients_bytes


def test_bfloat16_halves_frozen_weights_alone() -> None:
    lora, half = estimate_memory(plan(rank=1)), estimate_memory(plan(rank=1, precision="bfloat16"))
    assert half.weights_bytes < 0.6 * lora.weights_bytes
    assert half.optimiser_bytes == lora.optimiser_bytes  # the adapter stays float32
    full, mixed = estimate_memory(plan(method="full")), estimate_memory(plan(method="full", precision="bfloat16"))
    assert full.weights_bytes == mixed.weights_bytes


def test_loading_counts_the_stored_type_beside_the_asked_one() -> None:
    def loading(stored: str) -> int:
        row = estimate_memory(of(config(dtype=stored), Tune(), equal_rows(1, 4, 2)))
        return row.loading_bytes - row.runtime_bytes

    weights = loading("float32")
    assert loading("bfloat16") == pytest.approx(1.5 * weights, rel=0.01)


def test_pages_of_the_weights_file_need_not_be_there() -> None:
    large = config(dtype="float32", hidden_size=256, intermediate_size=1024)
    row = estimate_memory(of(large, Tune(method="qlora"), equal_rows(1, 4, 2), "bfloat16"))
    assert row.peak_bytes == row.loading_bytes > row.needed_bytes
    assert row.mapped_bytes == pytest.approx(4 * (row.total_parameters - row.trainable_parameters))
    assert row.needed_bytes == row.training_bytes
    enough = replace(row, available_bytes=row.training_bytes - row.held_bytes)
    assert enough.fits
    assert not replace(enough, available_bytes=enough.available_bytes - 1).fits


def test_what_cannot_be_followed_is_one_line() -> None:
    experts = config("mixtral", num_local_experts=2, num_key_value_heads=2)
    batch, full = equal_rows(2, 8, 4), Tune(method="full")
    with pytest.raises(UserError, match="'mixtral' takes cannot be foreseen"):
        estimate_memory(of(experts, full, batch))
    with pytest.raises(UserError, match="causal language model"):
        estimate_memory(of(AutoConfig.for_model("vit"), full, batch))
    with pytest.raises(estimate.UnforeseeableError, match="'dpo' takes is not foreseen"):
        estimate_memory(of(config(), Tune(method="dpo"), batch))


def parts(estimated: estimate.MemoryEstimate) -> int:
    return estimated.needed_bytes - estimated.held_bytes


@pytest.mark.parametrize(("method", "share"), [("lora", 0.5), ("full", 0.8)])
def test_advice_fits(method: str, share: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimate, "_START_UP_BYTES", 0)
    asked = plan(8, 64, 32, method=method, accumulation=3)
    budget = int(share * parts(estimate_memory(asked)))
    monkeypatch.setattr(estimate, "available_bytes", lambda device: budget)
    assert not estimate_memory(asked).fits
    found = alternatives(asked)
    assert found
    for way in found:
        assert estimate_memory(way.plan).fits
        assert way.plan != asked
    smaller = found[0].plan.tune
    assert smaller.batch_size * smaller.accumulation == 24
    assert f"tune.batch_size: {smaller.batch_size}, tune.accumulation: {smaller.accumulation}" in found[0].text
    assert any("data.max_tokens:" in way.text for way in found)


def test_qlora_takes_less_for_a_large_base_and_is_told_where_it_can_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    wide = config(hidden_size=512, intermediate_size=2048, num_hidden_layers=1)
    asked = of(wide, Tune(batch_size=1, rank=1), equal_rows(1, 4, 2), "bfloat16")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    quantised = advice._quantised(asked)
    assert quantised is not None
    assert estimate_memory(quantised).weights_bytes < 0.4 * estimate_memory(asked).weights_bytes
    assert advice._quantised(replace(asked, device=torch.device("mps"))) is None
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert advice._quantised(asked) is None


def test_all_is_changed_together_only_when_nothing_suffices_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    whole, budget = estimate_memory(plan()), 0

    def needs_half_for_each_setting(asked: Plan) -> MemoryEstimate:
        halves = [asked.settings.activation_checkpointing, asked.settings.precision == "bfloat16", asked.tune.adapts]
        halves += [asked.settings.quantised]
        needed = 2 ** halves.count(False) * sum(asked.batch.row_tokens)
        return replace(
            whole, activations_bytes=needed, available_bytes=whole.training_bytes - whole.held_bytes + budget
        )

    whole = replace(whole, activations_bytes=0, loading_bytes=0)
    monkeypatch.setattr(advice, "estimate_memory", needs_half_for_each_setting)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    asked, budget = plan(16, 64, 32, method="full"), 8
    (only,) = alternatives(asked)
    for setting in (
        "tune.method: qlora",
        "tune.activation_checkpointing: true",
        "tune.precision: bfloat16",
        "tune.batch_size: 1, tune.accumulation: 16",
        "data.max_tokens: 8",
    ):
        assert setting in only.text
    budget = 7
    assert alternatives(asked) == []
    budget = 16 * 64 * 8
    assert [way.text.partition(" (")[0] for way in alternatives(asked)] == [
        "tune.batch_size: 8, tune.accumulation: 2",
        "tune.activation_checkpointing: true",
        "tune.precision: bfloat16",
        "tune.method: lora",
        "data.max_tokens: 32 and data.too_long: drop",
    ]


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


def test_the_largest_batch_has_the_longest_rows_and_the_longest_answers() -> None:
    rows = lengths((5, 5), (20, 10), (2, 18), (25, 4))
    assert largest_batch(rows, None, Tune(batch_size=2), 512) == BatchShape((30, 29), (18, 10))
    assert largest_batch(rows, None, Tune(batch_size=2), 24) == BatchShape((24, 20), (18, 5))
    assert largest_batch(rows, None, Tune(batch_size=16), 512) == BatchShape((30, 29, 20, 10), (18, 10, 5, 4))
    assert largest_batch(lengths((0, 10)), None, Tune(batch_size=1), 512) == BatchShape((10,), (10,))
    assert [row.loss_tokens for row in BatchShape((10, 4), (10, 3)).rows()] == [9, 3]


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(1, 20)), min_size=1, max_size=80), st.integers(1, 5))
@settings(max_examples=30)
def test_no_batch_of_an_epoch_is_larger(sizes: list[tuple[int, int]], size: int) -> None:
    shape = largest_batch(lengths(*sizes), None, Tune(batch_size=size), 512)
    rows = [Row(str(place), [1] * (prompt + answer), prompt) for place, (prompt, answer) in enumerate(sizes)]
    order = RowOrder(rows, size, seed=0).epoch(0).tolist()
    for batch in ([rows[index] for index in order[at : at + size]] for at in range(0, len(order), size)):
        assert sum(len(row.input_ids) for row in batch) <= sum(shape.row_tokens)
        assert sum(row.loss_tokens for row in batch) <= sum(shape.answer_tokens)
        assert max(len(row.input_ids) for row in batch) <= shape.row_tokens[0]
    assert all(answer <= tokens for tokens, answer in zip(shape.row_tokens, shape.answer_tokens, strict=True))


def test_long_replayed_rows_are_counted_as_often_as_they_come() -> None:
    task, replay, tune = [(10, 20)] * 300, [(100, 200)] * 20, Tune(batch_size=16)
    shape = largest_batch(lengths(*task), lengths(*replay), tune, 512, replay_fraction=0.2)
    rows = [Row(f"t{number}", [1] * 30, 10) for number in range(300)]
    rows += [Row(f"r{number}", [1] * 300, 100, "replay") for number in range(20)]
    order = RowOrder(rows, 16, 0, 0.2)
    epoch = order.epoch(0)
    sizes = [sum(len(rows[index].input_ids) for index in epoch[at : at + 16]) for at in range(0, len(epoch) - 16, 16)]
    assert max(sizes) <= sum(shape.row_tokens) <= 2 * max(sizes) < 16 * 300


def test_the_same_plan_is_estimated_the_same() -> None:
    first, second = estimate_memory(plan()), estimate_memory(plan())
    assert first.training_bytes - first.runtime_bytes == second.training_bytes - second.runtime_bytes
    row = first.as_row()
    assert row["fits"]
    assert row["peak_bytes"] == first.peak_bytes
    assert row["calibrated"]
