"""Every frame makes right, annotated sentences from every theme."""

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from whetstone.data.grammar.frames import FRAMES, Frame
from whetstone.data.grammar.sentence import render
from whetstone.data.grammar.vocabulary import THEMES, Theme


def text(frame: Frame, theme: Theme, seed: int) -> str:
    return render([token.text for token in frame.build(theme, Random(seed))])


def test_there_are_enough_frames_of_every_difficulty() -> None:
    assert len({frame.name for frame in FRAMES}) == len(FRAMES) >= 24
    assert {frame.difficulty for frame in FRAMES} == {1, 2, 3}
    assert all(sum(frame.difficulty == level for frame in FRAMES) >= 5 for level in (1, 2, 3))


@pytest.mark.parametrize("frame", FRAMES, ids=lambda frame: frame.name)
@given(seed=st.integers(0, 10**9))
@settings(max_examples=10)
def test_sentences_are_short_and_well_written(frame: Frame, seed: int) -> None:
    for theme in THEMES:
        sentence = text(frame, theme, seed)
        assert 5 <= len(sentence.split()) <= 16, sentence
        assert sentence[0].isupper()
        assert sentence.endswith((".", "?"))
        assert "  " not in sentence
        assert " ." not in sentence


@pytest.mark.parametrize("frame", FRAMES, ids=lambda frame: frame.name)
@given(seed=st.integers(0, 10**9))
@settings(max_examples=10)
def test_every_sentence_holds_a_noun_of_its_theme_alone(frame: Frame, seed: int) -> None:
    for theme in THEMES:
        words = {token.text.removesuffix("'s") for token in frame.build(theme, Random(seed))}
        owners = {
            other.name
            for other in THEMES
            for noun in (*other.people, *other.things, *other.masses)
            if noun.singular in words or noun.plural in words
        }
        assert owners == {theme.name}


@pytest.mark.parametrize("frame", FRAMES, ids=lambda frame: frame.name)
@given(seed=st.integers(0, 10**9))
@settings(max_examples=10)
def test_annotations_change_something_and_groups_can_be_mended(frame: Frame, seed: int) -> None:
    for theme in THEMES:
        sentence = frame.build(theme, Random(seed))
        for token in sentence:
            assert all(slip.text != token.text and token.text not in slip.repairs for slip in token.slips)
            assert token.twin is None or token.group > 0
            assert not (token.shift and token.shift == token.floats)


@pytest.mark.parametrize(
    ("words", "capital", "line"),
    [
        (["the", "cup", ",", "", "please", "."], True, "The cup, please."),
        (["where", "is", "it", "?"], False, "where is it?"),
    ],
)
def test_render(words: list[str], capital: bool, line: str) -> None:
    assert render(words, capital) == line
