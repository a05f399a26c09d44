"""Planted errors: what each kind does to a sentence, and every correction that is right."""

from random import Random

import pytest

from whetstone.data.grammar.errors import corrupt, misspellings
from whetstone.data.grammar.frames import FRAMES
from whetstone.data.grammar.phrases import (
    HABITS,
    NAMED,
    PAST_TIMES,
    QUESTION,
    STOP,
    SUBJECT,
    auxiliary,
    location,
    noun_phrase,
    past,
    present,
    word,
)
from whetstone.data.grammar.sentence import ErrorKind, Sentence, Slip, Token, render
from whetstone.data.grammar.vocabulary import THEMES

NOUN = {noun.singular: noun for theme in THEMES for noun in (*theme.people, *theme.things, *theme.masses)}
VERB = {verb.base: verb for theme in THEMES for verb, _ in theme.deeds}
PLACE = {place.noun: place for theme in THEMES for place in theme.places}

ESSAY: Sentence = (
    *noun_phrase(NOUN["student"], "the", False, "", SUBJECT, "verb"),
    present(VERB["write"], False, True),
    *noun_phrase(NOUN["essay"], "a", False),
    *HABITS[0],
    *STOP,
)
SHOP: Sentence = (
    *NAMED[0].tokens,
    past(VERB["buy"], False),
    *noun_phrase(NOUN["bread"], "", False),
    *location(PLACE["shop"]),
    *PAST_TIMES[0],
    *STOP,
)
CUPS: Sentence = (
    *word("there"),
    auxiliary("be", True, False),
    *word("too", "adverb"),
    *noun_phrase(NOUN["cup"], "many", True),
    *location(PLACE["kitchen"]),
    *STOP,
)
CARS: Sentence = (
    Token("did", "auxiliary", (Slip("missing_word", ""),), SUBJECT),
    *noun_phrase(NOUN["tourist"], "these", True, "", SUBJECT),
    Token("rent", "verb", (Slip("extra_word", "to rent"),)),
    *noun_phrase(NOUN["car"], "", True, "expensive"),
    *PAST_TIMES[4],
    *QUESTION,
)
ESSAY_TEXT, SHOP_TEXT = "The student writes an essay every day.", "Anna bought bread in the shop yesterday."
CUPS_TEXT, CARS_TEXT = "There are too many cups in the kitchen.", "Did these tourists rent expensive cars two days ago?"


def corruptions(sentence: Sentence, kind: ErrorKind) -> dict[str, tuple[str, ...]]:
    """All that one error of a kind can do to a sentence, with the corrections."""
    learners = (corrupt(sentence, Random(seed), 1) for seed in range(1200))
    return {one.source: one.references for one in learners if one is not None and one.errors == (kind,)}


CASES: list[tuple[ErrorKind, Sentence, str, dict[str, tuple[str, ...]]]] = [
    ("agreement", ESSAY, ESSAY_TEXT, {
        "The student write an essay every day.": ("The students write an essay every day.",),
    }),
    ("article", ESSAY, ESSAY_TEXT, {
        "Student writes an essay every day.": ("A student writes an essay every day.",),
        "The student writes a essay every day.": (),
        "The student writes essay every day.": (
            "The student writes the essay every day.", "The student writes essays every day.",
        ),
    }),
    ("plural", ESSAY, ESSAY_TEXT, {
        "The students writes an essay every day.": ("The students write an essay every day.",),
        "The student writes an essays every day.": ("The student writes essays every day.",),
        "The student writes an essay every days.": (),
    }),
    ("confused_word", ESSAY, ESSAY_TEXT, {"The student writes an essay everyday.": ()}),
    ("article", SHOP, SHOP_TEXT, {
        "The Anna bought bread in the shop yesterday.": (),
        "Anna bought a bread in the shop yesterday.": ("Anna bought some bread in the shop yesterday.",),
        "Anna bought bread in shop yesterday.": ("Anna bought bread in a shop yesterday.",),
    }),
    ("preposition", SHOP, SHOP_TEXT, {
        "Anna bought bread on the shop yesterday.": ("Anna bought bread at the shop yesterday.",),
    }),
    ("missing_word", SHOP, SHOP_TEXT, {
        "Anna bought bread the shop yesterday.": ("Anna bought bread at the shop yesterday.",),
    }),
    ("tense", SHOP, SHOP_TEXT, {
        "Anna buys bread in the shop yesterday.": (),
        "Anna has bought bread in the shop yesterday.": (),
    }),
    ("verb_form", SHOP, SHOP_TEXT, {"Anna buyed bread in the shop yesterday.": ()}),
    ("plural", SHOP, SHOP_TEXT, {"Anna bought breads in the shop yesterday.": ()}),
    ("extra_word", SHOP, SHOP_TEXT, {
        "Anna bought bread in in the shop yesterday.": (),
        "Anna bought bread in the the shop yesterday.": (),
    }),
    ("punctuation", SHOP, SHOP_TEXT, {
        "anna bought bread in the shop yesterday.": (),
        "Anna bought bread in the shop yesterday": (),
    }),
    ("agreement", CUPS, CUPS_TEXT, {"There is too many cups in the kitchen.": ()}),
    ("plural", CUPS, CUPS_TEXT, {"There are too many cup in the kitchen.": ()}),
    ("confused_word", CUPS, CUPS_TEXT, {
        "Their are too many cups in the kitchen.": (),
        "There are to many cups in the kitchen.": (),
        "There are too much cups in the kitchen.": (),
    }),
    ("word_order", CARS, CARS_TEXT, {
        "Did these tourists rent cars expensive two days ago?": (),
        "Did these tourists rent expensive cars ago two days?": (),
    }),
    ("agreement", CARS, CARS_TEXT, {
        "Did this tourists rent expensive cars two days ago?": ("Did this tourist rent expensive cars two days ago?",),
    }),
    ("extra_word", CARS, CARS_TEXT, {
        "Did did these tourists rent expensive cars two days ago?": (),
        "Did these tourists to rent expensive cars two days ago?": (),
    }),
    ("punctuation", CARS, CARS_TEXT, {
        "did these tourists rent expensive cars two days ago?": (),
        "Did these tourists rent expensive cars two days ago": (),
        "Did these tourists rent expensive cars two days ago.": (),
    }),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "sentence", "clean", "expected"), CASES)
