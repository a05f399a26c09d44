"""Loads a causal language model and its template from a directory, a hub id, or the one that ships with the package."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    GenerationConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)
from transformers.utils import logging

from whetstone.data.template import Template
from whetstone.errors import UserError
from whetstone.files import read_json
from whetstone.models.builtin import BUILTIN_BASE
from whetstone.models.quantise import keep_gradients

__all__ = [
    "BUILTIN_BASE",
    "LanguageModel",
    "attention_of",
    "context_tokens",
    "end_ids",
    "load_config",
    "load_model",
    "load_template",
    "load_weights",
    "locate",
    "stored_end_ids",
]


@dataclass(frozen=True, slots=True)
class LanguageModel:
    """Weights on a device, with the template that they are asked with.

    Attributes:
        model: In evaluation mode.
        template: Renders prompts and answers.
        folder: Where the weights were read from.
    """

    model: PreTrainedModel
    template: Template
    folder: Path


def locate(base: str, *, key: str | None = "model.base") -> Path:
    """The local folder of a model: itself, the shipped base's, or a hub snapshot (fetched when it is not cached).

    Args:
        base: Its name.
        key: Of the experiment, where the name stands; None where it stands elsewhere.

    Raises:
        UserError: There is no such directory and no such model on the hub, or the hub cannot be reached.
    """
    if base == BUILTIN_BASE:
        return Path(str(files("whetstone") / "assets" / "demo-base"))
    if Path(base).is_dir():
        return Path(base)
    try:
        return Path(snapshot_download(base, allow_patterns=["*.json", "*.safetensors", "*.jinja", "*.model", "*.txt"]))
    except (HfHubHTTPError, LocalEntryNotFoundError, ValueError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        said = f"'{base}' is neither a directory nor a model that the hub gives: {reason}"
        raise UserError(said if key is None else f"{key}: {said}") from None


def load_model(
    folder: Path,
    *,
    template: str,
    dtype: str | torch.dtype,
    device: torch.device,
    attention: str | None = None,
    quantisation: BitsAndBytesConfig | None = None,
) -> LanguageModel:
    """Reads weights and tokenizer of a folder; the arguments are those of :func:`load_weights`.

    Raises:
        UserError: The folder is not a causal language model that transformers knows, or has no usable template.
    """
    rendered, _ = load_template(folder, template)
    weights = load_weights(folder, dtype=dtype, device=device, attention=attention, quantisation=quantisation)
    return LanguageModel(weights, rendered, folder)


def load_template(folder: Path, choice: str) -> tuple[Template, list[int]]:
    """Reads the tokenizer of a folder, and none of its weights.

    Args:
        folder: A model directory.
        choice: ``auto``, ``plain``, ``chatml``, or the path of a Jinja file.

    Returns:
        The template, and the tokens that the model's own generation settings end with.

    Raises:
        UserError: The folder is not a model that transformers knows, or has no usable template.
    """
    with _said_plainly(folder):
        tokenizer = _load_tokenizer(folder)
        ends = stored_end_ids(folder)
    if choice == "plain" and ends and tokenizer.eos_token_id not in ends:
        # The plain template ends an answer with EOS. The embedding of an EOS that the model does not use was never
        # trained, and an adapter leaves embeddings alone: such an end could be taught for ever and never be said.
        tokenizer.eos_token = tokenizer.convert_ids_to_tokens(ends[0])
    return Template(tokenizer, choice), ends


def load_config(folder: Path) -> PreTrainedConfig:
    """Reads the architecture of a folder, and none of its weights.

    Raises:
        UserError: The folder is not a model that transformers knows.
    """
    with _said_plainly(folder):
        return AutoConfig.from_pretrained(folder, trust_remote_code=False)


def context_tokens(config: PreTrainedConfig) -> int:
    """The longest sequence that a model takes; architectures without absolute positions may state none."""
    return int(getattr(config, "max_position_embeddings", 2**31))


def end_ids(model: PreTrainedModel) -> list[int]:
    """The tokens that the model's own generation settings end with."""
    return _as_list(model.generation_config.eos_token_id)


def stored_end_ids(folder: Path) -> list[int]:
    """The tokens that the model of a folder would end with, once it is loaded."""
    return _as_list(_generation_config(folder).eos_token_id)


def attention_of(model: PreTrainedModel) -> str:
    """The attention implementation that a model really has."""
    return str(model.config._attn_implementation)


def load_weights(
    folder: Path,
    *,
    dtype: str | torch.dtype,
    device: torch.device,
    attention: str | None = None,
    quantisation: BitsAndBytesConfig | None = None,
) -> PreTrainedModel:
    """Reads weights (safetensors only), in evaluation mode; never runs code that comes with a model.

    Args:
        folder: A model directory.
        dtype: Of the weights; of those that are not quantised, where some are.
        device: Where they go.
        attention: The implementation. Where the architecture refuses it, the model has its default, and
            :func:`attention_of` says which one that is.
        quantisation: Quantise the weights while they are read (:func:`whetstone.models.quantise.nf4`).

    Raises:
        UserError: The folder is not a causal language model that transformers knows.
    """
    logging.disable_progress_bar()
    options: dict[str, Any] = {"dtype": dtype, "use_safetensors": True, "trust_remote_code": False}
    if quantisation is not None:
        options |= {"quantization_config": quantisation, "device_map": {"": str(device)}}
    with _said_plainly(folder):
        try:
            asked = {} if attention is None else {"attn_implementation": attention}
            model = AutoModelForCausalLM.from_pretrained(folder, **asked, **options)
        except (ValueError, ImportError):
            if attention is None:
                raise
            model = AutoModelForCausalLM.from_pretrained(folder, **options)
    if quantisation is not None:
        keep_gradients(model)
        return model.eval()
    return model.to(device).eval()


def _load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a folder.

    Over the tokenizer of some architectures (qwen2 is one) AutoTokenizer puts the normalizer and the words of the
    published models, even where the folder says that its tokenizer.json is all there is.
    """
    settings = folder / "tokenizer_config.json"
    if settings.exists() and read_json(settings).get("tokenizer_class") == "TokenizersBackend":
        return PreTrainedTokenizerFast.from_pretrained(folder)
    return AutoTokenizer.from_pretrained(folder, trust_remote_code=False)


def _generation_config(folder: Path) -> GenerationConfig:
    """The settings that the model would have once it is loaded."""
    if (folder / "generation_config.json").exists():
        return GenerationConfig.from_pretrained(folder)
    return GenerationConfig.from_model_config(AutoConfig.from_pretrained(folder, trust_remote_code=False))


def _as_list(ids: list[int] | int | None) -> list[int]:
    if ids is None:
        return []
    return list(ids) if isinstance(ids, list) else [int(ids)]


@contextlib.contextmanager
def _said_plainly(folder: Path) -> Iterator[None]:
    """Turns what libraries raise over a folder into one line."""
    try:
        yield
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(
            f"{folder}: cannot be loaded as a causal language model ({reason}); it needs config.json, a tokenizer and "
            "whole *.safetensors files"
        ) from None
