"""Out of memory: a step is begun again in smaller pieces, and learns what it would have learned."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from whetstone.errors import UserError
from whetstone.models.adapter import add_adapter
from whetstone.train.batch import Row
from whetstone.train.loss import Loss, PartLoss
from whetstone.train.micro import MicroBatches, is_out_of_memory
from whetstone.train.order import RowOrder
from whetstone.train.trainer import fit
from whetstone.tune_section import Method, Tune

CUDA = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
CPU = RuntimeError("[enforce fail at alloc_cpu.cpp:125] DefaultCPUAllocator: can't allocate memory: you tried to")
MPS = RuntimeError("MPS backend out of memory (MPS allocated: 5.05 GB, other allocations: 2.07 GB)")
STEPS = 5


def rows(count: int) -> list[Row]:
    generator = torch.Generator().manual_seed(1)
    return [
        Row(f"row {n}", tuple(torch.randint(1, 60, (5 + n % 9,), generator=generator).tolist()), 2)
        for n in range(count)
    ]


def model(tune: Tune) -> PreTrainedModel:
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
    made = LlamaForCausalLM(LlamaConfig(vocab_size=60, max_position_embeddings=64, pad_token_id=0, **shape))
    return add_adapter(made, tune).train() if tune.adapts else made.train()


def learned(trained: PreTrainedModel) -> dict[str, torch.Tensor]:
    return {name: weight.detach() for name, weight in trained.named_parameters() if weight.requires_grad}


def close(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.allclose(weight, other[name], atol=3e-5) for name, weight in one.items())


Parts = Callable[[Loss, Sequence[Row]], Iterator[PartLoss]]


def limited(rows_at_once: int, error: RuntimeError, real: Parts) -> Parts:
    """A loss for which memory suffices up to so many rows."""

    def parts(self: Loss, batch: Sequence[Row]) -> Iterator[PartLoss]:
        if len(batch) > rows_at_once:
            raise error
        return real(self, batch)

    return parts


@pytest.mark.parametrize("error", [CUDA, CPU, MPS])
def test_each_allocator_is_understood(error: RuntimeError) -> None:
    assert is_out_of_memory(error)


@pytest.mark.parametrize(
    "text", ["mat1 and mat2 shapes cannot be multiplied", "CUDA error: device-side assert triggered", ""]
)
def test_another_error_is_not_taken_for_it(text: str) -> None:
    assert not is_out_of_memory(RuntimeError(text))


@settings(max_examples=8)  # each halving collects garbage
@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 3))
def test_micro_batches_hold_every_row_once_and_halve_down_to_one(count: int, at_once: int, halvings: int) -> None:
    said, step = list[str](), rows(count)
    micro = MicroBatches(at_once, said.append)
    for _ in range(halvings):
        before = min(micro.rows, count)
        if before == 1:
            with pytest.raises(UserError, match="one row at a time"):
                micro.halve(1, step)
            break
        micro.halve(1, step)
        assert 1 <= micro.rows < before
    assert [row for part in micro.cut(step) for row in part] == step
    assert max(len(part) for part in micro.cut(step)) <= micro.rows
    assert said == micro.notes


def test_the_size_that_fitted_outlives_the_process() -> None:
    micro = MicroBatches(16, lambda line: None)
    micro.halve(3, rows(16))
    again = MicroBatches(16, lambda line: None)
    again.restore(micro.state())
    assert again.rows == 8
    assert again.notes == micro.notes
    again.halve(4, rows(16))
    assert len(micro.notes) == 1


@pytest.mark.parametrize(("method", "error"), [("lora", CUDA), ("full", CPU)])
def test_a_run_short_of_memory_learns_what_smaller_batches_learn(
    tmp_path: Path, make_session: Any, monkeypatch: pytest.MonkeyPatch, method: Method, error: RuntimeError
) -> None:
    tune = Tune(method=method, rank=4, steps=STEPS, batch_size=4, accumulation=4, learning_rate=1e-2)
    small = model(tune)
    fit(small, RowOrder(rows(40), 16, 0), rows(3), tune, make_session(tmp_path))
    short = model(tune)
    monkeypatch.setattr(Loss, "parts", limited(4, error, Loss.parts))
    asked = tune.model_copy(update={"batch_size": 16, "accumulation": 1})
    result = fit(short, RowOrder(rows(40), 16, 0), rows(12), asked, make_session(tmp_path))
    assert close(learned(short), learned(small))
    assert [note for note in result.notes if "Out of memory at step 1" in note] == list(result.notes)
    assert len(result.notes) == 2
    assert "4 rows are computed at once instead of 8; an optimiser step still learns 16" in result.notes[-1]


def test_memory_that_ends_within_a_step_counts_no_row_twice(
    tmp_path: Path, make_session: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second of four micro-batches of the third step fails, after the first has left its gradient."""
    tune = Tune(method="full", steps=STEPS, batch_size=4, accumulation=4, learning_rate=1e-2)
    whole = model(tune)
    undisturbed = fit(whole, RowOrder(rows(40), 16, 0), [], tune, make_session(tmp_path))
    short, real, calls = model(tune), Loss.parts, 0

    def parts(self: Loss, batch: Sequence[Row]) -> Iterator[PartLoss]:
        nonlocal calls
        calls += 1
        if calls == 2 * 4 + 2:
            raise CPU
        return real(self, batch)

    monkeypatch.setattr(Loss, "parts", parts)
    result = fit(short, RowOrder(rows(40), 16, 0), [], tune, make_session(tmp_path))
    assert close(learned(short), learned(whole))
    assert result.loss_tokens == undisturbed.loss_tokens
    assert result.final_loss == pytest.approx(undisturbed.final_loss, abs=1e-4)
    assert ["at step 3: 2 rows" in note for note in result.notes] == [True]


def test_memory_that_ends_in_the_backward_pass_is_understood_too(
    tmp_path: Path, make_session: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    tune = Tune(method="full", steps=STEPS, batch_size=16, learning_rate=1e-2)
    whole = model(tune)
    fit(whole, RowOrder(rows(40), 16, 0), [], tune, make_session(tmp_path))
    short, real = model(tune), Loss.parts

    def fails(gradient: torch.Tensor) -> None:
        raise CPU

    def parts(self: Loss, batch: Sequence[Row]) -> Iterator[PartLoss]:
        for part in real(self, batch):
            if len(batch) > 8:
                part.total.register_hook(fails)
            yield part

    monkeypatch.setattr(Loss, "parts", parts)
    result = fit(short, RowOrder(rows(40), 16, 0), [], tune, make_session(tmp_path))
    assert close(learned(short), learned(whole))
    assert len(result.notes) == 1


def test_one_row_that_is_too_large_is_named(tmp_path: Path, make_session: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever was halved before it."""
    tune = Tune(method="full", steps=STEPS, batch_size=16)
    monkeypatch.setattr(Loss, "parts", limited(0, CUDA, Loss.parts))
    with pytest.raises(UserError, match=r"step 1: out of memory with one row at a time \(longest: example 'row \d+'"):
        fit(model(tune), RowOrder(rows(40), 16, 0), [], tune, make_session(tmp_path))


def test_another_error_of_the_model_is_not_swallowed(
    tmp_path: Path, make_session: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    tune = Tune(method="full", steps=STEPS, batch_size=16)
    monkeypatch.setattr(Loss, "parts", limited(4, RuntimeError("mat1 and mat2"), Loss.parts))
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        fit(model(tune), RowOrder(rows(40), 16, 0), [], tune, make_session(tmp_path))