def test_hand_checked_corrections(
    kind: ErrorKind, sentence: Sentence, clean: str, expected: dict[str, tuple[str, ...]]
) -> None:
    assert render([token.text for token in sentence]) == clean
    assert corruptions(sentence, kind) == {source: (clean, *others) for source, others in expected.items()}


def test_spelling_errors_of_a_sentence() -> None:
    found = corruptions(SHOP, "spelling")
    assert "Anna bought bread in the shop yesturday." in found
    assert "Anna buoght bread in the shop yesterday." in found
    assert set(found.values()) == {(SHOP_TEXT,)}


def built(name: str, theme: str, start: str) -> Sentence:
    """A sentence of a frame that starts as wanted."""
    (frame,) = (frame for frame in FRAMES if frame.name == name)
    (vocabulary,) = (one for one in THEMES if one.name == theme)
    sentences = (frame.build(vocabulary, Random(seed)) for seed in range(50_000))
    return next(one for one in sentences if render([token.text for token in one]).startswith(start))


def test_without_a_time_adverb_either_clause_may_change_its_tense() -> None:
    sentence = built("when_clause", "music", "When the bell rang, Anna sang")
    clean = render([token.text for token in sentence])
    both = (clean, clean.replace("rang", "rings").replace("sang", "sings"))
    assert corruptions(sentence, "tense") == {
        clean.replace("rang", "rings"): both,
        clean.replace("sang", "sings"): both,
    }


def test_a_verb_without_a_past_form_of_its_own_shows_no_tense_error() -> None:
    # "When the bell rings, Anna and Tom read the book" is right.
    sentence = built("when_clause", "school", "When the bell rang, Anna and Tom read")
    assert not corruptions(sentence, "tense")


def test_an_unreal_condition_is_right_too() -> None:
    sentence = built("if_clause", "home", "If it rains tomorrow, Tom will paint")
    clean = render([token.text for token in sentence])
    assert corruptions(sentence, "tense") == {
        clean.replace("rains", "will rain"): (clean,),
        clean.replace("rains", "rained"): (clean, clean.replace("rains", "rained").replace("will", "would")),
    }


def test_a_missing_apostrophe_may_belong_to_one_owner_or_several() -> None:
    sentence = built("possessive", "health", "The nurse's mask is")
    clean = render([token.text for token in sentence])
    found = corruptions(sentence, "punctuation")
    assert found[clean.replace("nurse's", "nurses")] == (clean, clean.replace("nurse's", "nurses'"))


def test_have_is_left_out_only_where_the_rest_is_wrong() -> None:
    # "She already sold the bread" is right; "she already chose" too, but "she already chosen" is not.
    sold = built("present_perfect", "market", "She has already sold")
    assert not corruptions(sold, "missing_word")
    chosen = built("present_perfect", "market", "She has already chosen")
    clean = render([token.text for token in chosen])
    assert corruptions(chosen, "missing_word") == {clean.replace("has ", ""): (clean, clean.replace("has ", "had "))}


def test_an_adverb_may_be_mended_in_two_ways() -> None:
    sentence = built("present_perfect", "garden", "Anna has already planted")
    clean = render([token.text for token in sentence])
    moved = clean.replace("already planted", "planted already")
    at_the_end = clean.replace("already ", "").replace(".", " already.")
    assert corruptions(sentence, "word_order")[moved] == (clean, at_the_end)


def test_an_indirect_question_keeps_the_order_of_a_statement() -> None:
    sentence = built("indirect_question", "office", "Nobody knows where the printer is.")
    assert corruptions(sentence, "word_order") == {
        "Nobody knows where is the printer.": ("Nobody knows where the printer is.",)
    }


def test_errors_that_depend_on_each_other_are_not_planted_together() -> None:
    for seed in range(300):
        # "The students write" would undo two errors with each other.
        learner = corrupt(ESSAY, Random(seed), 2)
        assert learner is None or not learner.source.startswith("The students write ")


def test_a_sentence_that_admits_too_few_errors_gives_none() -> None:
    assert corrupt(word("please"), Random(0), 2) is None


@pytest.mark.parametrize("text", ["book", "two days ago", "Anna", "cup"])
def test_short_words_names_and_phrases_are_not_misspelled(text: str) -> None:
    assert misspellings(text) == ()


def test_misspellings_drop_double_or_swap_a_letter() -> None:
    assert set(misspellings("essay")) == {"esay", "essy", "esasy"}
    assert set(misspellings("student")) >= {"stdent", "studnet", "studennt"}
    assert "signer" not in misspellings("singer")
