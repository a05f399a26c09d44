"""Answers that do not get on."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whetstone.evaluate.metrics.repetition import ends_in_loop

SENTENCE = "The cat sat on the mat ."


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (SENTENCE, False),
        (f"{SENTENCE}\n" * 2, False),
        (f"{SENTENCE}\n" * 3, True),
        (f"Well : {SENTENCE} {SENTENCE}   {SENTENCE}", True),
        (f"{SENTENCE} " * 3 + "The cat s", True),
        (f"{SENTENCE} " * 3 + "But then it left the house .", False),
        ("a" * 39, False),
        ("a" * 40, True),
        ("So it goes " + "on and " * 6, True),
        ("no " * 5, False),
        ("\u732b\u5728\u5ea7\u4e0a\u3002" * 8, True),
        ("\n" * 500, False),
        ("", False),
    ],
)
def test_loops(text: str, expected: bool) -> None:
    assert ends_in_loop(text) == expected


@given(
    before=st.text("ab", max_size=20),
    piece=st.text("ab ", min_size=1, max_size=20),
    times=st.integers(1, 8),
    rest=st.integers(0, 20),
)
def test_it_finds_what_trying_every_period_finds(before: str, piece: str, times: int, rest: int) -> None:
    text = before + piece * times + piece[:rest]
    text = " ".join(text.split())
    assert ends_in_loop(text) == (_by_trial(text) or _by_trial(f"{text} "))


def _by_trial(text: str) -> bool:
    for period in range(1, len(text) // 3 + 1):
        end = text[-max(3 * period, 40) :]
        if len(end) >= max(3 * period, 40) and all(
            end[place] == end[place - period] for place in range(period, len(end))
        ):
            return True
    return False
