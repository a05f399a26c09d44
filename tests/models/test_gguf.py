"""A GGUF file computes what the model folder computes, and encodes what its tokenizer encodes."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast
from transformers.utils import logging

pytest.importorskip("llama_cpp")
pytest.importorskip("gguf")

import llama_cpp
from gguf import GGUFReader

from whetstone.engine.llama_cpp import LlamaCppSource
from whetstone.errors import UserError
from whetstone.models.fingerprint import digest_weights
from whetstone.models.gguf import SHA256_KEY, GgufType, export_gguf
from whetstone.models.load import load_template
from whetstone.models.scratch import train_tokenizer

TEXT = "The cat sits on the mat, and 12345 dogs don't see it.\n\n  Two   spaces; naïve café, 东京 🙂 "
TEXTS = [TEXT, "It rains.", "the the the"]
SHAPE = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "tie_word_embeddings": False,
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
LONG = {
    "rope_type": "longrope",
    "rope_theta": 10000.0,
    "short_factor": [1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6, 1.7],
    "long_factor": [2.0] * 8,
    "original_max_position_embeddings": 256,
}
ALL_ROTATE = {"query_pre_attn_scalar": 16, "head_dim": 16, "sliding_window": 8}
LINEAR = {"rope_type": "linear", "rope_theta": 5e4, "factor": 2.0}

CONFIGURATIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {"head_dim": 32, "rms_norm_eps": 1e-2}),
    "llama, tied, biases": ("llama", {"tie_word_embeddings": True, "attention_bias": True, "mlp_bias": True}),
    "llama, llama3 positions": ("llama", {"rope_parameters": LLAMA3}),
    "llama, linear positions": ("llama", {"rope_parameters": LINEAR}),
    "mistral": ("mistral", {"sliding_window": None, "head_dim": 8}),
    "qwen2": ("qwen2", {"rope_parameters": {"rope_type": "default", "rope_theta": 1e6}}),
    "qwen3": ("qwen3", {"head_dim": 32, "tie_word_embeddings": True}),
    "phi3": ("phi3", {}),
    "phi3, partial positions": (
        "phi3",
        {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5}},
    ),
    "phi3, long positions": (
        "phi3",
        {"max_position_embeddings": 512, "original_max_position_embeddings": 256, "rope_parameters": LONG},
    ),
    "phi": ("phi", {"num_key_value_heads": 4}),
    "gemma": ("gemma", {"head_dim": 32, "tie_word_embeddings": True}),
    "gemma2": ("gemma2", {**ALL_ROTATE, "tie_word_embeddings": True}),
    "gemma3": ("gemma3_text", {**ALL_ROTATE, "num_hidden_layers": 7}),
    "gpt_neox": ("gpt_neox", {"num_key_value_heads": 4}),
    "gpt_neox, sequential, tied": (
        "gpt_neox",
        {"num_key_value_heads": 4, "use_parallel_residual": False, "tie_word_embeddings": True},
    ),
}

GELU = ("phi", "gemma", "gemma2", "gemma3_text", "gpt_neox")
"""llama.cpp looks their activation up in a table of float16 values: three digits, not seven."""


def save_model(
    folder: Path, tokenizer: PreTrainedTokenizerFast, model_type: str, options: dict[str, Any]
) -> PreTrainedModel:
    """Random weights in the folder; norms and biases too, and large enough that answers vary."""
    logging.disable_progress_bar()
    special = {"pad_token_id": 0, "eos_token_id": tokenizer.eos_token_id, "bos_token_id": tokenizer.bos_token_id}
    config = CONFIG_MAPPING[model_type](vocab_size=320, **SHAPE | options, **special)
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(torch.randn_like(parameter), alpha=0.2)
            else:
                parameter.normal_(std=1.5 * parameter.shape[1] ** -0.5)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return model


@pytest.fixture(scope="module")
def byte_level() -> PreTrainedTokenizerFast:
    return train_tokenizer(TEXTS, 310)


@pytest.fixture(scope="module")
def sentence_piece() -> PreTrainedTokenizerFast:
    """As Llama 2 has it: spaces are lower blocks, what is unknown is bytes."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    special = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    tokenizer.train_from_iterator(
        ["the cat sat", "it rains"], trainers.BpeTrainer(special_tokens=special, vocab_size=310)
    )
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    return PreTrainedTokenizerFast(
        tokenizer_object=_without_byte_specials(tokenizer), unk_token="<unk>", bos_token="<s>", eos_token="</s>"
    )


