"""Models and adapters in MLX: the same logits as transformers and PEFT, or a refusal."""

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PreTrainedModel
from transformers.utils import logging

from whetstone.errors import UserError
from whetstone.models.mlx import convert_adapter, load_mlx

mx = pytest.importorskip("mlx.core")
mlx_lm_utils = pytest.importorskip("mlx_lm.utils")

SHAPE = {
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
    "eos_token_id": 1,
    "bos_token_id": None,
}
PLAIN = {"rope_type": "default", "rope_theta": 100.0}
PARTIAL = {**PLAIN, "partial_rotary_factor": 0.5}
LINEAR = {"rope_type": "linear", "rope_theta": 500.0, "factor": 2.0}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500.0,
    "factor": 2.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}

SAME = [
    ("gemma2", {"rope_parameters": PLAIN, "head_dim": 8, "query_pre_attn_scalar": 32}),
    ("gpt_neox", {"rope_parameters": PARTIAL, "hidden_act": "gelu_new"}),
    ("gpt_neox", {"rope_parameters": PARTIAL, "hidden_act": "gelu_new", "use_parallel_residual": False}),
    ("granite", {"rope_parameters": PLAIN, "logits_scaling": 2.0}),
    ("granite", {"rope_parameters": LINEAR}),
    ("granite", {"rope_parameters": LLAMA3}),
    ("llama", {"rope_parameters": PLAIN, "tie_word_embeddings": False, "attention_bias": True}),
    ("llama", {"rope_parameters": LINEAR, "num_key_value_heads": 4, "head_dim": 16}),
    ("llama", {"rope_parameters": LLAMA3, "tie_word_embeddings": True}),
    ("mistral", {"rope_parameters": PLAIN, "sliding_window": None}),
    ("mistral", {"rope_parameters": LINEAR}),
    ("mistral", {"rope_parameters": LLAMA3}),
    ("olmo2", {"rope_parameters": PLAIN}),
    ("olmo2", {"rope_parameters": LINEAR}),
    ("olmo2", {"rope_parameters": LLAMA3}),
    ("phi", {"rope_parameters": PARTIAL}),
    ("phi3", {"rope_parameters": PLAIN}),
    ("phi3", {"rope_parameters": PARTIAL}),
    ("qwen2", {"rope_parameters": PLAIN, "tie_word_embeddings": True}),
    ("qwen2", {"rope_parameters": LINEAR}),
    ("qwen2", {"rope_parameters": LLAMA3}),
    ("qwen3", {"rope_parameters": PLAIN, "head_dim": 16}),
    ("qwen3", {"rope_parameters": LINEAR}),
    ("qwen3", {"rope_parameters": LLAMA3}),
    ("smollm3", {"rope_parameters": PLAIN, "num_hidden_layers": 5}),
    ("smollm3", {"rope_parameters": LINEAR}),
    ("smollm3", {"rope_parameters": LLAMA3}),
    ("stablelm", {"rope_parameters": PARTIAL, "use_qkv_bias": True}),
    ("stablelm", {"rope_parameters": PLAIN, "use_parallel_residual": True, "qk_layernorm": True}),
]


def make(folder: Path, kind: str, **settings: Any) -> PreTrainedModel:
    """Random weights, saved and returned."""
    logging.disable_progress_bar()
    torch.manual_seed(0)
    # transformers writes into the dictionaries that it is given.
    heads = {} if kind in ("gpt_neox", "phi") else {"num_key_value_heads": 2}
    config = CONFIG_MAPPING[kind](**copy.deepcopy(SHAPE | heads | settings))
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    for parameter in model.parameters():
        parameter.data.add_(torch.randn_like(parameter), alpha=0.1)
    model.save_pretrained(folder)
    return model


def adapt(model: PreTrainedModel, folder: Path, **settings: Any) -> PreTrainedModel:
    """A random adapter that changes what is said, saved and put on."""
    adapted = get_peft_model(model, LoraConfig(**({"r": 4, "lora_alpha": 12, "task_type": "CAUSAL_LM"} | settings)))
    for name, parameter in adapted.named_parameters():
        if "lora_" in name:
            parameter.data.add_(torch.randn_like(parameter), alpha=0.2)
    adapted.eval().save_pretrained(folder)
    return adapted


