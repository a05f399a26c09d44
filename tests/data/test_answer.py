"""What a text is, whoever gave it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whetstone.data.answer import count_words, has_extra_text, is_empty, is_too_short, matches, normalise

REFERENCES = ("He goes home .", "He went home .")


@pytest.mark.parametrize(
    ("text", "right", "extra", "short"),
    [
        ("He goes home .", True, False, False),
        ("  He  went\nhome . ", True, False, False),
        ("he goes home .", False, False, False),
        ("Sure: He goes  home .", False, True, False),
        ("He goes", False, False, False),
        ("He", False, False, True),
        ("", False, False, True),
    ],
)
def test_against_references(text: str, right: bool, extra: bool, short: bool) -> None:
    assert matches(text, REFERENCES) == right
    assert has_extra_text(text, REFERENCES) == extra
    assert is_too_short(text, REFERENCES) == short


@given(st.text())
def test_white_space_is_all_that_is_forgiven(text: str) -> None:
    assert matches(f" {normalise(text)}\n", (text,))
    assert is_empty(text) == (normalise(text) == "")
    assert not matches(f"{text}x", (text,))
    assert not has_extra_text(text, (text,))


WORDS = st.lists(
    st.sampled_from(["a", "b", "a b", " ", "\n", "\u00a0", "\u2003", "\x1c", "\u200b", ""]), max_size=8
).map("".join)


@given(text=WORDS, references=st.lists(WORDS, min_size=1, max_size=4))
def test_it_is_what_reading_everything_each_time_would_say(text: str, references: list[str]) -> None:
    answer, wanted = " ".join(text.split()), [" ".join(reference.split()) for reference in references]
    assert matches(text, references) == (answer in wanted)
    assert has_extra_text(text, references) == (answer not in wanted and any(one in answer for one in wanted))
    assert is_too_short(text, references) == (2 * len(text.split()) < min(len(one.split()) for one in wanted))
    assert count_words(text) == len(text.split())
    assert normalise(text) == answer
    assert is_empty(text) == (answer == "")
