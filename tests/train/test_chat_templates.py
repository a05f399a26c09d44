"""Published chat templates: rendered as published, and encoded in parts as they are encoded whole."""

from collections.abc import Callable

import pytest
from transformers import PreTrainedTokenizerBase

from whetstone.data.example import Message
from whetstone.data.template import Template
from whetstone.errors import UserError

Load = Callable[[str], PreTrainedTokenizerBase]

TURNS = (Message("user", "Hello"), Message("assistant", "Hi there"), Message("user", "Who are you"))
BRIEF = Message("system", "Be brief")
ANSWER = "The cat sits on the mat. Zażółć 東京"

PUBLISHED = {
    "qwen2": "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\nHello<|im_end|>\n"
    "<|im_start|>assistant\nHi there<|im_end|>\n<|im_start|>user\nWho are you<|im_end|>\n<|im_start|>assistant\n",
    "smollm2": "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
    "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\nHi there<|im_end|>\n<|im_start|>user\nWho are you"
    "<|im_end|>\n<|im_start|>assistant\n",
    "llama3": "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nHello<|eot_id|><|start_header_id|>assistant"
    "<|end_header_id|>\n\nHi there<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nWho are you<|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>\n\n",
    "phi3": "<|user|>\nHello<|end|>\n<|assistant|>\nHi there<|end|>\n<|user|>\nWho are you<|end|>\n<|assistant|>\n",
    "gemma": "<bos><start_of_turn>user\nHello<end_of_turn>\n<start_of_turn>model\nHi there<end_of_turn>\n"
    "<start_of_turn>user\nWho are you<end_of_turn>\n<start_of_turn>model\n",
    "mistral-v0.3": "<s>[INST] Hello[/INST] Hi there</s>[INST] Who are you[/INST]",
    "llama2": "<s>[INST] Hello [/INST] Hi there </s><s>[INST] Who are you [/INST]",
    "zephyr": "<|user|>\nHello</s>\n<|assistant|>\nHi there</s>\n<|user|>\nWho are you</s>\n<|assistant|>\n",
    "tinyllama": "<|user|>\nHello</s>\n<|assistant|>\nHi there</s>\n<|user|>\nWho are you</s>\n<|assistant|>\n",
    "alpaca": "<s>### Instruction:\nHello\n\n### Response:\nHi there</s>\n\n### Instruction:\nWho are you\n\n"
    "### Response:\n",
    "plain": "<|endoftext|>Hello\nHi there<|endoftext|>\nWho are you\n",
    "plain-without-bos": "Hello\nHi there</s>\nWho are you\n",
}
ENDS = {
    "qwen2": "<|im_end|>",
    "smollm2": "<|im_end|>",
    "llama3": "<|eot_id|>",
    "phi3": "<|end|>",
    "gemma": "<end_of_turn>",
    "plain": "<|endoftext|>",
}
SPACED = {"mistral-v0.3": " The cat</s>", "llama2": " The cat </s>"}


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_prompt_reads_as_published(name: str, load_tokenizer: Load) -> None:
    tokenizer = load_tokenizer(name)
    template = Template(tokenizer)
    turns = [turn.as_dict() for turn in TURNS]
    assert tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True) == PUBLISHED[name]
    assert template.prompt_ids(TURNS) == tokenizer(PUBLISHED[name], add_special_tokens=False).input_ids
    assert tokenizer.convert_ids_to_tokens(template.end_of_turn_id) == ENDS.get(name, "</s>")


@pytest.mark.parametrize("name", PUBLISHED)
@pytest.mark.parametrize("asked", [TURNS[:1], TURNS, (BRIEF, TURNS[0])])
def test_prompt_and_answer_are_encoded_as_the_whole_is(
    name: str, asked: tuple[Message, ...], load_tokenizer: Load
) -> None:
    tokenizer = load_tokenizer(name)
    template = Template(tokenizer)
    if asked[0] == BRIEF and name == "gemma":
        with pytest.raises(UserError, match="no system turn"):
            template.prompt_ids(asked)
        return
    turns = [turn.as_dict() for turn in (*asked, Message("assistant", ANSWER))]
    whole = tokenizer.apply_chat_template(turns, tokenize=False)
    if asked[0] == BRIEF and name == "mistral-v0.3":
        # It puts the system turn into the last user turn, if that is the last turn of all.
        whole = whole.replace("[INST] ", f"[INST] {BRIEF.content}\n\n", 1)
    ids = template.prompt_ids(asked) + template.answer_ids(ANSWER)
    assert tokenizer(whole, add_special_tokens=False).input_ids[: len(ids)] == ids


@pytest.mark.parametrize("name", SPACED)
def test_white_space_before_an_answer_is_learned(name: str, load_tokenizer: Load) -> None:
    tokenizer = load_tokenizer(name)
    template = Template(tokenizer)
    prompt, answer = template.prompt_ids(TURNS[:1]), template.answer_ids("The cat")
    assert tokenizer.decode(prompt + answer).endswith("[/INST]" + SPACED[name])
    assert template.decode(answer) == "The cat"
