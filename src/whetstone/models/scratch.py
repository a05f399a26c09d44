"""A new Llama-type decoder with random weights, and a byte-level BPE tokenizer trained for it."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from transformers.utils import logging

from whetstone.data.example import Example
from whetstone.model_section import Scratch

__all__ = ["new_model", "save_scratch", "scratch_config", "scratch_texts", "train_tokenizer"]

_PAD, _END = "<|pad|>", "<|end|>"
_ROLES = ("<|system|>", "<|user|>", "<|assistant|>")

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


def scratch_config(shape: Scratch, tokenizer: PreTrainedTokenizerFast) -> LlamaConfig:
    """The architecture of a shape; input and output embeddings are tied."""
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


def new_model(shape: Scratch, tokenizer: PreTrainedTokenizerFast, seed: int) -> LlamaForCausalLM:
    """Random weights of a shape."""
    torch.manual_seed(seed)
    return LlamaForCausalLM(scratch_config(shape, tokenizer))


def save_scratch(folder: Path, shape: Scratch, texts: Iterable[str], seed: int) -> None:
    """Makes tokenizer and random weights, and saves both as a model directory."""
    logging.disable_progress_bar()
    tokenizer = train_tokenizer(texts, shape.vocabulary_size)
    new_model(shape, tokenizer, seed).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
