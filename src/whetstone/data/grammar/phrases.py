"""The building blocks of the frames: annotated noun phrases, verb forms, places and times.

Everything here is a cached function of the vocabulary, so that building a sentence is little more than choosing.
"""

from dataclasses import dataclass
from functools import cache
from random import Random
from typing import Literal

from whetstone.data.grammar.sentence import Sentence, Slip, Token
from whetstone.data.grammar.vocabulary import NAMES, Noun, Place, Theme, Verb, article, past_of, plural_of

__all__ = [
    "COMMA",
    "FUTURE_TIMES",
    "HABITS",
    "NOT",
    "OBJECT",
    "OCCASIONS",
    "PAST_TIMES",
    "PRESENT_TIMES",
    "QUESTION",
    "SECOND",
    "STOP",
    "SUBJECT",
    "THIRD",
    "TO",
    "Subject",
    "after",
    "anyone",
    "auxiliary",
    "be",
    "gerund",
    "have",
    "location",
    "named",
    "noun_phrase",
    "participle",
    "past",
    "person",
    "present",
    "something",
    "word",
]

# Numbers of agreement groups. The subject, the auxiliaries and the verb they govern form one, so that no second
# error meets the first halfway: "has wrote" without "has" would be right.
SUBJECT, OBJECT, SECOND, THIRD, PLACE = 1, 2, 3, 4, 5

# What depends on the number of a noun phrase: nothing ("open": it may change freely), the verb ("verb"; "definite"
# where "a" would sound odd for "the" besides), or it cannot change and stays indefinite ("fixed", as in "there is").
Concord = Literal["open", "verb", "definite", "fixed"]

DEMONSTRATIVES = {"this": "these", "these": "this", "that": "those", "those": "that"}
COUNTED = ("two", "three", "four", "many", "several", "few", "a lot of")
QUANTIFIERS = {"many": "much", "much": "many", "little": "few", "a little": "a few"}


def word(text: str, role: Literal["adverb", "adjective", "function", "mark"] = "function") -> Sentence:
    """A token that nothing of its own can go wrong with."""
    return (Token(text, role),)


STOP = word(".", "mark")
QUESTION = word("?", "mark")
COMMA = word(",", "mark")
NOT: Sentence = (Token("not", "function", shift=-1),)
TO: Sentence = (Token("to", "function", (Slip("missing_word", ""),), SUBJECT),)


@cache
def noun_phrase(
    noun: Noun, determiner: str, plural: bool, adjective: str = "", group: int = OBJECT, concord: Concord = "open"
) -> Sentence:
    """A noun with its determiner ("" for none) and adjective ("" for none).

    Args:
        noun: The noun; the number is ignored for a mass noun.
        determiner: "a" stands for "an" as well.
        plural: Its number.
        adjective: What describes it.
        group: The agreement group of its tokens.
        concord: What depends on its number.

    Returns:
        Its tokens.
    """
    first = adjective or noun.singular
    described = _adjective(adjective, first, determiner, noun) if adjective else ()
    if not noun.plural:
        slips = [Slip("plural", plural_of(noun.singular))]
        if not determiner and not adjective:
            slips.append(Slip("article", f"{article(first)} {first}", (f"some {first}",)))
        return (*_determiner(determiner, group, False), *described, Token(noun.singular, "noun", tuple(slips), group))
    text, other = (noun.plural, noun.singular) if plural else (noun.singular, noun.plural)
    slips = []
    twin = None
    if determiner in COUNTED or (determiner == "a" and concord != "open"):
        slips.append(Slip("plural", other))
    elif determiner in DEMONSTRATIVES or determiner == "a" or concord in ("verb", "definite"):
        slips.append(Slip("plural", other))
        twin = other
    elif determiner == "the" and not plural:
        twin = other
    elif determiner == "" and plural and not adjective:
        slips.append(Slip("plural", other, (f"{article(first)} {other}", f"the {other}")))
    if plural and text != plural_of(noun.singular):
        slips.append(Slip("plural", plural_of(noun.singular)))
    head = Token(text, "noun", tuple(slips), group, twin)
    if determiner in ("a", "the"):
        return (*_article(determiner, first, plural, group, concord), *described, head)
    return (*_determiner(determiner, group, True), *described, head)


