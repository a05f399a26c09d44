"""A new decoder with random weights, and a byte-level BPE tokenizer trained for it."""

import dataclasses
import difflib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    CONFIG_MAPPING,
    AutoModelForCausalLM,
    LlamaConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, MODEL_FOR_MASKED_LM_MAPPING_NAMES
from transformers.utils import logging

from whetstone.data.example import Example
from whetstone.errors import UserError
from whetstone.model_section import Scratch

__all__ = ["new_model", "save_scratch", "scratch_config", "scratch_texts", "train_tokenizer"]

_PAD, _END = "<|pad|>", "<|end|>"
_ROLES = ("<|system|>", "<|user|>", "<|assistant|>")

_REFUSALS = (StrictDataclassError, ValueError, TypeError, LookupError, AttributeError, RuntimeError, ArithmeticError)
"""What architectures raise over values that they cannot have."""

_CHAT_TEMPLATE = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def scratch_texts(examples: Sequence[Example]) -> list[str]:
    """What the tokenizer of a scratch run is trained on: all turns and answers of the training part."""
    turns = [turn.content for example in examples for turn in example.messages]
    return turns + [reference for example in examples for reference in example.references]


def train_tokenizer(texts: Iterable[str], vocabulary_size: int) -> PreTrainedTokenizerFast:
    """Trains a byte-level BPE tokenizer (any text can be encoded) with the tokens of its chat template."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary_size,
        special_tokens=[_PAD, _END, *_ROLES],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=_PAD, eos_token=_END, extra_special_tokens=list(_ROLES)
    )
    wrapped.chat_template = _CHAT_TEMPLATE
    return wrapped


def scratch_config(shape: Scratch, tokenizer: PreTrainedTokenizerFast) -> PreTrainedConfig:
    """The architecture; a Llama's input and output embeddings are tied.

    Raises:
        UserError: ``config`` names an architecture that is no decoder, an unknown key, or an impossible value.
    """
    if shape.config is not None:
        return _config_of(shape.config, shape, tokenizer)
    return LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=shape.dim,
        intermediate_size=shape.feed_forward_dim,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.heads,
        max_position_embeddings=shape.context_tokens,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
    )


def _config_of(given: dict[str, Any], shape: Scratch, tokenizer: PreTrainedTokenizerFast) -> PreTrainedConfig:
    kind = _config_class(given["model_type"])
    own = {
        "vocab_size": len(tokenizer),
        "pad_token_id": tokenizer.pad_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "bos_token_id": None,
    }
    inherited = {field.name for field in dataclasses.fields(PreTrainedConfig)}
    fields = {field.name for field in dataclasses.fields(kind)} - inherited
    known = sorted((fields | kind.attribute_map.keys()) - own.keys())
    for key in given.keys() - {"model_type"}:
        if key in own:
            raise UserError(f"model.scratch.config.{key}: comes from the tokenizer that is trained; leave it out")
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
            hint = f"did you mean '{near[0]}'?" if near else f"valid here: {', '.join(known)}"
            raise UserError(f"model.scratch.config.{key}: unknown key of {given['model_type']}; {hint}")
    if kind().is_encoder_decoder:
        raise UserError(f"model.scratch.config.model_type: {given['model_type']} has an encoder; give a decoder alone")
    # Causal architectures need no is_decoder, and some have it as False; those that also fill gaps obey it.
    if (
        given["model_type"] in MODEL_FOR_MASKED_LM_MAPPING_NAMES
        and "is_decoder" in fields
        and not given.get("is_decoder")
    ):
        raise UserError(
            f"model.scratch.config.is_decoder: {given['model_type']} reads text in both directions; set it to true"
        )
    values = {key: value for key, value in given.items() if key != "model_type"}
    if "max_position_embeddings" in known:
        length = kind.attribute_map.get("max_position_embeddings", "max_position_embeddings")
        values = {key: value for key, value in values.items() if key not in ("max_position_embeddings", length)}
        values[length] = shape.context_tokens
    try:
        return kind(**values, **own)
    except _REFUSALS as error:
        raise _unusable(given, error) from None


def _config_class(model_type: str) -> type[PreTrainedConfig]:
    known = [name for name in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES if name in CONFIG_MAPPING]
    if model_type not in known:
        near = difflib.get_close_matches(model_type.lower(), known, n=1, cutoff=0.5)
        hint = f"did you mean '{near[0]}'?" if near else "llama, qwen2, gpt_neox, phi, gemma and mistral are some"
        raise UserError(
            f"model.scratch.config.model_type: '{model_type}' is no decoder that transformers knows; {hint}"
        )
    kind: type[PreTrainedConfig] = CONFIG_MAPPING[model_type]
    return kind


def _unusable(given: dict[str, Any], error: Exception) -> UserError:
    """Names the key that the error of transformers speaks of, by its name or by its value."""
    text = " ".join(str(error).split())
    spoken = [key for key in given if key in text or key.replace("_", " ") in text or repr(given[key]) == text]
    where = ".".join(["model.scratch.config", *spoken[:1]])
    reason = str(error).strip().splitlines()[-1].strip()
    return UserError(f"{where}: {given['model_type']} cannot be built ({reason}); mend the value")


def new_model(shape: Scratch, tokenizer: PreTrainedTokenizerFast, seed: int) -> PreTrainedModel:
    """Random float32 weights.

    Raises:
        UserError: No model can be built of the ``config``.
    """
    config = scratch_config(shape, tokenizer)
    torch.manual_seed(seed)
    if shape.config is None:
        return AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    try:
        return AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    except _REFUSALS as error:
        raise _unusable(shape.config, error) from None


def save_scratch(folder: Path, shape: Scratch, texts: Iterable[str], seed: int) -> None:
    """Makes tokenizer and random weights, and saves both as a model directory."""
    logging.disable_progress_bar()
    tokenizer = train_tokenizer(texts, shape.vocabulary_size)
    new_model(shape, tokenizer, seed).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
