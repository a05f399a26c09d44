"""Models and adapters as mlx-lm computes them, out of Hugging Face and PEFT folders.

Notable: mlx-lm reads config.json with defaults of its own and leaves out keys that it does not know, among them where
transformers 5 writes the base of the rotary embedding. So it is handed the configuration as transformers understands
it, and only architectures whose logits were compared with those of transformers are opened.
"""

import contextlib
import json
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from transformers import PreTrainedConfig

from whetstone.data.template import Template
from whetstone.errors import UserError
from whetstone.files import atomic_folder, read_json, write_json, written_by_libraries
from whetstone.models.load import context_tokens, load_config, stored_end_ids

__all__ = ["MlxModel", "convert_adapter", "load_mlx", "write_mlx"]

_GELU_BY_TANH = frozenset({"gelu_new", "gelu_fast", "gelu_pytorch_tanh"})
_PLAIN_ROTARY = frozenset({"default"})
_SCALED_ROTARY = frozenset({"default", "linear", "llama3"})


@dataclass(frozen=True, slots=True)
class _Family:
    """What mlx-lm computes for one architecture, whatever the configuration says.

    Attributes:
        activations: The names, in the words of transformers, of what its feed-forward layers compute.
        rotary: The kinds of rotary embedding that it knows.
    """

    activations: frozenset[str] = frozenset({"silu"})
    rotary: frozenset[str] = _SCALED_ROTARY


_FAMILIES: Mapping[str, _Family] = {
    "gemma2": _Family(_GELU_BY_TANH, _PLAIN_ROTARY),
    "gpt_neox": _Family(_GELU_BY_TANH, _PLAIN_ROTARY),
    "granite": _Family(),
    "llama": _Family(),
    "mistral": _Family(),
    "olmo2": _Family(),
    "phi": _Family(_GELU_BY_TANH, _PLAIN_ROTARY),
    "phi3": _Family(rotary=_PLAIN_ROTARY),
    "qwen2": _Family(),
    "qwen3": _Family(),
    "smollm3": _Family(),
    "stablelm": _Family(rotary=_PLAIN_ROTARY),
}

_MODULE_NAMES = {"gpt_neox.layers.": "model.h.", "embed_out": "model.embed_out"}
"""How module names begin in transformers and in mlx-lm, where they differ."""

_COPY_OF_BASE = ".base_layer.weight"

_PART_NAMES = {"lora_A.weight": "lora_a", "lora_B.weight": "lora_b", "lora_magnitude_vector": "m"}

_BEYOND_MLX = (
    "alora_invocation_tokens",
    "alpha_pattern",
    "layer_replication",
    "lora_bias",
    "modules_to_save",
    "rank_pattern",
    "target_parameters",
    "trainable_token_indices",
    "use_qalora",
)
"""Settings of PEFT that mlx-lm's adapters cannot say."""

_REASON_CHARACTERS = 200

_PLAIN_STARTS = (True, False, "gaussian", "orthogonal")
"""How an adapter may have begun; with every other start PEFT changes the base, too."""


@dataclass(frozen=True, slots=True)
class MlxModel:
    """Weights that mlx-lm computes with.

    Attributes:
        model: Its module, in evaluation mode; tokens ``(batch, tokens)`` and a cache to logits.
        context_tokens: The longest sequence that it computes as transformers would.
        end_ids: The tokens that the model's own generation settings end with.
        dtype: Of its logits, as torch names it.
    """

    model: Any
    context_tokens: int
    end_ids: tuple[int, ...]
    dtype: str


