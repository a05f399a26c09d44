"""NF4: what is quantised, that it learns on a CPU, and that an evaluation in between does not spoil it. And int8."""

import hashlib
import importlib.util
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedModel

from whetstone.errors import UserError
from whetstone.model_section import Scratch
from whetstone.models.adapter import add_adapter, load_adapter
from whetstone.models.load import load_weights
from whetstone.models.quantise import nf4, require_bitsandbytes, round_to_int8
from whetstone.models.scratch import save_scratch
from whetstone.tune_section import Tune

SHAPE = Scratch(vocabulary_size=300, dim=64, layers=2, heads=4, feed_forward_dim=128, context_tokens=64)
CPU = torch.device("cpu")
TUNE = Tune(method="qlora", rank=8)
TYPES = [torch.float32, torch.bfloat16, torch.float16]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model")
    save_scratch(path, SHAPE, ["The cat sits on the mat."] * 3, seed=1)
    return path


def load(folder: Path, compute: torch.dtype = torch.float32, double: bool = True) -> PreTrainedModel:
    pytest.importorskip("bitsandbytes")
    quantisation = nf4(CPU, compute_dtype=compute, double=double)
    return load_weights(folder, dtype="float32", device=CPU, quantisation=quantisation)


def rows() -> torch.Tensor:
    return torch.randint(3, 250, (4, 16), generator=torch.Generator().manual_seed(0))


def loss_of(model: torch.nn.Module) -> torch.Tensor:
    loss: torch.Tensor = model(input_ids=rows(), labels=rows(), use_cache=False).loss
    return loss


def gradients(model: torch.nn.Module) -> list[torch.Tensor]:
    model.zero_grad()
    loss_of(model).backward()
    return [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]


def digest_of_base(model: torch.nn.Module) -> str:
    hashed = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        if "lora_" not in name:
            hashed.update(name.encode() + tensor.contiguous().view(torch.uint8).numpy().tobytes())
    return hashed.hexdigest()


@pytest.mark.parametrize("double", [True, False])
def test_the_layers_are_in_4_bits_and_head_and_embeddings_are_not(folder: Path, double: bool) -> None:
    model = load(folder, double=double)
    for layer in model.model.layers:
        for weight in (layer.self_attn.q_proj.weight, layer.mlp.down_proj.weight):
            assert weight.dtype == torch.uint8
            assert weight.numel() * 2 == weight.quant_state.shape.numel()
            assert weight.quant_state.quant_type == "nf4"
            assert weight.quant_state.nested == double
    assert type(model.lm_head) is torch.nn.Linear
    assert model.lm_head.weight.dtype == torch.float32
    assert model.lm_head.weight is model.get_input_embeddings().weight
    assert not model.training


@pytest.mark.parametrize("compute", TYPES)
def test_it_computes_nearly_the_same(folder: Path, compute: torch.dtype) -> None:
    whole = load_weights(folder, dtype="float32", device=CPU)(rows()).logits
    quantised = load(folder, compute)(rows()).logits
    assert 0 < (whole - quantised).abs().mean() < 0.2 * whole.abs().mean()


@pytest.mark.parametrize("compute", TYPES)
def test_an_evaluation_leaves_the_gradients_as_they_were(folder: Path, compute: torch.dtype) -> None:
    torch.manual_seed(0)
    model = add_adapter(load(folder, compute), TUNE).train()
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.02)
    before = gradients(model)
    with torch.no_grad():
        evaluated = loss_of(model.eval())
    assert torch.equal(evaluated, loss_of(model.train()))
    assert all(torch.equal(first, second) for first, second in zip(before, gradients(model), strict=True))
    assert all(gradient.abs().sum() > 0 for gradient in before)


def test_an_adapter_learns_on_a_base_that_stays_as_it_is(folder: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = add_adapter(load(folder), TUNE).train()
    base = digest_of_base(model)
    optimiser = torch.optim.AdamW([weight for weight in model.parameters() if weight.requires_grad], lr=1e-2)
    losses = []
    for _ in range(30):
        loss = loss_of(model)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]
    assert digest_of_base(model) == base
    assert model.base_model.model.model.layers[0].mlp.up_proj.base_layer.weight.dtype == torch.uint8
    model.save_pretrained(tmp_path)
    logits = model.eval()(rows()).logits
    again = load_adapter(load(folder), tmp_path)
    assert torch.equal(again(rows()).logits, logits)
    assert digest_of_base(again) == base


