"""Every kind of adapter: float32 weights, saved by PEFT and put on again."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from whetstone.errors import UserError
from whetstone.model_section import Scratch
from whetstone.models.adapter import add_adapter, load_adapter
from whetstone.models.load import load_weights
from whetstone.models.quantise import nf4
from whetstone.models.scratch import save_scratch
from whetstone.tune_section import Tune

SHAPE = Scratch(vocabulary_size=300, dim=64, layers=2, heads=4, feed_forward_dim=128, context_tokens=64)
CPU = torch.device("cpu")
IDS = torch.tensor([[5, 6, 7, 8, 9]])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model")
    save_scratch(path, SHAPE, ["The cat sits on the mat."] * 3, seed=1)
    return path


def load(folder: Path, tune: Tune, dtype: str = "float32") -> PreTrainedModel:
    if tune.method != "qlora":
        return load_weights(folder, dtype=dtype, device=CPU)
    pytest.importorskip("bitsandbytes")
    return load_weights(folder, dtype=dtype, device=CPU, quantisation=nf4(CPU, compute_dtype=torch.float32))


@pytest.mark.parametrize("method", ["lora", "qlora"])
@pytest.mark.parametrize("options", [{}, {"dora": True}, {"rslora": True}, {"dora": True, "rslora": True}])
def test_a_saved_adapter_gives_the_same_answers(
    method: Any, options: dict[str, Any], folder: Path, tmp_path: Path
) -> None:
    tune = Tune(method=method, rank=4, **options)
    adapted = add_adapter(load(folder, tune), tune).eval()
    before = load(folder, tune)(IDS).logits
    for parameter in adapted.parameters():
        if parameter.requires_grad:
            parameter.data.add_(torch.randn_like(parameter), alpha=0.1)
    after = adapted(IDS).logits.detach()
    assert not torch.allclose(after, before, atol=1e-2)
    adapted.save_pretrained(tmp_path)
    again = load_adapter(load(folder, tune), tmp_path)
    assert torch.equal(again(IDS).logits, after)
    with again.disable_adapter():
        assert torch.equal(again(IDS).logits, before)


def test_the_kinds_scale_and_decompose_differently(folder: Path) -> None:
    plain, stable = Tune(rank=16, alpha=32), Tune(rank=16, alpha=32, rslora=True)
    for tune, scale in ((plain, 2.0), (stable, 8.0)):
        layer = add_adapter(load(folder, tune), tune).base_model.model.model.layers[0].self_attn.q_proj
        assert layer.scaling["default"] == scale
    dora = Tune(rank=16, dora=True)
    names = [name for name, _ in add_adapter(load(folder, dora), dora).named_parameters()]
    assert any("lora_magnitude_vector" in name for name in names)


@pytest.mark.parametrize("tune", [Tune(), Tune(dora=True), Tune(method="qlora"), Tune(method="qlora", dora=True)])
def test_adapters_on_bfloat16_weights_are_float32(tune: Tune, folder: Path) -> None:
    adapted = add_adapter(load(folder, tune, "bfloat16"), tune)
    assert {parameter.dtype for parameter in adapted.parameters() if parameter.requires_grad} == {torch.float32}
    assert adapted.get_input_embeddings().weight.dtype == torch.bfloat16


def test_an_adapter_of_another_shape_is_refused(folder: Path, tmp_path: Path) -> None:
    save_scratch(tmp_path / "other", Scratch(vocabulary_size=300, dim=32, layers=2), ["The cat."], seed=1)
    adapted = add_adapter(load(tmp_path / "other", Tune()), Tune())
    adapted.save_pretrained(tmp_path / "adapter")
    with pytest.raises(UserError, match="does not fit the base model"):
        load_adapter(load(folder, Tune()), tmp_path / "adapter")