def load_mlx(
    folder: Path, *, dtype: Literal["float32", "bfloat16", "float16"] | None = None, adapter: Path | None = None
) -> MlxModel:
    """Reads a model directory, and puts an adapter on it; never runs code that comes with a model.

    Args:
        folder: What transformers saved, not quantised.
        dtype: Of the weights; None leaves each in the type it was saved in.
        adapter: A PEFT folder.

    Raises:
        UserError: mlx-lm is missing, does not compute this architecture as transformers does, or the folder or the
            adapter cannot be read.
    """
    config = load_config(folder)
    _check(config, folder)
    try:
        import mlx.core as mx  # an optional package
        from mlx_lm.utils import load_adapters, load_model
    except (ImportError, OSError, ValueError) as error:
        raise UserError(f"mlx-lm cannot be used here ({error}): pip install 'whetstone[mlx]'") from None
    with _said_plainly(folder):
        model, _ = load_model(folder, lazy=True, model_config=_settings(config))
        if dtype is not None:
            model.set_dtype(getattr(mx, dtype))
    if adapter is not None:
        with tempfile.TemporaryDirectory() as made:
            convert_adapter(adapter, Path(made, "adapter"))
            try:
                load_adapters(model, str(Path(made, "adapter")))
            except (ValueError, KeyError) as error:
                reason = str(error).strip().splitlines()[-1].strip()
                raise UserError(f"{adapter}: does not fit {folder} ({reason}); give an adapter made for it") from None
            # The files are read when they are needed first, and will be gone then.
            mx.eval(model.parameters())
    model.eval()
    # Whatever else waits to be computed belongs to this thread, and another one may step.
    with _said_plainly(folder):
        logits = model(mx.array([[0]]))
        mx.eval(model.parameters(), logits)
    said_dtype = str(logits.dtype).removeprefix("mlx.core.")
    return MlxModel(model, _exact_tokens(config), tuple(stored_end_ids(folder)), said_dtype)


def write_mlx(folder: Path, out: Path, template: Template, end_ids: Iterable[int]) -> None:
    """Writes a model directory that mlx-lm's own programs read as we would: for they take no configuration but a file.

    The weights are not copied but linked to.

    Args:
        folder: What transformers saved, not quantised, adapters merged in.
        out: The folder to write; it appears whole.
        template: What the model is asked with.
        end_ids: The tokens that end an answer.

    Raises:
        UserError: mlx-lm does not compute this architecture as transformers does, or the folder cannot be written.
    """
    config = load_config(folder)
    _check(config, folder)
    ends = sorted(end_ids)
    with written_by_libraries(out, "free some space and try again"), atomic_folder(out) as made:
        for file in folder.glob("*.safetensors"):
            (made / f"model-{file.name}").symlink_to(file.resolve())
        template.tokenizer.save_pretrained(made)
        write_json(made / "config.json", _settings(config) | {"eos_token_id": ends})
        write_json(made / "generation_config.json", {"eos_token_id": ends})


def convert_adapter(peft_folder: Path, out: Path) -> None:
    """Writes a LoRA or DoRA adapter of PEFT as one of mlx-lm (``adapters.safetensors``, ``adapter_config.json``).

    Every adapted module is named by its whole path, so an adapter of some layers stays one of these layers. The scale
    is alpha / rank (arXiv:2106.09685) or alpha / sqrt(rank) (rsLoRA, arXiv:2312.03732). The copy of the base's own
    weight that PEFT saves beside an adapted output head is left out.

    Args:
        peft_folder: What PEFT saved.
        out: The folder to write; it appears whole.

    Raises:
        UserError: The adapter has what mlx-lm's format cannot say, or a folder cannot be read or written.
    """
    config = _plain_lora(peft_folder)
    tensors: dict[str, torch.Tensor] = {}
    modules: set[str] = set()
    for name, tensor in _peft_tensors(peft_folder).items():
        module, part = _mlx_name(name, peft_folder)
        modules.add(module)
        tensors[f"{module}.{part}"] = tensor if part == "m" else tensor.T.contiguous()
    rank = config["r"]
    said = {
        "fine_tune_type": "dora" if config.get("use_dora") else "lora",
        "num_layers": -1,
        "lora_parameters": {
            "rank": rank,
            "scale": config["lora_alpha"] / (rank**0.5 if config.get("use_rslora") else rank),
            "dropout": config.get("lora_dropout", 0.0),
            "keys": sorted(modules),
        },
    }
    with written_by_libraries(out, "free some space and try again"), atomic_folder(out) as folder:
        save_file(tensors, folder / "adapters.safetensors")
        write_json(folder / "adapter_config.json", said)