def _adjective(adjective: str, first: str, determiner: str, noun: Noun) -> Sentence:
    # A short adjective after the object may be right ("built the wall long"); "a interesting" would be a second error.
    movable = len(adjective) > 5 or adjective in ("old", "young", "busy")
    sounds_alike = determiner != "a" or article(first) == article(noun.singular)
    return (Token(adjective, "adjective", shift=1 if movable and sounds_alike else 0),)


def _article(determiner: str, first: str, plural: bool, group: int, concord: Concord) -> Sentence:
    indefinite = article(first)
    twin = "" if concord == "open" and not plural else None
    if determiner == "the":
        repairs = () if concord == "definite" else (indefinite,)
        slips = () if plural else (Slip("article", "", repairs),)
        return (Token("the", "article", slips, group, twin),)
    definite = () if concord == "fixed" else ("the",)
    swapped = "a" if indefinite == "an" else "an"
    return (Token(indefinite, "article", (Slip("article", "", definite), Slip("article", swapped)), group, twin),)


def _determiner(text: str, group: int, countable: bool) -> Sentence:
    if not text:
        return ()
    other = DEMONSTRATIVES.get(text)
    slips = (Slip("agreement", other),) if other else ()
    if text in QUANTIFIERS:
        slips = (Slip("confused_word", QUANTIFIERS[text]),)
    if text == "a lot of":
        slips = (Slip("missing_word", "a lot"),)
    return (Token(text, "determiner", slips, group, other if countable else None),)


@cache
def _choices(noun: Noun, definite: bool) -> tuple[Sentence, ...]:
    adjectives = ("", "", *noun.adjectives)
    if not noun.plural:
        determiners = ("the", "this", "their", "your") if definite else ("the", "some", "some", "", "", "their")
        return tuple(noun_phrase(noun, determiner, False) for determiner in determiners)
    singular: tuple[str, ...] = ("the", "the", "the", "this", "that", "my", "her")
    plural: tuple[str, ...] = ("the", "the", "the", "these", "those", "your", "their")
    if not definite:
        singular = ("a", "a", "a", "the", "the", "this")
        plural = ("the", "these", "two", "three", "their", "")
    return tuple(
        noun_phrase(noun, determiner, number, adjective)
        for adjective in adjectives
        for number, determiners in ((False, singular), (True, plural))
        for determiner in determiners
    )


def something(noun: Noun, rng: Random, definite: bool = False) -> Sentence:
    """A thing that is acted upon, with a drawn determiner, number and adjective."""
    return rng.choice(_choices(noun, definite))


@dataclass(frozen=True, slots=True, eq=False)
class Subject:
    """Who acts.

    Attributes:
        tokens: The noun phrase.
        plural: What the verb must agree with.
        free: Whether its number may change when the verb's does.
        pronoun: What stands for it later, or "" where that is not known.
    """

    tokens: Sentence
    plural: bool
    free: bool = False
    pronoun: str = ""


def _name(text: str) -> Token:
    return Token(text, "name", (Slip("article", f"the {text}"), Slip("punctuation", text.lower())))


NAMED = (
    *(Subject((_name(name),), False, pronoun=pronoun) for name, pronoun in NAMES.items()),
    *(
        Subject((_name(one), Token("and", "function"), _name(other)), True, pronoun="they")
        for one, other in (("Anna", "Tom"), ("Maria", "Omar"), ("David", "Lucy"), ("Peter", "Sara"))
    ),
)
PRONOUNS = tuple(
    Subject((Token(text, "pronoun", (Slip("confused_word", wrong),) if wrong else ()),), plural)
    for text, wrong, plural in (
        ("she", "her", False),
        ("he", "him", False),
        ("we", "us", True),
        ("they", "them", True),
        ("you", "", True),
    )
)


