"""What a text is, whoever gave it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whetstone.data.answer import has_extra_text, is_empty, is_too_short, matches, normalise

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
