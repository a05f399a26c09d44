"""What is seen of answers, of judged ones and of live ones alike."""

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whetstone.data.example import Message
from whetstone.serve.observe.observation import OBSERVED, Bound, extra_words, last_user_turn, observe

BOUNDS = tuple(Bound(name, {"extra_text": 2.0, "long_answer": 8.0}.get(name)) for name in OBSERVED)
ASKED = "Correct: She go to school ."


def seen(text: str, new_tokens: int = 5, finish_reason: str = "stop", asked: str = ASKED) -> set[str]:
    return {name for name, had in observe(asked, text, new_tokens, finish_reason, BOUNDS).items() if had}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("She goes to school .", set()),
        (" \n", {"empty"}),
        ("She go  to school .", {"copy"}),
        ("Correct: She go to school .", {"copy"}),
        ("to school .", set()),
        ("he go to school .", set()),
        ("Here is the corrected sentence: She goes to school .", {"extra_text"}),
        ("Sure: She goes to school now .", set()),
    ],
)
def test_each_kind_of_answer_is_seen(text: str, expected: set[str]) -> None:
    assert seen(text) == expected


def test_lengths_are_seen_beyond_their_bound_only() -> None:
    assert seen("She goes .", new_tokens=8) == set()
    assert seen("She goes .", new_tokens=9) == {"long_answer"}
    assert seen("She goes .", new_tokens=9, finish_reason="length") == {"long_answer", "over_long"}


def test_a_short_question_is_a_copy_when_all_of_it_is_said_again() -> None:
    assert seen("Red or blue?", asked="Red or blue?") == {"copy"}
    assert seen("blue?", asked="Red or blue?") == set()


def test_what_lacks_its_bound_is_never_seen() -> None:
    assert observe("a", "b " * 99, 99, "stop", [Bound("extra_text"), Bound("long_answer")]) == {
        "extra_text": False,
        "long_answer": False,
    }


@given(st.text(), st.text(), st.integers(0, 99), st.sampled_from(["stop", "length", "cancelled"]))
def test_any_text_can_be_looked_at(asked: str, text: str, new_tokens: int, finish_reason: str) -> None:
    found = observe(asked, text, new_tokens, finish_reason, BOUNDS)
    assert tuple(found) == OBSERVED
    assert not (found["empty"] and found["copy"])
    assert found["extra_text"] == (extra_words(asked, text) > 2)


def test_the_last_user_turn_was_asked() -> None:
    turns = (Message("system", "s"), Message("user", "one"), Message("assistant", "a"), Message("user", "two"))
    assert last_user_turn(turns) == "two"
    assert last_user_turn((*turns, Message("assistant", "Sure,"))) == "two"
    assert last_user_turn(()) == ""


def test_neither_torch_nor_scipy_is_imported() -> None:
    code = (
        "import sys, whetstone.serve.observe.observation, whetstone.serve.proof.names\n"
        "print([name for name in ('torch', 'scipy', 'transformers') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