IDS = torch.randint(2, 96, (1, 60), generator=torch.Generator().manual_seed(0))


def torch_logits(model: PreTrainedModel) -> np.ndarray[Any, Any]:
    with torch.inference_mode():
        return np.asarray(model(IDS).logits[0])


def mlx_logits(model: Any) -> np.ndarray[Any, Any]:
    return np.array(model(mx.array(IDS.numpy()))[0].astype(mx.float32))


@pytest.mark.parametrize(("kind", "settings"), SAME)
def test_the_logits_are_those_of_transformers(kind: str, settings: dict[str, Any], tmp_path: Path) -> None:
    expected = torch_logits(make(tmp_path, kind, **settings))
    loaded = load_mlx(tmp_path)
    assert loaded.context_tokens == 128
    assert loaded.end_ids == (1,)
    assert loaded.dtype == "float32"
    np.testing.assert_allclose(mlx_logits(loaded.model), expected, atol=5e-5)


def test_the_type_of_the_weights_is_kept_unless_another_is_asked_for(tmp_path: Path) -> None:
    make(tmp_path, "llama").to(torch.bfloat16).save_pretrained(tmp_path)
    wide = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    assert load_mlx(tmp_path).dtype == "bfloat16"
    loaded = load_mlx(tmp_path, dtype="float32")
    assert loaded.dtype == "float32"
    np.testing.assert_allclose(mlx_logits(loaded.model), torch_logits(wide), atol=5e-5)


@pytest.mark.parametrize("kind", ["mistral", "phi3", "gemma2"])
def test_where_a_window_is_left_out_the_context_ends_with_it(kind: str, tmp_path: Path) -> None:
    make(tmp_path, kind, sliding_window=16)
    assert load_mlx(tmp_path).context_tokens == 16


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        ("llama", {"hidden_act": "gelu"}, "computes gelu, mlx-lm has silu"),
        ("gpt_neox", {"hidden_act": "gelu"}, "computes gelu, mlx-lm has gelu_fast"),
        ("phi", {"rope_parameters": LINEAR}, "the 'linear' rotary embedding of this phi"),
        ("llama", {"rope_parameters": {**LINEAR, "rope_type": "dynamic"}}, "the 'dynamic' rotary embedding"),
        ("qwen3", {"attention_bias": True}, "mlx-lm cannot load it"),
        ("olmo", {}, "'olmo' was not compared between mlx-lm and transformers"),
    ],
)
def test_what_mlx_computes_otherwise_is_refused(
    kind: str, settings: dict[str, Any], message: str, tmp_path: Path
) -> None:
    make(tmp_path, kind, **settings)
    with pytest.raises(UserError, match=message) as caught:
        load_mlx(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("key", ["model_file", "quantization", "quantization_config"])
def test_neither_code_nor_quantised_weights_are_loaded(key: str, tmp_path: Path) -> None:
    make(tmp_path, "llama")
    config = json.loads((tmp_path / "config.json").read_text())
    config[key] = "model.py" if key == "model_file" else {"quant_method": "gptq", "bits": 4, "group_size": 64}
    (tmp_path / "model.py").write_text("raise SystemExit('ran')")
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="custom module" if key == "model_file" else "quantised"):
        load_mlx(tmp_path)


ADAPTERS: list[tuple[str, dict[str, Any]]] = [
    ("llama", {"target_modules": "all-linear"}),
    ("llama", {"target_modules": ["q_proj", "down_proj"], "use_rslora": True}),
    ("llama", {"target_modules": ["q_proj", "v_proj"], "use_dora": True}),
    ("llama", {"target_modules": ["q_proj"], "layers_to_transform": [1]}),
    ("llama", {"target_modules": ["up_proj", "lm_head"], "lora_dropout": 0.5}),
    ("qwen2", {"target_modules": "all-linear", "use_dora": True, "use_rslora": True}),
    ("phi", {"target_modules": "all-linear"}),
    ("gpt_neox", {"target_modules": ["query_key_value", "dense_h_to_4h", "embed_out"]}),
]
BASES: dict[str, dict[str, Any]] = {
    "llama": {"tie_word_embeddings": False},
    "qwen2": {"tie_word_embeddings": True},
    "phi": {},
    "gpt_neox": {"hidden_act": "gelu_new"},
}


