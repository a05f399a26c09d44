"""Decoders of every kind that the engine knows, a few thousand weights each, and what goes with them."""

import random
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from whetstone.data.template import Template

__all__ = [
    "BATCHED",
    "CONTEXT_TOKENS",
    "LEAN",
    "ONE_BY_ONE",
    "STOP",
    "VOCABULARY",
    "adapter",
    "generated",
    "made",
    "prompts",
    "template",
]

VOCABULARY = 60
CONTEXT_TOKENS = 256
STOP = frozenset({2, 7})
SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": CONTEXT_TOKENS,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
GPT2 = {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": CONTEXT_TOKENS}
BATCHED: dict[str, dict[str, Any]] = {
    "llama": {},
    "qwen2": {},
    "qwen2-sliding": {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 1},
    "qwen3": {"head_dim": 8},
    "mistral-sliding": {"sliding_window": 4, "head_dim": 8},
    "phi": {},
    "phi3": {},
    "phi3-sliding": {"sliding_window": 6},
    "gpt_neox": {},
    "gemma": {"head_dim": 8},
    "gemma2-sliding": {"head_dim": 8, "sliding_window": 5, "query_pre_attn_scalar": 8},
    "gemma3_text-sliding": {"head_dim": 8, "sliding_window": 5, "sliding_window_pattern": 2},
    "smollm3": {},
    "gpt2": GPT2,
    "opt": {"ffn_dim": 48, "word_embed_proj_dim": 32},
    "mixtral": {"num_local_experts": 2},
}
LATENT = {"q_lora_rank": 16, "kv_lora_rank": 16, "qk_rope_head_dim": 8, "v_head_dim": 12, "qk_nope_head_dim": 8}
ONE_BY_ONE: dict[str, dict[str, Any]] = {
    "bloom": {},
    "gptj": {**GPT2, "rotary_dim": 8},
    "mamba": {},
    # Windows and chunks that are longer than what is tried, and that only masks know of.
    "phimoe-sliding": {"num_local_experts": 2, "sliding_window": 20},
    "llama4_text": {"num_local_experts": 2, "intermediate_size_mlp": 32, "head_dim": 8, "attention_chunk_size": 20},
    # Values are shorter than keys.
    "deepseek_v3": {**LATENT, "num_key_value_heads": 4, "n_routed_experts": 4, "n_group": 1, "topk_group": 1}
    | {"num_experts_per_tok": 2, "moe_intermediate_size": 16},
}
LEAN = {"llama", "qwen2", "qwen2-sliding", "qwen3", "mistral-sliding"}


@cache
def template() -> Template:
    words = {"<pad>": 0, "<s>": 1, "</s>": 2, "<unk>": 3} | {f"w{index}": index for index in range(4, VOCABULARY)}
    backend = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    special = {"eos_token": "</s>", "bos_token": "<s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    return Template(PreTrainedTokenizerFast(tokenizer_object=backend, **special), "plain")


def made(name: str, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    torch.manual_seed(0)
    config = CONFIG_MAPPING[name.partition("-")[0]](**(SIZES | (BATCHED | ONE_BY_ONE)[name]))
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config)
    for parameter in model.parameters():
        # Fresh weights are so small that logits are nearly equal, and greedy choices would be ties.
        if parameter.dim() > 1:
            parameter.data.mul_(6)
    return model.to(dtype).eval()


def prompts(seed: int, count: int) -> list[tuple[int, ...]]:
    """Some begin alike, and some are equal."""
    rng = random.Random(seed)
    shared = [rng.randrange(8, VOCABULARY) for _ in range(30)]
    own = [[rng.randrange(8, VOCABULARY) for _ in range(rng.randrange(1, 40))] for _ in range(count)]
    return [tuple((shared if rng.random() < 0.6 else []) + rng.choice(own)) for _ in range(count)]


def generated(model: torch.nn.Module, prompt: Sequence[int], new_tokens: int) -> list[int]:
    """What transformers answers, one prompt at a time."""
    ids = torch.tensor([prompt])
    with torch.inference_mode():
        output = model.generate(  # type: ignore[operator]
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=new_tokens,
            do_sample=False,
            eos_token_id=sorted(STOP),
            pad_token_id=0,
        )
    answer: list[int] = output[0, len(prompt) :].tolist()
    return answer


def adapter(folder: Path, name: str, dtype: torch.dtype, size: float, **options: Any) -> Path:
    """Saves an adapter whose weights differ from fresh ones by about a size."""
    config = LoraConfig(**{"r": 4, "lora_alpha": 16, "task_type": "CAUSAL_LM", **options})
    tuned = get_peft_model(made(name, dtype), config)
    torch.manual_seed(0)
    for parameter in tuned.parameters():
        if parameter.requires_grad:
            parameter.data.add_(torch.randn_like(parameter) * size)
    tuned.save_pretrained(folder)
    return folder