def test_mps_is_refused_with_what_to_do() -> None:
    with pytest.raises(UserError, match=r"tune\.method: 'qlora' cannot be trained on MPS.*use lora"):
        nf4(torch.device("mps"), compute_dtype=torch.float32)


def test_what_was_asked_is_what_is_answered_to(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"^run:demo@nf4: NF4 is not tested on MPS; use @int8"):
        nf4(torch.device("mps"), compute_dtype=torch.float32, asked="run:demo@nf4")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"^run:demo@nf4: .* needs bitsandbytes"):
        nf4(CPU, compute_dtype=torch.float32, asked="run:demo@nf4")


def test_a_missing_package_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'whetstone\[qlora\]'"):
        nf4(CPU, compute_dtype=torch.float32)
    with pytest.raises(UserError, match=r"^tune\.optimiser: 'adamw_8bit' needs bitsandbytes"):
        require_bitsandbytes("tune.optimiser", "adamw_8bit")


def in_int8(folder: Path, dtype: str = "float32") -> PreTrainedModel:
    model = load_weights(folder, dtype=dtype, device=CPU)
    assert round_to_int8(model) == 14
    return model


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_int8_weights_are_the_nearest_of_255_steps(folder: Path, dtype: str) -> None:
    whole, rounded = load_weights(folder, dtype=dtype, device=CPU), in_int8(folder, dtype)
    for before, after in zip(whole.model.layers, rounded.model.layers, strict=True):
        exact, weight = before.mlp.up_proj.weight.float(), after.mlp.up_proj.weight
        codes, scales = after.mlp.up_proj.parametrizations.weight.parameters()
        assert (codes.dtype, weight.dtype) == (torch.int8, before.mlp.up_proj.weight.dtype)
        assert codes.abs().amax(dim=1).min() >= 126
        # Half a step, and what the type of the weights rounds away.
        allowed = 0.5 * scales.float() + torch.finfo(weight.dtype).eps * exact.abs()
        assert ((weight.float() - exact).abs() <= 1.01 * allowed).all()
    assert type(rounded.lm_head) is torch.nn.Linear
    assert rounded.dtype == whole.dtype


def test_int8_computes_nearly_the_same_and_each_row_as_if_alone(folder: Path) -> None:
    whole, rounded = load_weights(folder, dtype="float32", device=CPU), in_int8(folder)
    # One that is much larger than the others decides nothing for them.
    with torch.no_grad():
        whole.get_input_embeddings().weight[7] *= 100
        rounded.get_input_embeddings().weight[7] *= 100
        ids = rows()
        ids[1] = 7
        exact, logits = whole(ids).logits, rounded(ids).logits
        assert 0 < (exact - logits).abs().mean() < 0.02 * exact.abs().mean()
        assert torch.allclose(rounded(ids[:1]).logits, logits[:1], rtol=1e-4, atol=1e-5)


def test_int8_takes_an_output_of_zeros(folder: Path) -> None:
    model = load_weights(folder, dtype="float32", device=CPU)
    with torch.no_grad():
        model.model.layers[0].mlp.up_proj.weight[3] = 0
    round_to_int8(model)
    assert not model.model.layers[0].mlp.up_proj.weight[3].any()
    assert model(rows()).logits.isfinite().all()


@pytest.mark.parametrize("dora", [False, True])
def test_an_adapter_on_int8_adds_to_the_rounded_weights(folder: Path, tmp_path: Path, dora: bool) -> None:
    torch.manual_seed(0)
    adapted = add_adapter(load_weights(folder, dtype="float32", device=CPU), Tune(rank=4, dora=dora))
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    adapted.save_pretrained(tmp_path)
    with torch.no_grad():
        exact = adapted.eval()(rows()).logits
        on_int8 = load_adapter(in_int8(folder), tmp_path)(rows()).logits
        unadapted = in_int8(folder)(rows()).logits
    assert (on_int8 - exact).abs().mean() < 0.1 * (unadapted - exact).abs().mean()
