"""The closed world: themes that share no noun and no verb, and the inflections of their words."""

from itertools import combinations

import pytest

from whetstone.data.grammar.vocabulary import ADJECTIVES, THEMES, Theme, article, past_of, plural_of


def nouns(theme: Theme) -> set[str]:
    everything = (*theme.people, *theme.things, *theme.masses)
    return {form for noun in everything for form in (noun.singular, noun.plural) if form} | {
        place.noun for place in theme.places
    }


def verbs(theme: Theme) -> set[str]:
    return {form for verb, _ in theme.deeds for form in (verb.base, verb.third, verb.past, verb.participle, verb.ing)}


def test_no_noun_and_no_verb_belongs_to_two_themes() -> None:
    for one, other in combinations(THEMES, 2):
        assert not nouns(one) & nouns(other), (one.name, other.name)
        assert not verbs(one) & verbs(other), (one.name, other.name)


@pytest.mark.parametrize("theme", THEMES, ids=lambda theme: theme.name)
def test_every_theme_is_complete(theme: Theme) -> None:
    assert 7 <= len(theme.people) + len(theme.things) <= 9
    assert len(theme.masses) >= 2
    assert 5 <= len({verb for verb, _ in theme.deeds}) <= 7
    assert theme.mass_deeds
    assert {adjective for _, adjective in theme.described} <= set(ADJECTIVES)
    used = {noun for _, noun in theme.deeds}
    assert used == {*theme.things, *theme.masses}
    for place in theme.places:
        assert not {place.preposition, *place.also} & set(place.wrong)


@pytest.mark.parametrize(
    ("word", "plural"),
    [("book", "books"), ("dish", "dishes"), ("trophy", "trophies"), ("day", "days"), ("bus", "buses")],
)
def test_regular_plurals(word: str, plural: str) -> None:
    assert plural_of(word) == plural


@pytest.mark.parametrize(
    ("verb", "past"), [("cook", "cooked"), ("bake", "baked"), ("fry", "fried"), ("play", "played")]
)
def test_regular_pasts(verb: str, past: str) -> None:
    assert past_of(verb) == past


def test_verbs_carry_all_their_forms() -> None:
    forms = {verb.base: verb for theme in THEMES for verb, _ in theme.deeds}
    write, cut, carry, wrap = (forms[base] for base in ("write", "cut", "carry", "wrap"))
    assert (write.third, write.past, write.participle, write.ing) == ("writes", "wrote", "written", "writing")
    assert (cut.third, cut.past, cut.participle, cut.ing) == ("cuts", "cut", "cut", "cutting")
    assert (carry.third, carry.past, carry.participle, carry.ing) == ("carries", "carried", "carried", "carrying")
    assert (wrap.third, wrap.past, wrap.participle, wrap.ing) == ("wraps", "wrapped", "wrapped", "wrapping")


@pytest.mark.parametrize(("word", "expected"), [("essay", "an"), ("useful", "a"), ("book", "a"), ("interesting", "an")])
def test_indefinite_article_follows_the_sound(word: str, expected: str) -> None:
    assert article(word) == expected