def named(rng: Random, pairs: bool = True) -> Subject:
    """One person, or with ``pairs`` perhaps two, by name."""
    return rng.choice(NAMED if pairs else NAMED[: len(NAMES)])


@cache
def _people(theme: Theme, plural: bool, concord: Concord) -> tuple[Subject, ...]:
    determiners = ("the", "the", "these", "those", "two", "three") if plural else ("the", "the", "a", "this", "that")
    return tuple(
        Subject(
            noun_phrase(noun, determiner, plural, adjective, SUBJECT, concord),
            plural,
            concord == "verb" and determiner not in ("a", "two", "three"),
        )
        for noun in theme.people
        for determiner in determiners
        for adjective in ("", "", "", "young", "busy", "friendly")
    )


def person(theme: Theme, rng: Random, plural: bool, concord: Concord = "verb") -> Subject:
    """Someone of the theme."""
    return rng.choice(_people(theme, plural, concord))


def anyone(theme: Theme, rng: Random, concord: Concord = "verb") -> Subject:
    """Someone of the theme, someone by name, or a pronoun."""
    kind = rng.random()
    if kind < 0.6:
        return person(theme, rng, kind < 0.3, concord)
    return named(rng) if kind < 0.8 else rng.choice(PRONOUNS)


@cache
def present(verb: Verb, subject_plural: bool, free: bool) -> Token:
    """A finite verb in the present; ``free`` as in :class:`Subject`."""
    text, other = (verb.base, verb.third) if subject_plural else (verb.third, verb.base)
    return Token(text, "verb", (Slip("agreement", other),), SUBJECT, other if free else None)


@cache
def past(verb: Verb, subject_plural: bool, dated: bool = True) -> Token:
    """A finite verb in the past; ``dated`` says that the sentence names a time that is over."""
    now, have = (verb.base, "have") if subject_plural else (verb.third, "has")
    slips = []
    if dated and now != verb.past:
        slips.append(Slip("tense", now))
    if dated:
        slips.append(Slip("tense", f"{have} {verb.participle}"))
    return Token(verb.past, "verb", (*slips, *_regular(verb, verb.past)))


def _regular(verb: Verb, form: str) -> tuple[Slip, ...]:
    """The regular form that a learner gives an irregular verb."""
    if past_of(verb.base) == form or verb.ing[:-3] + "ed" == form:
        return ()
    return (Slip("verb_form", verb.ing[:-3] + "ed"),)


@cache
def after(context: Literal["do", "modal", "to", "please"], verb: Verb) -> Token:
    """The base form that "do", a modal, "to" or "please" asks for."""
    wrong = {"do": [verb.third], "modal": [verb.third], "to": [verb.third, verb.ing], "please": [verb.ing]}[context]
    if verb.past != verb.base and context != "please":
        wrong.append(verb.past)
    slips = [Slip("verb_form", form) for form in wrong]
    if context in ("modal", "please"):
        slips.append(Slip("extra_word", f"to {verb.base}"))
    return Token(verb.base, "verb", tuple(slips), SUBJECT)


@cache
def participle(verb: Verb) -> Token:
    """The past participle, after "have" or in the passive."""
    wrong = [form for form in (verb.base, verb.past) if form != verb.participle]
    slips = tuple(Slip("verb_form", form) for form in wrong)
    return Token(verb.participle, "verb", (*slips, *_regular(verb, verb.participle)), SUBJECT)


@cache
def gerund(verb: Verb, context: Literal["be", "enjoy", "preposition"]) -> Token:
    """The -ing form, after "be", after a verb like "enjoy", or after a preposition."""
    # "Is read the book" and "is cut" could be passives, so such verbs stay as they are after "be".
    wrong = [] if context == "be" and verb.base == verb.participle else [verb.base]
    if context == "enjoy":
        wrong.append(f"to {verb.base}")
    return Token(verb.ing, "verb", tuple(Slip("verb_form", form) for form in wrong), SUBJECT)


