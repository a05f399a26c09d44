"""What llama.cpp calls the settings and the tensors of each architecture.

Settings that llama.cpp computes in another way are refused, so that a file gives the answers of the model it was made
from. The names are those of the GGUF specification (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md).
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import gguf
import torch
from gguf import MODEL_ARCH, RopeScalingType
from transformers import PreTrainedConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from whetstone.errors import UserError

__all__ = ["ARCHITECTURES", "Placed", "UnsupportedError", "place_tensors", "rope_tensors", "write_parameters"]

Transform = Callable[[torch.Tensor], torch.Tensor]
Parameter = str | int | float | bool | None


class UnsupportedError(UserError):
    """Something of the model cannot be said in GGUF."""


@dataclass(frozen=True, slots=True)
class Architecture:
    """How llama.cpp reads one architecture.

    Attributes:
        kind: Its number in GGUF.
        required: Settings that llama.cpp has no choice of, and the values it computes with.
        own_head_size: Whether heads may have another size than the hidden size divided among them.
        head_required: Whether the output head has a tensor of its own even where it is tied to the embeddings.
        tied: Whether the output head can only be the embeddings.
        window_layers: Whether layers attend within the sliding window or everywhere, as the configuration says.
        ropes: The scalings of rotary positions that can be written.
    """

    kind: MODEL_ARCH
    required: tuple[tuple[str, tuple[Parameter, ...]], ...]
    own_head_size: bool = False
    head_required: bool = False
    tied: bool = False
    window_layers: bool = False
    ropes: tuple[str, ...] = ("default", "linear")


_SILU = (("hidden_act", ("silu",)),)
_GELU = ("gelu", "gelu_new", "gelu_fast", "gelu_pytorch_tanh")
_LLAMA = Architecture(MODEL_ARCH.LLAMA, _SILU, own_head_size=True, ropes=("default", "linear", "llama3"))

ARCHITECTURES = {
    "llama": _LLAMA,
    "mistral": _LLAMA,
    "qwen2": Architecture(MODEL_ARCH.QWEN2, _SILU),
    "qwen3": Architecture(MODEL_ARCH.QWEN3, (*_SILU, ("attention_bias", (False,))), own_head_size=True),
    "phi3": Architecture(MODEL_ARCH.PHI3, _SILU, ropes=("default", "longrope")),
    "phi": Architecture(MODEL_ARCH.PHI2, (("hidden_act", _GELU), ("qk_layernorm", (False,))), head_required=True),
    "gemma": Architecture(
        MODEL_ARCH.GEMMA,
        (("hidden_act", _GELU), ("attention_bias", (False,)), ("use_bidirectional_attention", (None, False))),
        own_head_size=True,
        tied=True,
    ),
    "gemma2": Architecture(
        MODEL_ARCH.GEMMA2,
        (("hidden_activation", _GELU), ("attention_bias", (False,)), ("use_bidirectional_attention", (None, False))),
        own_head_size=True,
        tied=True,
        window_layers=True,
    ),
    "gemma3_text": Architecture(
        MODEL_ARCH.GEMMA3,
        (("hidden_activation", _GELU), ("attention_bias", (False,)), ("use_bidirectional_attention", (None, False))),
        own_head_size=True,
        window_layers=True,
    ),
    "gpt_neox": Architecture(
        MODEL_ARCH.GPTNEOX, (("hidden_act", _GELU), ("attention_bias", (True,))), head_required=True
    ),
}
"""By ``model_type``. A GELU is computed by its tanh approximation, whichever the model was trained with."""

_27B_LAYERS = {MODEL_ARCH.GEMMA2: 46, MODEL_ARCH.GEMMA3: 62}
"""llama.cpp knows the Gemmas that divide attention by the root of hidden size over heads by their number of layers."""


@dataclass(frozen=True, slots=True)
class Placed:
    """A tensor of the file.

    Attributes:
        name: In GGUF.
        source: In the safetensors.
        transform: What has to be done to it.
    """

    name: str
    source: str
    transform: Transform


def write_parameters(writer: gguf.GGUFWriter, config: PreTrainedConfig) -> None:
    """Writes what the architecture is made of.

    A window that llama.cpp does not know is no window within its own length: the context ends there.

    Raises:
        UnsupportedError: llama.cpp would compute something else.
    """
    architecture = ARCHITECTURES[config.model_type]
    _refuse_others(architecture, config)
    heads, head_size = config.num_attention_heads, _head_size(config)
    values = config.to_dict()
    context, window = config.max_position_embeddings, values.get("sliding_window")
    if architecture.window_layers:
        writer.add_sliding_window(window)
        writer.add_sliding_window_pattern([kind == "sliding_attention" for kind in config.layer_types])
    elif window:
        context = min(context, window)
    writer.add_context_length(context)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(heads)
    writer.add_head_count_kv(values.get("num_key_value_heads") or heads)
    writer.add_key_length(head_size)
    writer.add_value_length(head_size)
    if "rms_norm_eps" in values:
        writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    else:
        writer.add_layer_norm_eps(config.layer_norm_eps)
    if architecture.kind == MODEL_ARCH.GPTNEOX:
        writer.add_parallel_residual(config.use_parallel_residual)
    if architecture.kind == MODEL_ARCH.PHI3:
        writer.add_sliding_window(0)
    if values.get("attn_logit_softcapping"):
        writer.add_attn_logit_softcapping(config.attn_logit_softcapping)
    if values.get("final_logit_softcapping"):
        writer.add_final_logit_softcapping(config.final_logit_softcapping)
    _write_rope(writer, config, head_size)


def place_tensors(config: PreTrainedConfig, names: Mapping[str, object]) -> Iterator[Placed]:
    """Where each tensor of a model goes.

    Args:
        config: Of the model.
        names: The tensors it has.

    Raises:
        UnsupportedError: llama.cpp has no place for one.
    """
    architecture = ARCHITECTURES[config.model_type]
    places = gguf.get_tensor_name_map(architecture.kind, config.num_hidden_layers)
    heads = ("lm_head.weight", "embed_out.weight")
    tied = config.tie_word_embeddings
    placed = set()
    for source in sorted(names):
        if tied and source in heads:
            continue
        name = places.get_name(source, try_suffixes=(".weight", ".bias"))
        if name is None or (architecture.tied and source in heads):
            raise UnsupportedError(f"llama.cpp has no place for the tensor {source} of {config.model_type}")
        placed.add(name)
        yield Placed(name, source, _transform(architecture.kind, config, source))
    if architecture.head_required and "output.weight" not in placed:
        embeddings = next(source for source in names if places.get_name(source, (".weight",)) == "token_embd.weight")
        yield Placed("output.weight", embeddings, _as_is)


def rope_tensors(config: PreTrainedConfig) -> dict[str, torch.Tensor]:
    """What divides the frequencies of rotary positions, where it is no single factor."""
    rope = _rope(config)
    if rope["rope_type"] == "llama3":
        scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](config, torch.device("cpu"))
        size = _head_size(config)
        plain = rope["rope_theta"] ** -(torch.arange(0, size, 2, dtype=torch.float32) / size)
        return {"rope_freqs.weight": plain / scaled}
    if rope["rope_type"] == "longrope":
        return {f"rope_factors_{kind}.weight": torch.tensor(rope[f"{kind}_factor"]) for kind in ("long", "short")}
    return {}


def _refuse_others(architecture: Architecture, config: PreTrainedConfig) -> None:
    values = config.to_dict()
    for key, allowed in architecture.required:
        if values.get(key) not in allowed:
            raise UnsupportedError(
                f"llama.cpp computes {config.model_type} with {key} {allowed[0]}, not {values.get(key)}"
            )
    head_size, heads = _head_size(config), config.num_attention_heads
    if not architecture.own_head_size and head_size * heads != config.hidden_size:
        raise UnsupportedError(
            f"llama.cpp divides the hidden size of {config.model_type} among its heads; head_dim differs"
        )
    rope_type = _rope(config)["rope_type"]
    if rope_type not in architecture.ropes:
        known = ", ".join(architecture.ropes)
        raise UnsupportedError(
            f"the rotary positions '{rope_type}' of {config.model_type} are not written; {known} are"
        )
    if "query_pre_attn_scalar" in values:
        large = config.num_hidden_layers == _27B_LAYERS[architecture.kind]
        if config.query_pre_attn_scalar != (config.hidden_size // heads if large else head_size):
            raise UnsupportedError(f"llama.cpp has no query_pre_attn_scalar {config.query_pre_attn_scalar}")


def _head_size(config: PreTrainedConfig) -> int:
    size: int = config.to_dict().get("head_dim") or config.hidden_size // config.num_attention_heads
    return size


def _rope(config: PreTrainedConfig) -> dict[str, Any]:
    """Rotary positions of the layers that attend everywhere."""
    parameters: dict[str, Any] = config.rope_parameters.get("full_attention", config.rope_parameters)
    return parameters


def _write_rope(writer: gguf.GGUFWriter, config: PreTrainedConfig, head_size: int) -> None:
    rope, local = _rope(config), config.rope_parameters.get("sliding_attention")
    writer.add_rope_dimension_count(int(head_size * rope.get("partial_rotary_factor", 1.0)))
    writer.add_rope_freq_base(rope["rope_theta"])
    if local is not None:
        if local["rope_type"] != "default":
            raise UnsupportedError(f"the rotary positions '{local['rope_type']}' within windows are not written")
        writer.add_rope_freq_base_swa(local["rope_theta"])
    if rope["rope_type"] == "linear":
        writer.add_rope_scaling_type(RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(rope["factor"])
    if rope["rope_type"] == "longrope":
        _, attention = ROPE_INIT_FUNCTIONS["longrope"](config, torch.device("cpu"))
        writer.add_rope_scaling_type(RopeScalingType.LONGROPE)
        writer.add_rope_scaling_orig_ctx_len(config.original_max_position_embeddings)
        writer.add_rope_scaling_attn_factors(attention)


def _transform(kind: MODEL_ARCH, config: PreTrainedConfig, source: str) -> Transform:
    if kind == MODEL_ARCH.LLAMA and ".q_proj." in source:
        return lambda tensor: _rotate_pairs(tensor, config.num_attention_heads)
    if kind == MODEL_ARCH.LLAMA and ".k_proj." in source:
        return lambda tensor: _rotate_pairs(tensor, config.num_key_value_heads)
    if kind == MODEL_ARCH.GPTNEOX and ".query_key_value." in source:
        return lambda tensor: _part_query_key_value(tensor, config.num_attention_heads)
    if kind in (MODEL_ARCH.GEMMA, MODEL_ARCH.GEMMA2, MODEL_ARCH.GEMMA3) and source.endswith("norm.weight"):
        return lambda tensor: tensor.float() + 1  # Gemma multiplies by one more than the weight
    return _as_is


def _as_is(tensor: torch.Tensor) -> torch.Tensor:
    return tensor


def _rotate_pairs(tensor: torch.Tensor, heads: int) -> torch.Tensor:
    """From halves of a head that rotate together, as transformers has them, to neighbours, as Llama had."""
    return tensor.reshape(heads, 2, -1, *tensor.shape[1:]).transpose(1, 2).reshape(tensor.shape)


def _part_query_key_value(tensor: torch.Tensor, heads: int) -> torch.Tensor:
    """From query, key and value of each head to the queries, the keys and the values of all."""
    return tensor.reshape(heads, 3, -1, *tensor.shape[1:]).transpose(0, 1).reshape(tensor.shape)
