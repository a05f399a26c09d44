"""Inputs that needed a change, and inputs that did not."""

from collections.abc import Callable

import pytest

from whetstone.data.example import Example
from whetstone.evaluate.metrics.edits import COPY_RATE, OVER_EDIT, UNDER_EDIT
from whetstone.evaluate.sample import Sample

WRONG, RIGHT = "He go home .", "He goes home ."


@pytest.mark.parametrize(
    ("source", "text", "over", "under", "copied"),
    [
        (WRONG, "He goes home .", None, 0, 0),
        (WRONG, "He  go home .", None, 1, 1),
        (WRONG, "", None, 0, 0),
        (RIGHT, "He goes home .\n", 0, None, 1),
        (RIGHT, "He went home .", 1, None, 0),
        (RIGHT, "", 1, None, 0),
    ],
)
def test_edits(
    source: str,
    text: str,
    over: float | None,
    under: float | None,
    copied: float,
    example: Callable[..., Example],
    answer: Callable[..., Sample],
) -> None:
    asked, said = example("He goes home .", "He went  home .", source=source), answer(text)
    assert [one.score(asked, said) for one in (OVER_EDIT, UNDER_EDIT, COPY_RATE)] == [over, under, copied]