def _without_byte_specials(tokenizer: Tokenizer) -> Tokenizer:
    """The trainer knows no other way to give the bytes their places."""
    whole = json.loads(tokenizer.to_str())
    whole["added_tokens"] = whole["added_tokens"][:3]
    return Tokenizer.from_str(json.dumps(whole))


def encode(file: Path, text: str) -> list[int]:
    """What llama.cpp makes of a text, special tokens read and none added but by the file's own settings."""
    parameters = llama_cpp.llama_model_default_params()
    parameters.vocab_only = True
    model = llama_cpp.llama_model_load_from_file(str(file).encode(), parameters)
    tokens = (llama_cpp.llama_token * 500)()
    said = text.encode()
    vocabulary = llama_cpp.llama_model_get_vocab(model)
    count = llama_cpp.llama_tokenize(vocabulary, said, len(said), tokens, 500, True, True)
    llama_cpp.llama_model_free(model)
    return list(tokens[:count])


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_logits_and_greedy_answers_are_those_of_transformers(
    name: str, byte_level: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    model_type, options = CONFIGURATIONS[name]
    model = save_model(tmp_path / "model", byte_level, model_type, options)
    export_gguf(tmp_path / "model", tmp_path / "model.gguf", "float32")
    tolerance = 5e-3 if model_type in GELU else 1e-4
    source = LlamaCppSource(tmp_path / "model.gguf", context_tokens=64)
    prompt = torch.randint(5, 310, (1, 20), generator=torch.Generator().manual_seed(2))
    answer = model.generate(prompt, max_new_tokens=12, do_sample=False, eos_token_id=-1)[0]
    with torch.no_grad():
        expected = model(answer[None]).logits[0, 19:-1]
    logits = [source.start(prompt[0].tolist()).clone()]
    for token_id in answer[20:-1].tolist():
        logits.append(source.advance(token_id).clone())
    source.close()
    given = torch.stack(logits)
    assert expected.std() > 0.5
    torch.testing.assert_close(given, expected, atol=tolerance, rtol=0)
    # Where two tokens are further apart than the logits may differ, the same one is chosen.
    best = expected.topk(2).values
    clear = best[:, 0] - best[:, 1] > 2 * tolerance
    assert clear.sum() >= 8
    assert torch.equal(given.argmax(1)[clear], answer[20:][clear])


@pytest.mark.parametrize(("dtype", "error"), [("float16", 0.005), ("bfloat16", 0.05), ("q8_0", 0.1)])
def test_smaller_types_are_close(
    dtype: GgufType, error: float, byte_level: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    model = save_model(tmp_path / "model", byte_level, "llama", {"intermediate_size": 100})
    export_gguf(tmp_path / "model", tmp_path / "exact.gguf", "float32")
    export_gguf(tmp_path / "model", tmp_path / "small.gguf", dtype)
    assert (tmp_path / "small.gguf").stat().st_size < 0.7 * (tmp_path / "exact.gguf").stat().st_size
    source = LlamaCppSource(tmp_path / "small.gguf")
    with torch.no_grad():
        expected = model(torch.tensor([[5, 6, 7, 8]])).logits[0, -1]
    assert 0 < (source.start([5, 6, 7, 8]) - expected).std() / expected.std() < error
    source.close()


def test_the_file_says_where_it_comes_from(byte_level: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    save_model(tmp_path / "model", byte_level, "llama", {})
    export_gguf(tmp_path / "model", tmp_path / "model.gguf", "float32")
    fields = GGUFReader(tmp_path / "model.gguf").fields
    assert fields[SHA256_KEY].contents() == digest_weights(tmp_path / "model")
    tokens = fields["tokenizer.ggml.tokens"].contents()
    assert tokens[:5] == ["<|pad|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>"]
    assert tokens[-1] == "[PAD319]"
    assert fields["tokenizer.ggml.token_type"].contents()[:6] == [3, 3, 3, 3, 3, 1]
    assert fields["tokenizer.ggml.eos_token_id"].contents() == byte_level.eos_token_id
    assert fields["tokenizer.ggml.add_bos_token"].contents() is False


def test_the_chat_template_renders_alike(byte_level: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    save_model(tmp_path / "model", byte_level, "llama", {})
    template, _ = load_template(tmp_path / "model", "plain")
    template.tokenizer.save_pretrained(tmp_path / "model")
    export_gguf(tmp_path / "model", tmp_path / "model.gguf", "float32")
    written = GGUFReader(tmp_path / "model.gguf").fields["tokenizer.chat_template"].contents()
    turns = [{"role": "user", "content": "A question"}]
    # llama.cpp gives the template the text of some token for BOS even where there is none.
    rendered = template.tokenizer.apply_chat_template(turns, chat_template=written, tokenize=False, bos_token="junk")
    assert rendered == template.tokenizer.apply_chat_template(turns, tokenize=False) == "A question\n"


def test_byte_level_text_is_encoded_alike(byte_level: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    save_model(tmp_path / "model", byte_level, "llama", {})
    export_gguf(tmp_path / "model", tmp_path / "model.gguf", "float32")
    for text in (TEXT, f"<|user|>{TEXT}<|end|><|assistant|>"):
        assert encode(tmp_path / "model.gguf", text) == byte_level.encode(text, add_special_tokens=False)


@pytest.mark.parametrize("name", ["llama3", "qwen2", "smollm"])
def test_patterns_that_split_text_have_names(name: str, tmp_path: Path) -> None:
    contractions, rest = "(?i:'s|'t|'re|'ve|'m|'ll|'d)", r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    digits = {"llama3": r"\p{N}{1,3}", "qwen2": r"\p{N}"}
    tokenizer = Tokenizer(models.BPE())
    if name == "smollm":
        first: pre_tokenizers.PreTokenizer = pre_tokenizers.Digits(individual_digits=True)
    else:
        pattern = rf"{contractions}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|{digits[name]}{rest}"
        first = pre_tokenizers.Split(Regex(pattern), behavior="isolated")
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=name == "smollm")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([first, byte_level])
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=320, special_tokens=["<|end|>"], initial_alphabet=alphabet)
    tokenizer.train_from_iterator([TEXT, "12 123 123 45 5"] * 3, trainer)
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|end|>")
    save_model(tmp_path / "model", wrapped, "llama", {})
    export_gguf(tmp_path / "model", tmp_path / "model.gguf", "float32")
    said = f"{TEXT}DON'T 1234567 12a\r\n x"
    assert encode(tmp_path / "model.gguf", said) == wrapped.encode(said)


def test_sentence_piece_text_is_encoded_alike(sentence_piece: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    save_model(tmp_path / "model", sentence_piece, "llama", {})
    export_gguf(tmp_path / "model", tmp_path / "model.gguf", "float32")
    for text in ("the cat", "  the rains\n", TEXT):
        assert encode(tmp_path / "model.gguf", text) == sentence_piece.encode(text, add_special_tokens=False)


@pytest.mark.parametrize(
    ("model_type", "options", "reason"),
    [
        ("gpt2", {}, "gpt2 cannot be written as GGUF; these can: llama, mistral"),
        ("llama", {"hidden_act": "gelu"}, "hidden_act silu, not gelu"),
        ("qwen2", {"rope_parameters": LINEAR | {"rope_type": "dynamic"}}, "'dynamic' of qwen2 are not written"),
        ("phi", {"qk_layernorm": True}, "qk_layernorm"),
        ("gemma2", {**ALL_ROTATE, "query_pre_attn_scalar": 5, "tie_word_embeddings": True}, "query_pre_attn_scalar 5"),
        ("gemma", {"tie_word_embeddings": False}, "no place for the tensor lm_head.weight"),
    ],
)
def test_what_llama_cpp_computes_otherwise_is_refused(
    model_type: str, options: dict[str, Any], reason: str, byte_level: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    save_model(tmp_path / "model", byte_level, model_type, options)
    with pytest.raises(UserError, match=reason):
        export_gguf(tmp_path / "model", tmp_path / "model.gguf", "float32")
    assert not (tmp_path / "model.gguf").exists()


def test_a_window_that_llama_cpp_does_not_know_ends_the_context(
    byte_level: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    save_model(tmp_path / "model", byte_level, "mistral", {"sliding_window": 48})
    export_gguf(tmp_path / "model", tmp_path / "model.gguf", "float32")
    source = LlamaCppSource(tmp_path / "model.gguf", context_tokens=100)
    assert source.context_tokens == 48
    source.close()


def test_a_tokenizer_without_a_name_is_refused(tmp_path: Path) -> None:
    tokenizer = Tokenizer(models.WordLevel({"<|end|>": 0, "the": 1}, unk_token="<|end|>"))
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|end|>")
    save_model(tmp_path / "model", wrapped, "llama", {})
    with pytest.raises(UserError, match="the tokenizer is WordLevel; only BPE"):
        export_gguf(tmp_path / "model", tmp_path / "model.gguf", "float32")
    assert list(tmp_path.glob("*gguf*")) == []