def _check(config: PreTrainedConfig, folder: Path) -> None:
    """Refuses what mlx-lm would compute otherwise than transformers does.

    Raises:
        UserError: It would, or nobody has compared.
    """
    kind, said = config.model_type, config.to_dict()
    if kind not in _FAMILIES:
        raise UserError(
            f"{folder}: '{kind}' was not compared between mlx-lm and transformers ({', '.join(_FAMILIES)} were); "
            "use the torch engine"
        )
    family = _FAMILIES[kind]
    if said.get("quantization_config") is not None or said.get("quantization") is not None:
        raise UserError(f"{folder}: its weights are quantised; give the folder of the whole weights")
    activation = said.get("hidden_activation") or said["hidden_act"]
    if activation not in family.activations:
        raise UserError(
            f"{folder}: the model computes {activation}, mlx-lm has {' or '.join(sorted(family.activations))} for "
            f"every {kind}; use the torch engine"
        )
    rotary = config.rope_parameters["rope_type"]
    if rotary not in family.rotary:
        raise UserError(
            f"{folder}: mlx-lm does not compute the '{rotary}' rotary embedding of this {kind} as transformers does; "
            "use the torch engine"
        )


def _settings(config: PreTrainedConfig) -> dict[str, Any]:
    """The configuration with all defaults of transformers, in the words of mlx-lm."""
    rotary = config.rope_parameters
    # Through JSON and back, as if it were read from the file.
    settings: dict[str, Any] = json.loads(config.to_json_string(use_diff=False))
    share = rotary.get("partial_rotary_factor", 1.0)
    settings |= {
        "rope_theta": rotary["rope_theta"],
        "rotary_emb_base": rotary["rope_theta"],
        "rope_scaling": None if rotary["rope_type"] == "default" else dict(rotary),
        "partial_rotary_factor": share,
        "rotary_pct": share,
    }
    return settings


def _exact_tokens(config: PreTrainedConfig) -> int:
    """How far mlx-lm computes what transformers computes: up to the attention window, which it leaves out."""
    window = config.to_dict().get("sliding_window")
    longest = context_tokens(config)
    return longest if window is None else min(longest, window)


def _plain_lora(folder: Path) -> dict[str, Any]:
    """The configuration of an adapter that mlx-lm can compute.

    Raises:
        UserError: mlx-lm cannot compute it.
    """
    config: dict[str, Any] = read_json(folder / "adapter_config.json")
    mend = "merge it into its base, and give the merged model"
    if config.get("peft_type") != "LORA":
        raise UserError(f"{folder}: mlx-lm has no adapter of type {config.get('peft_type')}; {mend}")
    for key in _BEYOND_MLX:
        if config.get(key):
            raise UserError(f"{folder}: mlx-lm's adapters have no '{key}'; {mend}")
    if config.get("bias", "none") != "none":
        raise UserError(f"{folder}: mlx-lm's adapters have no 'bias: {config['bias']}'; {mend}")
    if config.get("init_lora_weights", True) not in _PLAIN_STARTS:
        raise UserError(f"{folder}: '{config['init_lora_weights']}' changes the base, which mlx-lm cannot; {mend}")
    return config


def _peft_tensors(folder: Path) -> dict[str, torch.Tensor]:
    try:
        tensors = load_file(folder / "adapter_model.safetensors")
    except (OSError, SafetensorError) as error:
        raise UserError(f"{folder}: no whole adapter_model.safetensors ({error}); give what PEFT saved") from None
    return {name: tensor for name, tensor in tensors.items() if not name.endswith(_COPY_OF_BASE)}


def _mlx_name(name: str, folder: Path) -> tuple[str, str]:
    """The module, as mlx-lm calls it, and the part of its adapter that a tensor of PEFT is.

    Raises:
        UserError: The tensor is none of a LoRA on a linear layer.
    """
    for suffix, part in _PART_NAMES.items():
        if name.endswith(f".{suffix}"):
            module = name.removeprefix("base_model.model.").removesuffix(f".{suffix}")
            for theirs, ours in _MODULE_NAMES.items():
                if module.startswith(theirs):
                    return ours + module.removeprefix(theirs), part
            return module, part
    raise UserError(
        f"{folder}: mlx-lm's adapters have no place for '{name}'; merge it into its base, and give the merged model"
    )


@contextlib.contextmanager
def _said_plainly(folder: Path) -> Iterator[None]:
    """Turns what mlx-lm raises over a model into one line."""
    try:
        yield
    except (OSError, ValueError, LookupError, TypeError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:_REASON_CHARACTERS]
        raise UserError(f"{folder}: mlx-lm cannot load it ({reason}); use the torch engine") from None
