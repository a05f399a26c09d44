"""A prepared model learns the same whatever saves memory or time, and its memory can be capped."""

import resource
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel, set_seed

from whetstone.errors import UserError
from whetstone.models.adapter import add_adapter
from whetstone.models.load import load_weights
from whetstone.models.quantise import nf4
from whetstone.train.prepare import compiled_layers, memory_cap, prepare
from whetstone.train.settings import Settings
from whetstone.tune_section import Tune

CPU = torch.device("cpu")
PLAIN: dict[str, Any] = {
    "precision": "float32",
    "weights_dtype": torch.float32,
    "attention": "sdpa",
    "optimiser": "adamw_torch_fused",
    "compile": False,
    "activation_checkpointing": False,
    "quantised": False,
    "double_quantisation": True,
    "notes": (),
}


def model() -> PreTrainedModel:
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    return LlamaForCausalLM(LlamaConfig(vocab_size=100, max_position_embeddings=32, **shape)).eval()


def prepared(tune: Tune, base: PreTrainedModel | None = None, **settings: Any) -> PreTrainedModel:
    return prepare(model() if base is None else base, tune, Settings(**{**PLAIN, **settings}))


def gradients(trained: nn.Module) -> dict[str, torch.Tensor]:
    ids = torch.arange(20).view(2, 10)
    # The dropout of two models is the same only where both begin with the same random numbers.
    torch.manual_seed(5)
    trained(input_ids=ids, labels=ids, use_cache=False).loss.backward()
    return {name: weight.grad for name, weight in trained.named_parameters() if weight.grad is not None}


@pytest.mark.parametrize(
    "tune", [Tune(), Tune(rank=4, dropout=0.1, seed=9), Tune(dora=True), Tune(targets=("q_proj",))]
)
def test_an_adapter_begins_as_its_seed_says(tune: Tune) -> None:
    weights = prepared(tune).state_dict()
    torch.manual_seed(77)
    base = model()
    set_seed(tune.seed)
    expected = add_adapter(base, tune).state_dict()
    assert weights.keys() == expected.keys()
    assert all(torch.equal(weights[name], tensor) for name, tensor in expected.items())


@pytest.mark.parametrize("tune", [Tune(), Tune(method="dpo"), Tune(method="full"), Tune(method="scratch")])
def test_what_trains_is_the_adapter_or_everything(tune: Tune) -> None:
    ready = prepared(tune)
    assert ready.training
    trains = {name for name, weight in ready.named_parameters() if weight.requires_grad}
    assert trains
    assert all("lora_" in name for name in trains) == tune.adapts
    assert (len(trains) == len(list(ready.parameters()))) == (not tune.adapts)


def test_unknown_targets_are_named() -> None:
    with pytest.raises(UserError, match=r"tune\.targets"):
        prepared(Tune(targets=("no_such_layer",)))


@pytest.mark.parametrize("tune", [Tune(dropout=0.2), Tune(dora=True), Tune(method="full")])
def test_activation_checkpointing_changes_no_gradient(tune: Tune) -> None:
    calls: list[int] = []

    def count(*_: Any) -> None:
        calls.append(1)

    plain, frugal = prepared(tune), prepared(tune, activation_checkpointing=True)
    for trained in (plain, frugal):
        base = trained.get_base_model() if tune.adapts else trained
        base.model.layers[0].mlp.register_forward_pre_hook(count)
        for name, weight in trained.named_parameters():
            if "lora_B" in name:
                weight.data.fill_(0.01)
    expected = gradients(plain)
    assert len(calls) == 1
    found = gradients(frugal)
    assert len(calls) == 3, "a layer's activations are computed again in the backward pass"
    assert found.keys() == expected.keys()
    assert all(torch.allclose(found[name], tensor, atol=1e-7) for name, tensor in expected.items())