Auxiliary = Literal["be", "was", "have", "do", "don't"]
AUXILIARIES: dict[Auxiliary, tuple[str, str]] = {
    "be": ("is", "are"),
    "was": ("was", "were"),
    "have": ("has", "have"),
    "do": ("does", "do"),
    "don't": ("doesn't", "don't"),
}


@cache
def auxiliary(lemma: Auxiliary, plural: bool, free: bool, slips: tuple[Slip, ...] = (), shift: int = 0) -> Token:
    """An auxiliary that agrees with the subject, and with ``slips`` of its own."""
    text, other = AUXILIARIES[lemma][:: -1 if plural else 1]
    return Token(text, "auxiliary", (Slip("agreement", other), *slips), SUBJECT, other if free else None, shift)


def be(subject: Subject, now: bool = False) -> Token:
    """The verb "be" in the present; ``now`` says that the sentence names the present moment."""
    was = "were" if subject.plural else "was"
    slips = (Slip("missing_word", ""), Slip("tense", was)) if now else (Slip("missing_word", "", (was,)),)
    return auxiliary("be", subject.plural, subject.free, slips)


def have(subject: Subject, verb: Verb) -> Token:
    """The auxiliary of the perfect of a verb."""
    # "She already baked cakes" is right, so "has" is left out only before a participle that is no past.
    missing = (Slip("missing_word", "", ("had",)),) if verb.past != verb.participle else ()
    return auxiliary("have", subject.plural, subject.free, missing)


@cache
def location(place: Place) -> Sentence:
    """Where something happens."""
    wrong = tuple(Slip("preposition", text, place.also) for text in place.wrong)
    missing = Slip("missing_word", "", place.also)
    return (
        Token(place.preposition, "preposition", (*wrong, missing), PLACE),
        Token("the", "article", (Slip("article", "", (article(place.noun),)),), PLACE),
        Token(place.noun, "noun", (), PLACE),
    )


def _time(text: str, *slips: Slip) -> Token:
    return Token(text, "time", slips)


def _timed(preposition: str, wrong: str, time: Token) -> Sentence:
    return (Token(preposition, "preposition", tuple(Slip("preposition", text) for text in wrong.split())), time)


PAST_TIMES: tuple[Sentence, ...] = (
    (_time("yesterday"),),
    (_time("yesterday"),),
    (_time("last week", Slip("extra_word", "in last week")),),
    (_time("last month", Slip("extra_word", "in last month")),),
    (_time("two days ago", Slip("plural", "two day ago"), Slip("word_order", "ago two days")),),
    (_time("an hour ago", Slip("article", "a hour ago"), Slip("word_order", "ago an hour")),),
)
FUTURE_TIMES: tuple[Sentence, ...] = (
    (_time("tomorrow"),),
    (_time("tomorrow"),),
    (_time("next week", Slip("extra_word", "in next week")),),
    (_time("next month", Slip("extra_word", "on next month")),),
)
PRESENT_TIMES: tuple[Sentence, ...] = (
    (_time("now"),),
    (_time("right now"),),
    _timed("at", "on", _time("the moment", Slip("article", "moment"))),
)
HABITS: tuple[Sentence, ...] = (
    (_time("every day", Slip("confused_word", "everyday"), Slip("plural", "every days")),),
    (_time("every week", Slip("plural", "every weeks")),),
    _timed("in", "on at", _time("the morning", Slip("article", "morning"))),
    _timed("in", "on at", _time("the evening", Slip("article", "evening"))),
    _timed("on", "in at", _time("Mondays", Slip("punctuation", "mondays"))),
    _timed("on", "in at", _time("Fridays", Slip("punctuation", "fridays"))),
)
OCCASIONS: tuple[Sentence, ...] = (
    (_time("today"),),
    (*word("before"), _time("lunch")),
    (*word("after"), _time("dinner")),
    _timed("at", "in on", _time("six o'clock")),
)