@pytest.mark.parametrize(("kind", "settings"), ADAPTERS)
def test_a_converted_adapter_adds_what_peft_adds(kind: str, settings: dict[str, Any], tmp_path: Path) -> None:
    model = make(tmp_path / "base", kind, **BASES[kind])
    before = torch_logits(model)
    expected = torch_logits(adapt(model, tmp_path / "adapter", **settings))
    assert np.abs(expected - before).max() > 0.05
    loaded = load_mlx(tmp_path / "base", adapter=tmp_path / "adapter")
    np.testing.assert_allclose(mlx_logits(loaded.model), expected, atol=1e-4)


def test_a_converted_adapter_is_one_of_mlx_lm(tmp_path: Path) -> None:
    model = make(tmp_path / "base", "llama")
    expected = torch_logits(adapt(model, tmp_path / "adapter", target_modules=["q_proj"], layers_to_transform=[1]))
    convert_adapter(tmp_path / "adapter", tmp_path / "out")
    assert json.loads((tmp_path / "out" / "adapter_config.json").read_text()) == {
        "fine_tune_type": "lora",
        "num_layers": -1,
        "lora_parameters": {"rank": 4, "scale": 3.0, "dropout": 0.0, "keys": ["model.layers.1.self_attn.q_proj"]},
    }
    tensors = mx.load(str(tmp_path / "out" / "adapters.safetensors"))
    prefix = "model.layers.1.self_attn.q_proj"
    assert {name: tensor.shape for name, tensor in tensors.items()} == {
        f"{prefix}.lora_a": (32, 4),
        f"{prefix}.lora_b": (4, 32),
    }
    theirs, _ = mlx_lm_utils.load_model(tmp_path / "base")
    mlx_lm_utils.load_adapters(theirs, str(tmp_path / "out")).eval()
    np.testing.assert_allclose(mlx_logits(theirs), expected, atol=1e-4)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]}, "no 'modules_to_save'"),
        ({"target_modules": ["q_proj", "v_proj"], "rank_pattern": {"q_proj": 2}}, "no 'rank_pattern'"),
        ({"target_modules": ["q_proj"], "bias": "lora_only"}, "no 'bias: lora_only'"),
        ({"target_modules": ["q_proj"], "init_lora_weights": "pissa"}, "'pissa' changes the base"),
        ({"target_modules": ["embed_tokens"]}, "no place for 'base_model.model.model.embed_tokens.lora_embedding_A'"),
    ],
)
def test_an_adapter_beyond_the_format_is_refused(settings: dict[str, Any], message: str, tmp_path: Path) -> None:
    adapt(make(tmp_path / "base", "llama", attention_bias=True), tmp_path / "adapter", **settings)
    with pytest.raises(UserError, match=message):
        convert_adapter(tmp_path / "adapter", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_adapter_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    adapt(make(tmp_path / "base", "llama"), tmp_path / "adapter", target_modules=["q_proj"])
    make(tmp_path / "narrow", "llama", hidden_size=16)
    make(tmp_path / "neox", "gpt_neox", hidden_act="gelu_new")
    for other in ("narrow", "neox"):
        with pytest.raises(UserError, match=r"adapter: does not fit .*; give an adapter made for it") as caught:
            load_mlx(tmp_path / other, adapter=tmp_path / "adapter")
        assert "\n" not in str(caught.value)
    (tmp_path / "adapter" / "adapter_model.safetensors").write_bytes(b"torn")
    with pytest.raises(UserError, match="no whole adapter_model"):
        load_mlx(tmp_path / "base", adapter=tmp_path / "adapter")


def test_a_head_that_is_the_embedding_takes_no_adapter(tmp_path: Path) -> None:
    model = make(tmp_path / "base", "llama", tie_word_embeddings=True)
    adapt(model, tmp_path / "adapter", target_modules=["lm_head"])
    with pytest.raises(UserError, match="lm_head"):
        load_mlx(tmp_path / "base", adapter=tmp_path / "adapter")
