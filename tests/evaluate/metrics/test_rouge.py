"""ROUGE-L against its paper and against the table of the longest common subsequence."""

from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whetstone.data.example import Example
from whetstone.evaluate.metrics.rouge import ROUGE_L
from whetstone.evaluate.sample import Sample

WORDS = st.lists(st.sampled_from("abcde"), min_size=1, max_size=12)


@pytest.mark.parametrize(
    ("references", "text", "expected"),
    [
        # The example of Lin 2004, section 3.1.
        (("police killed the gunman",), "police kill the gunman", 3 / 4),
        (("police killed the gunman",), "the gunman kill police", 2 / 4),
        (("police killed the gunman",), "Police killed\nthe gunman!", 1),
        (("a b c d",), "a b", 2 * 2 / 6),
        (("x y z", "a b c"), "a b d", 2 / 3),
        (("na\u00efve",), "naive", 0),
        (("a b",), "", 0),
        ((":-)",), ":-)", None),
    ],
)
def test_by_hand(
    references: tuple[str, ...],
    text: str,
    expected: float | None,
    example: Callable[..., Example],
    answer: Callable[..., Sample],
) -> None:
    found = ROUGE_L.score(example(*references), answer(text))
    assert found is None if expected is None else found == pytest.approx(expected)


@given(said=WORDS, wanted=WORDS)
def test_it_is_f1_of_the_longest_common_subsequence(
    example: Callable[..., Example], answer: Callable[..., Sample], said: list[str], wanted: list[str]
) -> None:
    common = _longest_common(said, wanted)
    precision, recall = common / len(said), common / len(wanted)
    expected = 2 * precision * recall / (precision + recall) if common else 0
    assert ROUGE_L.score(example(" ".join(wanted)), answer(" ".join(said))) == pytest.approx(expected)


def _longest_common(left: Sequence[str], right: Sequence[str]) -> int:
    row = [0] * (len(right) + 1)
    for one in left:
        above = row
        row = [0]
        for number, other in enumerate(right):
            row.append(above[number] + 1 if one == other else max(above[number + 1], row[number]))
    return row[-1]