@pytest.mark.parametrize("tune", [Tune(), Tune(method="full")])
def test_compilation_takes_each_layer_and_nothing_else_and_ends(tune: Tune, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[nn.Module] = []
    monkeypatch.setattr(nn.Module, "compile", lambda module: compiled.append(module))
    base = model()
    ready = prepared(tune, base, compile=True)
    with compiled_layers(ready, compiled=False):
        assert not compiled
    with compiled_layers(ready, compiled=True):
        assert compiled == list(base.model.layers)
        base.model.layers[0]._compiled_call_impl = print
    assert base.model.layers[0]._compiled_call_impl is None
    assert ready.state_dict().keys() == prepared(tune).state_dict().keys()


@pytest.mark.slow
def test_compiled_layers_learn_the_same() -> None:
    expected = gradients(prepared(Tune()))
    ready = prepared(Tune(), compile=True, activation_checkpointing=True)
    with compiled_layers(ready, compiled=True):
        found = gradients(ready)
    assert found.keys() == expected.keys()
    assert all(torch.allclose(found[name], tensor, atol=1e-6) for name, tensor in expected.items())


def test_a_quantised_base_keeps_its_types_and_learns_without_autocast(tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes")
    model().save_pretrained(tmp_path)
    quantisation = nf4(CPU, compute_dtype=torch.bfloat16)
    base = load_weights(tmp_path, dtype="bfloat16", device=CPU, quantisation=quantisation)
    tune = Tune(method="qlora", rank=4)
    ready = prepared(tune, base, quantised=True, precision="bfloat16", activation_checkpointing=True)
    types = {name: weight.dtype for name, weight in base.named_parameters()}
    assert {dtype for name, dtype in types.items() if "norm" in name} == {torch.bfloat16}
    assert {dtype for name, dtype in types.items() if "lora_" in name} == {torch.float32}
    assert {dtype for name, dtype in types.items() if "base_layer" in name} == {torch.uint8}
    assert base.lm_head.weight.dtype == base.get_input_embeddings().weight.dtype == torch.bfloat16
    found = gradients(ready)
    assert len(found) == sum(weight.requires_grad for weight in ready.parameters())
    assert all(torch.isfinite(tensor).all() for tensor in found.values())


def test_no_fraction_is_no_cap() -> None:
    before = resource.getrlimit(resource.RLIMIT_DATA)
    with memory_cap(None, CPU):
        assert resource.getrlimit(resource.RLIMIT_DATA) == before


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the system enforces no limit")
def test_beyond_the_cap_pytorch_is_out_of_memory_and_goes_on_after_it(monkeypatch: pytest.MonkeyPatch) -> None:
    before = resource.getrlimit(resource.RLIMIT_DATA)
    status = Path("/proc/self/status").read_text()
    held_bytes = int(status.split("VmData:")[1].split()[0]) * 1024
    monkeypatch.setattr("whetstone.train.prepare._total_bytes", lambda: 2 * (held_bytes + 300 * 2**20))
    with memory_cap(0.5, CPU):
        torch.ones(25 * 2**20)
        with pytest.raises(RuntimeError, match="allocate memory"):
            torch.ones(100 * 2**20)
    assert torch.ones(100 * 2**20).numel() == 100 * 2**20
    assert resource.getrlimit(resource.RLIMIT_DATA) == before
    with pytest.raises(UserError, match=r"tune\.memory_fraction: allows \d+ MiB, and"), memory_cap(0.01, CPU):
        pass


@pytest.mark.parametrize("kind", ["cuda", "mps"])
def test_a_cap_on_a_gpu_ends_with_its_block(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fractions: list[float] = []
    module = {"cuda": torch.cuda, "mps": torch.mps}[kind]
    monkeypatch.setattr(module, "set_per_process_memory_fraction", lambda part, *device: fractions.append(part))
    with pytest.raises(RuntimeError, match="training failed"), memory_cap(0.5, torch.device(kind)):
        assert fractions == [0.5]
        raise RuntimeError("training failed")
    assert fractions == [0.5, {"cuda": 1.0, "mps": 1.7}[kind]]
