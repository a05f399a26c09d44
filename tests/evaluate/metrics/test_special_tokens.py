"""Marks of templates in answers."""

from collections.abc import Callable

import pytest

from whetstone.data.example import Example
from whetstone.evaluate.metrics.special_tokens import SPECIAL_TOKEN_LEAK
from whetstone.evaluate.sample import Sample


@pytest.mark.parametrize(
    "text",
    [
        "He goes .<|im_end|>",
        "<|start_header_id|>assistant",
        "<\uff5cend\u2581of\u2581sentence\uff5c>",
        "He goes .</s>",
        "[INST] again [/INST]",
        "<<SYS>>",
        "<end_of_turn>\n<start_of_turn>user",
        "He goes .\n\n### Instruction:\nMore",
        "### Response",
        "[PAD][PAD]",
        "<pad>",
    ],
)
def test_leaks(text: str, example: Callable[..., Example], answer: Callable[..., Sample]) -> None:
    assert SPECIAL_TOKEN_LEAK.score(example("He goes ."), answer(text)) == 1


@pytest.mark.parametrize(
    "text",
    [
        "",
        "He goes .",
        "a <| b and c |> d",
        "x < s > y",
        "Follow ### Instruction in the text",
        "# Introduction",
        "[1] [sic] <b>bold</b>",
    ],
)
def test_no_leaks(text: str, example: Callable[..., Example], answer: Callable[..., Sample]) -> None:
    assert SPECIAL_TOKEN_LEAK.score(example("He goes ."), answer(text)) == 0


def test_what_was_given_is_no_leak(example: Callable[..., Example], answer: Callable[..., Sample]) -> None:
    said = answer("The token </s> ends a text .")
    assert SPECIAL_TOKEN_LEAK.score(example("What does </s> do ?"), said) == 0
    assert SPECIAL_TOKEN_LEAK.score(example("It ends it .", source="What does </s> do ?"), said) == 0
    assert SPECIAL_TOKEN_LEAK.score(example(source="</s>"), answer("</s> and <s>")) == 1
