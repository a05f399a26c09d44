"""Whole trainings of tiny models: what saves memory or time changes nothing else."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, PreTrainedModel

from whetstone.models.adapter import load_adapter
from whetstone.models.load import load_weights
from whetstone.models.quantise import nf4
from whetstone.train.batch import Row
from whetstone.train.loss import Loss
from whetstone.train.order import RowOrder
from whetstone.train.prepare import prepare
from whetstone.train.recorder import StepMetrics
from whetstone.train.session import Session
from whetstone.train.trainer import fit
from whetstone.tune_section import Checkpoints, Method, Tune, Validation

CPU = torch.device("cpu")
STEPS = 12
VOCABULARY = 60


def rows() -> list[Row]:
    """Answers that can be learned: each token is the one before it and three."""
    made = []
    for n in range(40):
        tokens = tuple((n + 3 * place) % (VOCABULARY - 1) + 1 for place in range(6 + n % 9))
        made.append(Row(f"row {n}", tokens, 2))
    return made


ROWS = rows()


def save_base(folder: Path) -> Path:
    torch.manual_seed(0)
    shape = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = LlamaConfig(vocab_size=VOCABULARY, max_position_embeddings=64, pad_token_id=0, **shape)
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def learned(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    return {name: weight.detach().clone() for name, weight in model.named_parameters() if weight.requires_grad}


def largest_difference(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    assert one.keys() == other.keys()
    return max(float((weight - other[name]).abs().max()) for name, weight in one.items())


def trained(
    base: Path, tune: Tune, session: Session, weights: PreTrainedModel | None = None, **settings: Any
) -> tuple[PreTrainedModel, list[StepMetrics]]:
    """A prepared model that has been trained, and its curve."""
    curve: list[StepMetrics] = []
    session = replace(session, settings=replace(session.settings, **settings), observer=curve.append)
    loaded = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32) if weights is None else weights
    model = prepare(loaded, tune, session.settings)
    fit(model, RowOrder(ROWS, tune.batch_size * tune.accumulation, tune.seed), ROWS[:5], tune, session)
    return model, curve


@pytest.mark.parametrize("dropout", [0.0, 0.2])
@pytest.mark.parametrize("method", ["lora", "full"])
def test_activation_checkpointing_learns_the_same(
    tmp_path: Path, make_session: Any, method: Method, dropout: float
) -> None:
    """Also with dropout, whose masks have to be drawn alike when activations are computed again."""
    base = save_base(tmp_path / "base")
    tune = Tune(method=method, rank=4, dropout=dropout, steps=STEPS, batch_size=8, learning_rate=5e-3)
    plain, curve = trained(base, tune, make_session(tmp_path))
    saving, curve_again = trained(base, tune, make_session(tmp_path), activation_checkpointing=True)
    assert largest_difference(learned(plain), learned(saving)) < 1e-4
    assert [row.loss for row in curve_again] == pytest.approx([row.loss for row in curve], abs=1e-4)
    assert curve[-1].loss < curve[0].loss


def test_activation_checkpointing_computes_activations_twice(
    tmp_path: Path, make_session: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the test above would compare a thing with itself."""
    base = save_base(tmp_path / "base")
    tune = Tune(rank=4, steps=2, batch_size=8)
    counts = []
    for checkpointing in (False, True):
        model = prepare(
            AutoModelForCausalLM.from_pretrained(base),
            tune,
            replace(make_session(tmp_path).settings, activation_checkpointing=checkpointing),
        )
        calls: list[None] = []
        loss = Loss(model, ROWS)
        model.get_base_model().model.layers[0].mlp.register_forward_pre_hook(lambda *_, calls=calls: calls.append(None))
        for part in loss.parts(ROWS[:8]):
            part.total.backward()
        counts.append(len(calls))
    assert counts == [1, 2]


@pytest.mark.parametrize("double", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_qlora_trains_and_its_adapter_is_saved_and_loaded_again(
    tmp_path: Path, make_session: Any, double: bool
) -> None:
    pytest.importorskip("bitsandbytes")
    base = save_base(tmp_path / "base")
    tune = Tune(method="qlora", rank=4, steps=30, batch_size=8, learning_rate=1e-2, validation=Validation(every=7))
    config = nf4(CPU, compute_dtype=torch.float32, double=double)

    def quantised() -> PreTrainedModel:
        return load_weights(base, dtype=torch.float32, device=CPU, quantisation=config)

    model, curve = trained(base, tune, make_session(tmp_path), quantised(), quantised=True)
    assert curve[-1].loss < 0.9 * curve[0].loss
    model.save_pretrained(tmp_path / "adapter")
    saved = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    assert {name.rsplit(".", 2)[1] for name in saved} == {"lora_A", "lora_B"}
    assert all(tensor.dtype == torch.float32 for tensor in saved.values())
    ids = torch.tensor([ROWS[0].input_ids])
    again = load_adapter(quantised(), tmp_path / "adapter")
    with torch.no_grad():
        expected, logits = model.eval()(input_ids=ids).logits, again(input_ids=ids).logits
        assert torch.allclose(logits, expected, atol=1e-5)
        with again.disable_adapter():
            assert not torch.allclose(again(input_ids=ids).logits, expected, atol=1e-2)


def test_qlora_goes_on_where_it_was_interrupted(tmp_path: Path, make_session: Any) -> None:
    pytest.importorskip("bitsandbytes")
    base = save_base(tmp_path / "base")
    tune = Tune(
        method="qlora", rank=4, dropout=0.1, steps=STEPS, batch_size=8, checkpoints=Checkpoints(every=5, keep=9)
    )
    config = nf4(CPU, compute_dtype=torch.float32)

    def weights() -> PreTrainedModel:
        return load_weights(base, dtype=torch.float32, device=CPU, quantisation=config)

    session = make_session(tmp_path, keeps_checkpoints=True)
    whole, curve = trained(base, tune, session, weights(), quantised=True)
    for folder in (tmp_path / "checkpoints").iterdir():
        if int(folder.name.removeprefix("step-")) > 5:
            shutil.rmtree(folder)
    again, rest = trained(base, tune, replace(session, resume=True), weights(), quantised=True)
    assert [row.step for row in rest] == list(range(6, STEPS + 1))
    assert [row.loss for row in rest] == [row.loss for row in curve[-len(rest) :]]
    assert largest_difference(learned(whole), learned(again)) == 0


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("method", ["lora", "full"])
def test_compiled_training_has_nearly_the_same_curve(tmp_path: Path, make_session: Any, method: Method) -> None:
    base = save_base(tmp_path / "base")
    tune = Tune(method=method, rank=4, steps=25, batch_size=8, learning_rate=5e-3)
    eager, curve = trained(base, tune, make_session(tmp_path))
    compiled, curve_again = trained(base, tune, make_session(tmp_path), compile=True)
    assert [row.loss for row in curve_again] == pytest.approx([row.loss for row in curve], abs=5e-3)
    assert curve_again[-1].loss < 0.9 * curve_again[0].loss
    names = {name.replace("_orig_mod.", "") for name in learned(compiled)}
    assert names == set(learned(eager))
