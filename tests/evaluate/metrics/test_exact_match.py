"""Right to the letter, and right leniently."""

import unicodedata
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whetstone.data.example import Example
from whetstone.evaluate.metrics.exact_match import EXACT_MATCH, EXACT_MATCH_LENIENT
from whetstone.evaluate.sample import Sample


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("He goes home .", 1),
        ("  He  went home .\n", 1),
        ("he goes home .", 0),
        ("He go home .", 0),
        ("Sure : He went home .", 0),
        (" \n", 0),
    ],
)
def test_exact_match(
    text: str, expected: float, example: Callable[..., Example], answer: Callable[..., Sample]
) -> None:
    assert EXACT_MATCH.score(example("He goes home .", "He went home ."), answer(text)) == expected


@pytest.mark.parametrize(
    ("reference", "text", "expected"),
    [
        ("He goes home .", "he goes home", 1),
        ("Paris", "**PARIS**.", 1),
        ("don't", "don\u2019t", 1),
        ("STRASSE", "stra\u00dfe", 1),
        ("Paris", "the Paris", 0),
        ("1.5", "15", 0),
        ("1.5", "1.5.", 1),
        ("42", "(42)", 1),
        ("5", "-5", 0),
        ("10:30", "1030", 0),
        ("C#", "C", 0),
        ("5%", "5", 0),
        ("and/or", "andor", 0),
        ("?", "!", 0),
        ("...", "", 0),
    ],
)
def test_exact_match_leniently(
    reference: str, text: str, expected: float, example: Callable[..., Example], answer: Callable[..., Sample]
) -> None:
    assert EXACT_MATCH_LENIENT.score(example("something else", reference), answer(text)) == expected


@given(text=st.text(), reference=st.text())
def test_lenience_forgives_more_never_less(
    example: Callable[..., Example], answer: Callable[..., Sample], text: str, reference: str
) -> None:
    asked = example(reference)
    strict, lenient = (one.score(asked, answer(text)) for one in (EXACT_MATCH, EXACT_MATCH_LENIENT))
    assert lenient >= strict  # type: ignore[operator]
    assert EXACT_MATCH_LENIENT.score(asked, answer(f" {reference}\n")) == 1


@given(text=st.text(st.characters(categories=("L", "Zs"))))
def test_case_and_added_punctuation_are_forgiven(
    example: Callable[..., Example], answer: Callable[..., Sample], text: str
) -> None:
    assert EXACT_MATCH_LENIENT.score(example(text), answer(text.casefold())) == 1
    if text.strip() and not any(unicodedata.category(one).startswith("P") for one in text):
        assert EXACT_MATCH_LENIENT.score(example(text), answer(f"\u00ab{text}!\u00bb")) == 1
