"""Characters between two texts."""

from collections.abc import Callable

import pytest

from whetstone.data.example import Example
from whetstone.evaluate.metrics.edit_similarity import EDIT_SIMILARITY
from whetstone.evaluate.sample import Sample


@pytest.mark.parametrize(
    ("references", "text", "expected"),
    [
        (("sitting",), "kitten", 1 - 3 / 7),
        (("He goes .",), " He  goes .\n", 1),
        (("abcd", "xbcd"), "xbc", 3 / 4),
        (("abcd",), "", 0),
        (("abcd",), "wxyz", 0),
    ],
)
def test_by_hand(
    references: tuple[str, ...],
    text: str,
    expected: float,
    example: Callable[..., Example],
    answer: Callable[..., Sample],
) -> None:
    assert EDIT_SIMILARITY.score(example(*references), answer(text)) == pytest.approx(expected)
