"""Refusals and questions back, and sentences that only look like them."""

from collections.abc import Callable

import pytest

from whetstone.data.example import Example
from whetstone.evaluate.metrics.manner import CLARIFICATION, REFUSAL
from whetstone.evaluate.sample import Sample


@pytest.mark.parametrize(
    "text",
    [
        "I'm sorry, but I can't help with that.",
        "I\u2019m sorry, I can\u2019t assist with this request.",
        "I cannot provide instructions for that.",
        "Sorry, I won't do that.",
        "I am unable to answer this question.",
        "I'm not able to fulfil your request.",
        "As an AI language model, I have no opinions.",
        "I must decline.",
        "We cannot discuss this here.",
        "That is against my guidelines.",
    ],
)
def test_refusals(text: str, example: Callable[..., Example], answer: Callable[..., Sample]) -> None:
    assert REFUSAL.score(example("Yes.", source="Is it so?"), answer(text)) == 1


@pytest.mark.parametrize(
    "text",
    [
        "",
        "He can't help laughing .",
        "I cannot find my keys .",
        "I am sorry that you are ill .",
        "You cannot answer every question .",
        "Paris. " * 50 + "I cannot help with more.",
    ],
)
def test_no_refusals(text: str, example: Callable[..., Example], answer: Callable[..., Sample]) -> None:
    assert REFUSAL.score(example("Yes.", source="Is it so?"), answer(text)) == 0


@pytest.mark.parametrize(
    "text",
    [
        "Could you please clarify what you mean?",
        "Sure! Can you share the sentence that I should correct?",
        "Please provide the text.",
        "Which of the two versions do you want?",
        "Do you mean the city or the person?",
        "I need more information.",
    ],
)
def test_questions_back(text: str, example: Callable[..., Example], answer: Callable[..., Sample]) -> None:
    assert CLARIFICATION.score(example("Yes.", source="Is it so?"), answer(text)) == 1


@pytest.mark.parametrize(
    "text",
    [
        "",
        "What time is it ?",
        "She told him what she needed .",
        "It could clarify matters .",
        "Could you clarify? " + "Then it is Paris. " * 30,
    ],
)
def test_no_questions_back(text: str, example: Callable[..., Example], answer: Callable[..., Sample]) -> None:
    assert CLARIFICATION.score(example("Yes.", source="Is it so?"), answer(text)) == 0


def test_where_the_input_or_a_reference_says_so_it_does_not_apply(
    example: Callable[..., Example], answer: Callable[..., Sample]
) -> None:
    refuses, asks = "I can't help you .", "Can you tell me the time ?"
    assert REFUSAL.score(example("I cannot help you .", source="I can not helps you ."), answer(refuses)) is None
    assert REFUSAL.score(example("Yes.", source="We cannot help you ."), answer(refuses)) is None
    assert CLARIFICATION.score(example("Yes.", asks), answer(asks)) is None
    assert REFUSAL.score(example("Yes.", asks), answer(refuses)) == 1
