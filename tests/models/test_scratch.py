"""Random weights of any decoder, of one seed, with a tokenizer of their own."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from whetstone.errors import UserError
from whetstone.experiment import load_experiment
from whetstone.model_section import Model, Scratch
from whetstone.models.load import end_ids, load_template, load_weights
from whetstone.models.scratch import new_model, save_scratch, scratch_config, train_tokenizer

TEXTS = ["The cat sits on the mat.", "She walks to school every day."] * 3
HARD = "The  cat doesn't 'sit' 12345 on\n\n mats. A\u0308 é <|end|> <|endoftext|>"
CPU = torch.device("cpu")
TINY = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 48,
}
CONFIGS: dict[str, dict[str, Any]] = {
    "gpt_neox": TINY,
    "qwen2": {**TINY, "num_key_value_heads": 2},
    "phi": TINY,
    "phi3": TINY,
    "gemma": {**TINY, "num_key_value_heads": 1, "head_dim": 8},
    "mistral": {**TINY, "num_key_value_heads": 2, "sliding_window": None},
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 48},
}


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return train_tokenizer(TEXTS, 300)


def scratch(model_type: str, **config: Any) -> Scratch:
    return Scratch(vocabulary_size=300, config={"model_type": model_type, **config})


@pytest.mark.parametrize("model_type", CONFIGS)
def test_any_decoder_is_built_saved_loaded_and_asked(model_type: str, tmp_path: Path) -> None:
    shape = scratch(model_type, **CONFIGS[model_type])
    save_scratch(tmp_path, shape, TEXTS, seed=4)
    tokenizer = load_template(tmp_path, "auto")[0].tokenizer
    made = new_model(shape, tokenizer, seed=4)
    loaded = load_weights(tmp_path, dtype="float32", device=CPU)
    assert type(loaded).__name__ == type(made).__name__
    assert loaded.config.model_type == model_type
    assert loaded.config.max_position_embeddings == 48
    assert loaded.get_input_embeddings().weight.shape == (len(tokenizer), 32)
    assert all(torch.equal(made.state_dict()[name], tensor) for name, tensor in loaded.state_dict().items())
    trained = train_tokenizer(TEXTS, 300)
    assert tokenizer.get_vocab() == trained.get_vocab()
    assert tokenizer(HARD).input_ids == trained(HARD).input_ids
    assert end_ids(loaded) == [tokenizer.eos_token_id]
    assert loaded.config.pad_token_id == tokenizer.pad_token_id
    ids = torch.tensor([tokenizer("The cat").input_ids])
    assert loaded.generate(ids, max_new_tokens=1, min_new_tokens=1, do_sample=False).shape[1] == ids.shape[1] + 1


def test_a_llama_has_the_weights_that_its_class_draws(tokenizer: PreTrainedTokenizerFast) -> None:
    shape = Scratch(vocabulary_size=300, dim=16, layers=2, heads=2, feed_forward_dim=32, context_tokens=64)
    torch.manual_seed(7)
    expected = LlamaForCausalLM(scratch_config(shape, tokenizer)).state_dict()
    weights = new_model(shape, tokenizer, 7).state_dict()
    assert weights.keys() == expected.keys()
    assert all(torch.equal(weights[name], tensor) for name, tensor in expected.items())
    other = new_model(shape, tokenizer, 8).state_dict()
    assert not all(torch.equal(other[name], tensor) for name, tensor in expected.items())


@pytest.mark.parametrize(
    ("shape", "key", "mend"),
    [
        (scratch("gpt_neo_x"), "model_type", "did you mean 'gpt_neox'"),
        (scratch("GPT2"), "model_type", "did you mean 'gpt2'"),
        (scratch("t5"), "model_type", "no decoder"),
        (scratch("whisper"), "model_type", "has an encoder"),
        (scratch("bert", hidden_size=32), "is_decoder", "both directions"),
        (scratch("gpt_neox", hiden_size=32), "hiden_size", "did you mean 'hidden_size'"),
        (scratch("llama", torch_dtype="bfloat16"), "torch_dtype", "unknown key of llama"),
        (scratch("llama", vocab_size=300), "vocab_size", "comes from the tokenizer"),
        (scratch("llama", eos_token_id=1), "eos_token_id", "comes from the tokenizer"),
        (scratch("llama", hidden_size="large"), "hidden_size", "expected int"),
        (scratch("llama", hidden_size=30, num_attention_heads=4), "hidden_size", "not a multiple"),
        (scratch("llama", **{**TINY, "hidden_act": "zap"}), "hidden_act", "zap"),
    ],
)
def test_a_mistake_in_a_config_names_its_key(
    shape: Scratch, key: str, mend: str, tokenizer: PreTrainedTokenizerFast
) -> None:
    with pytest.raises(UserError, match=rf"^model\.scratch\.config\.{key}: .*{mend}"):
        new_model(shape, tokenizer, 0)


def test_what_cannot_be_computed_is_one_line(tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(UserError, match=r"^model\.scratch\.config: llama cannot be built \(integer division"):
        new_model(scratch("llama", hidden_size=32, num_attention_heads=0), tokenizer, 0)


@pytest.mark.parametrize("name", ["max_position_embeddings", "n_positions"])
def test_the_longest_sequence_is_said_once(name: str, tokenizer: PreTrainedTokenizerFast) -> None:
    assert scratch("gpt2", **{name: 77}).context_tokens == 77
    assert scratch_config(scratch("gpt2", n_embd=32, **{name: 77}), tokenizer).n_positions == 77
    asked = Scratch(context_tokens=99, config={"model_type": "gpt2"})
    assert scratch_config(asked, tokenizer).n_positions == 99
    with pytest.raises(ValueError, match="give one of the two"):
        Scratch(context_tokens=99, config={"model_type": "gpt2", name: 77})


def test_config_and_shape_exclude_each_other() -> None:
    with pytest.raises(ValueError, match="'config' gives the whole shape"):
        Scratch(layers=2, config={"model_type": "gpt2"})
    with pytest.raises(ValueError, match="needs a model_type"):
        Scratch(config={"n_embd": 32})


@pytest.mark.parametrize("shape", [Scratch(dim=64), scratch("gpt2", n_positions=77)])
def test_what_is_recorded_can_be_read_back(shape: Scratch) -> None:
    recorded = Model(scratch=shape).model_dump_json()
    again = Model.model_validate_json(recorded).scratch
    assert again is not None
    assert again.model_dump() == shape.model_dump()
    assert again.context_tokens == shape.context_tokens
    assert ("dim" in recorded) != ("config" in recorded)


def test_the_file_shows_the_line_of_a_shape_beside_a_config(tmp_path: Path) -> None:
    path = tmp_path / "neox.yaml"
    good = (
        "model:\n  scratch:\n    vocabulary_size: 400\n    config: {model_type: gpt_neox, hidden_size: 32, "
        "max_position_embeddings: 160}\ndata:\n  source: {grammar: corrections}\n  prompt: 'Correct: {source}'\n"
        "  max_tokens: 150\ntune: {method: scratch}\n"
    )
    path.write_text(good)
    found = load_experiment(path).model.scratch
    assert found is not None
    assert found.config == {"model_type": "gpt_neox", "hidden_size": 32, "max_position_embeddings": 160}
    path.write_text(good.replace("    config:", "    heads: 2\n    config:"))
    with pytest.raises(UserError, match=r"neox\.yaml:4: model\.scratch\.heads: 'config' gives the whole shape"):
        load_experiment(path)
