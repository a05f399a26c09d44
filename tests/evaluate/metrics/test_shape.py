"""Answers that are none, half one, or wrapped."""

from collections.abc import Callable

import pytest

from whetstone.data.example import Example
from whetstone.evaluate.metrics.shape import EMPTY, EXTRA_TEXT, TOO_SHORT, TRUNCATED
from whetstone.evaluate.sample import Sample


@pytest.mark.parametrize(
    ("text", "extra", "empty", "short"),
    [
        ("He went home .", 0, 0, 0),
        ("Sure : He went  home .", 1, 0, 0),
        ("He goes home . He went home .", 1, 0, 0),
        ("He go home .", 0, 0, 0),
        ("He goes", 0, 0, 0),
        ("He", 0, 0, 1),
        (" \n", 0, 1, 1),
    ],
)
def test_shape(
    text: str,
    extra: float,
    empty: float,
    short: float,
    example: Callable[..., Example],
    answer: Callable[..., Sample],
) -> None:
    asked = example("He goes home .", "He went home .")
    assert [one.score(asked, answer(text)) for one in (EXTRA_TEXT, EMPTY, TOO_SHORT)] == [extra, empty, short]


def test_truncated_is_the_finish_reason(example: Callable[..., Example], answer: Callable[..., Sample]) -> None:
    assert TRUNCATED.score(example("He"), answer("He goes", finish_reason="length")) == 1
    assert TRUNCATED.score(example("He"), answer("He goes")) == 0
