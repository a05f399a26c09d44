"""What is used instead of what a device or an architecture does not have, and that it is said."""

import dataclasses
import importlib.util
import shutil
import sys
from typing import Any

import pytest
import torch
from transformers import (
    BloomConfig,
    GPT2Config,
    LlamaConfig,
    PreTrainedConfig,
    PreTrainedModel,
    TrainingArguments,
)
from transformers.training_args import OptimizerNames

from whetstone.data_section import Data, GrammarSource
from whetstone.errors import UserError
from whetstone.experiment import Experiment
from whetstone.model_section import Model
from whetstone.train.settings import Settings, as_loaded, settle
from whetstone.tune_section import Optimiser, Tune

CPU, CUDA, MPS = torch.device("cpu"), torch.device("cuda"), torch.device("mps")
LLAMA, BLOOM = LlamaConfig(num_hidden_layers=1), BloomConfig(n_layer=1)


def settled(
    device: torch.device = CPU, config: PreTrainedConfig = LLAMA, dtype: Any = "float32", **tune: Any
) -> Settings:
    experiment = Experiment(
        name="test",
        model=Model(base="builtin:demo-base", dtype=dtype),
        data=Data(source=GrammarSource(grammar="corrections"), prompt="Correct: {source}"),
        tune=Tune(**tune),
    )
    return settle(experiment, device, config)


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A processor with AVX512-BF16, an Ampere GPU, a C++ compiler, and every optional package."""
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True})
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr("pathlib.Path.exists", lambda path: True)
    monkeypatch.setattr(sys, "platform", "linux")


@pytest.mark.parametrize("device", [CPU, CUDA, MPS])
def test_what_is_asked_and_is_there_is_used_without_a_word(device: torch.device) -> None:
    settings = settled(device)
    assert settings == Settings(
        precision="float32" if device is MPS else "bfloat16",
        weights_dtype=torch.float32 if device is MPS else torch.bfloat16,
        attention="sdpa",
        optimiser="adamw_torch" if device is MPS else "adamw_torch_fused",
        compile=False,
        activation_checkpointing=False,
        quantised=False,
        double_quantisation=True,
        notes=(),
    )


def test_automatic_precision_follows_the_hardware(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True, "avx512_bf16": False})
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    for device in (CPU, CUDA, MPS):
        assert settled(device).precision == "float32"
        assert settled(device, dtype="bfloat16").precision == "bfloat16"
        assert settled(device, precision="bfloat16").precision == "bfloat16"
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": True})
    assert settled(CPU).precision == "bfloat16"
    assert settled(CPU, precision="float32").precision == "float32"


def test_this_machine_can_be_asked_what_it_multiplies() -> None:
    capabilities = torch.cpu.get_capabilities()
    assert isinstance(capabilities.get("avx512_bf16", False), bool)


@pytest.mark.parametrize(("device", "used"), [(CPU, "bfloat16"), (MPS, "float32"), (CUDA, "float16")])
def test_float16_needs_cuda(device: torch.device, used: str) -> None:
    settings = settled(device, precision="float16")
    assert settings.precision == used
    assert settings.compute_dtype == getattr(torch, used)
    wanted = (f"tune.precision float16 is not applied: it needs CUDA; {used} is used.",) if device is not CUDA else ()
    assert settings.notes == wanted


@pytest.mark.parametrize("method", ["lora", "qlora", "full", "dpo", "orpo", "grpo"])
def test_only_weights_that_stay_as_they_are_may_be_bfloat16(method: str) -> None:
    settings = settled(dtype="bfloat16", method=method)
    assert settings.weights_dtype == (torch.float32 if method == "full" else torch.bfloat16)
    assert settings.quantised == (method == "qlora")
    asked = settled(dtype="bfloat16", method=method, precision="float32")
    assert asked.precision == ("float32" if method == "full" else "bfloat16")
    assert len(asked.notes) == (0 if method == "full" else 1)


@pytest.mark.parametrize(
    ("attention", "device", "config", "options", "used", "reason"),
    [
        ("auto", CPU, LLAMA, {}, "sdpa", None),
        ("auto", CPU, BLOOM, {}, "eager", None),
        ("eager", CUDA, LLAMA, {}, "eager", None),
        ("sdpa", CPU, BLOOM, {}, "eager", "BloomForCausalLM does not support it"),
        ("flash_attention_2", CUDA, LLAMA, {}, "flash_attention_2", None),
        ("flash_attention_2", CPU, LLAMA, {}, "sdpa", "it needs CUDA"),
        ("flash_attention_2", MPS, BLOOM, {}, "eager", "BloomForCausalLM does not support it"),
        ("flash_attention_2", CUDA, LLAMA, {"precision": "float32"}, "sdpa", "it needs tune.precision"),
        ("flex_attention", CUDA, LLAMA, {}, "flex_attention", None),
        ("flex_attention", CUDA, GPT2Config(n_layer=1), {}, "sdpa", "GPT2LMHeadModel does not support it"),
        ("flex_attention", CPU, LLAMA, {}, "sdpa", "it needs CUDA"),
    ],
)
def test_attention_falls_back(
    attention: str, device: torch.device, config: PreTrainedConfig, options: Any, used: str, reason: str | None
) -> None:
    settings = settled(device, config, attention=attention, **options)
    assert settings.attention == used
    assert len(settings.notes) == (reason is not None)
    if reason is not None:
        assert settings.notes[0].startswith(f"tune.attention {attention} is not applied: {reason}")
        assert settings.notes[0].endswith(f"; {used} is used.")


def test_flash_attention_is_a_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "flash_attn" else object())
    assert "flash-attn is not installed" in settled(CUDA, attention="flash_attention_2").notes[0]


def test_what_the_model_refused_on_loading_is_noted() -> None:
    config = LlamaConfig(num_hidden_layers=1)
    config._attn_implementation = "eager"
    settings = settled()
    loaded = as_loaded(settings, _model(config))
    assert loaded.attention == "eager"
    assert loaded.notes == ("Attention 'sdpa' is not applied: the model refused it on loading; 'eager' is used.",)
    assert as_loaded(loaded, _model(config)) is loaded


def _model(config: PreTrainedConfig) -> PreTrainedModel:
    model = PreTrainedModel.__new__(PreTrainedModel)
    torch.nn.Module.__init__(model)
    model.config = config
    return model


@pytest.mark.parametrize("device", [CPU, CUDA, MPS])
@pytest.mark.parametrize("optimiser", Optimiser.__args__)  # type: ignore[attr-defined]
def test_every_optimiser_is_one_of_transformers(optimiser: str, device: torch.device) -> None:
    settings = settled(device, optimiser=optimiser)
    assert OptimizerNames(settings.optimiser)
    expected = {
        "cuda": optimiser,
        "cpu": optimiser.replace("paged_", "").replace("_32bit", ""),
        "mps": "adamw" if "adamw" in optimiser else optimiser,
    }[device.type]
    assert settings.optimiser.startswith(expected.replace("_8bit", "")) or settings.optimiser == expected
    assert ("8bit" in settings.optimiser) == ("8bit" in expected)
    assert len(settings.notes) == (expected != optimiser)
    if settings.notes:
        assert f"tune.optimiser {optimiser} is not applied" in settings.notes[0]
        assert f"{expected} is used" in settings.notes[0]


def test_bitsandbytes_is_needed_only_where_it_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert settled(CPU, optimiser="paged_adamw_32bit").optimiser == "adamw_torch_fused"
    assert settled(MPS, optimiser="adamw_8bit").optimiser == "adamw_torch"
    for device, options in ((CPU, {"optimiser": "adamw_8bit"}), (CUDA, {"optimiser": "paged_adamw_32bit"})):
        with pytest.raises(UserError, match=r"tune\.optimiser.*whetstone\[qlora\]"):
            settled(device, **options)
    with pytest.raises(UserError, match=r"tune\.method: 'qlora' needs bitsandbytes"):
        settled(CPU, method="qlora")


def test_qlora_is_refused_on_mps_before_anything_is_loaded() -> None:
    with pytest.raises(UserError, match="cannot be trained on MPS"):
        settled(MPS, method="qlora")
    assert settled(CUDA, method="qlora", double_quantisation=False).double_quantisation is False


def test_compilation_needs_its_tools(monkeypatch: pytest.MonkeyPatch) -> None:
    assert settled(CPU, compile=True).compile
    assert settled(CUDA, compile=True).compile
    assert "MPS" in settled(MPS, compile=True).notes[0]
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for device, tool in ((CPU, "C++ compiler"), (CUDA, "triton")):
        settings = settled(device, compile=True)
        assert not settings.compile
        assert tool in settings.notes[0]
        assert settled(device).notes == ()
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr("pathlib.Path.exists", lambda path: False)
    assert "Python" in settled(CPU, compile=True).notes[0]


def test_an_unknown_architecture_has_no_layers_and_no_checkpoints() -> None:
    settings = settled(config=PreTrainedConfig(), compile=True, activation_checkpointing=True)
    assert (settings.compile, settings.activation_checkpointing, settings.attention) == (False, False, "eager")
    assert len(settings.notes) == 2


def test_memory_is_capped_where_the_system_does_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert settled(memory_fraction=0.5).notes == ()
    monkeypatch.setattr(sys, "platform", "darwin")
    assert "tune.memory_fraction is not applied" in settled(memory_fraction=0.5).notes[0]
    assert settled(MPS, memory_fraction=0.5).notes == ()


def test_settings_of_another_method_are_noted() -> None:
    notes = settled(method="full", rank=4, dora=True, double_quantisation=False).notes
    assert [note.split()[0] for note in notes] == ["tune.rank", "tune.dora", "tune.double_quantisation"]
    assert settled(method="qlora", rank=4, dora=True, double_quantisation=False).notes == ()
    assert len(settled(method="lora", rank=4, double_quantisation=False).notes) == 1


def test_the_trainer_takes_every_optimiser_name(tmp_path: Any) -> None:
    for name in Optimiser.__args__:  # type: ignore[attr-defined]
        used = settled(CUDA, optimiser=name).optimiser
        assert TrainingArguments(str(tmp_path), optim=used, use_cpu=True).optim == used


def test_settings_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        settled().compile = True  # type: ignore[misc]
