"""What the engines are asked: Llamas with random weights in real shapes, and prompts that share an instruction.

Notable: the weights are so large that layers keep the length of a vector, and answers wander. With the usual smaller
ones each answer repeats one token for ever, and a contestant that loses its prompt would go unseen. The embeddings of
the special tokens are zero, so their logits are, and of tens of thousands of random logits the largest is never zero:
no answer can end before its length, whatever tokens a contestant stops at. The tokenizer is a byte-level BPE over
made-up words with as many tokens as the shape has, so turning tokens into text costs what it costs.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerBase

from whetstone.models.scratch import train_tokenizer

__all__ = [
    "SHAPES",
    "Answered",
    "Ask",
    "Shape",
    "draw_load",
    "draw_prompts",
    "weights_file",
    "write_adapters",
    "write_model",
]

INSTRUCTION_TOKENS = 60
OWN_TOKENS, NEW_TOKENS = (10, 40), (16, 48)
"""Least and most; in between they are spread as those of sentences are, with a hump in the middle."""

CONTEXT_TOKENS = 1024
ADAPTER_RANK = 16


@dataclass(frozen=True, slots=True)
class Shape:
    """A decoder's sizes.

    Attributes:
        hidden: Width of the residual stream.
        layers: How many.
        heads: Of queries.
        key_heads: Of keys and values.
        feed_forward: Width of the feed-forward layers.
        vocabulary: Tokens.
        architecture: As transformers calls it.
    """

    hidden: int
    layers: int
    heads: int
    key_heads: int
    feed_forward: int
    vocabulary: int
    architecture: str = "llama"


SHAPES = {
    "tiny": Shape(64, 2, 4, 2, 128, 1024),
    "15 M": Shape(288, 6, 6, 6, 768, 32_000),
    "135 M": Shape(576, 30, 9, 3, 1536, 49_152),
    "Llama-3.2-3B": Shape(3072, 28, 24, 8, 8192, 128_256),
    "Phi-2": Shape(2560, 32, 32, 32, 10_240, 51_200, "phi"),
}
"""Llama-3.2-3B and the two small ones have tied embeddings, as the published ones of these shapes have."""


@dataclass(frozen=True, slots=True)
class Ask:
    """One prompt, and how many tokens its answer has."""

    prompt: tuple[int, ...]
    new_tokens: int
    adapter: str | None = None


@dataclass(frozen=True, slots=True)
class Answered:
    """What a contestant gave.

    Attributes:
        token_ids: The wanted tokens.
        text: What they say; everybody has to hand it over.
        token_s: When each was there, where the contestant can tell.
    """

    token_ids: list[int]
    text: str
    token_s: tuple[float, ...] = ()


def write_model(folder: Path, shape: Shape, device: str = "cpu", dtype: torch.dtype = torch.float32) -> None:
    """Writes random weights, always the same ones on the same device, and their tokenizer.

    Args:
        folder: Where to.
        shape: The sizes.
        device: Where the weights are drawn; billions of them are drawn faster on a GPU.
        dtype: In which they are written.
    """
    tokenizer = train_tokenizer(_texts(random.Random(0), 5 * shape.vocabulary // 4), shape.vocabulary)
    config = AutoConfig.for_model(
        shape.architecture,
        hidden_size=shape.hidden,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.key_heads,
        intermediate_size=shape.feed_forward,
        vocab_size=shape.vocabulary,
        max_position_embeddings=CONTEXT_TOKENS,
        tie_word_embeddings=shape.architecture == "llama",
        initializer_range=shape.hidden**-0.5,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
    )
    torch.manual_seed(0)
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(config, dtype=dtype)
    with torch.no_grad():
        model.get_output_embeddings().weight[tokenizer.all_special_ids] = 0
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def weights_file(folder: Path) -> Path:
    """The weights of a model that is small enough for one file."""
    return folder / "model.safetensors"


def write_adapters(folder: Path, model: Path, names: Sequence[str]) -> dict[str, str]:
    """Writes random LoRA adapters of rank 16 on all linear layers; the folders by name."""
    folders = {}
    for seed, name in enumerate(names):
        torch.manual_seed(seed)
        base = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
        config = LoraConfig(r=ADAPTER_RANK, target_modules="all-linear", init_lora_weights=False, task_type="CAUSAL_LM")
        get_peft_model(base, config).save_pretrained(folder / name)
        folders[name] = str(folder / name)
    return folders


def draw_load(tokenizer: PreTrainedTokenizerBase, prompts: int, seed: int, adapters: Sequence[str] = ()) -> list[Ask]:
    """Prompts that share an instruction, each with a part and a length of its own.

    Args:
        tokenizer: Of the model.
        prompts: How many.
        seed: Another instruction, other parts, other lengths.
        adapters: Every other prompt is for one of these, in turn.
    """
    draw = random.Random(seed)
    instruction = _ids(tokenizer, draw, INSTRUCTION_TOKENS)
    asks = []
    for number in range(prompts):
        own, new_tokens = (_length(draw, *bounds) for bounds in (OWN_TOKENS, NEW_TOKENS))
        adapter = adapters[number // 2 % len(adapters)] if adapters and number % 2 else None
        asks.append(Ask((*instruction, *_ids(tokenizer, draw, own)), new_tokens, adapter))
    return asks


def draw_prompts(tokenizer: PreTrainedTokenizerBase, prompts: int, tokens: tuple[int, int], seed: int) -> list[Ask]:
    """Prompts that share nothing, of equal lengths.

    Args:
        tokenizer: Of the model.
        prompts: How many.
        tokens: Of each prompt, and of each answer.
        seed: Other prompts.
    """
    draw = random.Random(seed)
    return [Ask(tuple(_ids(tokenizer, draw, tokens[0])), tokens[1]) for _ in range(prompts)]


def _length(draw: random.Random, least: int, most: int) -> int:
    middle, spread = (least + most) / 2, (most - least) / 4
    return round(min(most, max(least, draw.gauss(middle, spread))))


def _ids(tokenizer: PreTrainedTokenizerBase, draw: random.Random, tokens: int) -> list[int]:
    # A word has at least one token.
    ids: list[int] = tokenizer.encode(" ".join(_texts(draw, tokens)), add_special_tokens=False)
    return ids[:tokens]


def _texts(draw: random.Random, words: int) -> list[str]:
    """Lines of made-up words of one to four syllables."""
    made = ["".join(draw.choices(_SYLLABLES, k=draw.randint(1, 4))) for _ in range(words)]
    return [" ".join(made[start : start + 16]) for start in range(0, words, 16)]


_CONSONANTS = ("b", "c", "d", "f", "g", "h", "k", "l", "m", "n", "p", "r", "s", "t", "v", "st", "tr", "pl", "ch", "sh")
_VOWELS = ("a", "e", "i", "o", "u", "ai", "ea", "ou")
_SYLLABLES = [consonant + vowel for consonant in _CONSONANTS for vowel in _VOWELS]
