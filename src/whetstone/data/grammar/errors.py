"""Learner errors: one small function a kind, planted where the annotations of a sentence allow it.

A planted error says what it does to the words and which other repairs are right. Two errors go into one sentence
only where neither touches a word that the other depends on, so that the right corrections of both are the
combinations of the right corrections of each.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from itertools import product
from random import Random

from whetstone.data.grammar.sentence import ERROR_KINDS, ErrorKind, Role, Sentence, Slip, render
from whetstone.data.grammar.vocabulary import THEMES

__all__ = ["PLANTERS", "Corrupted", "Edit", "Learner", "corrupt", "misspellings"]

Edit = Mapping[int, str]
"""New texts for some positions of a sentence; "" leaves the token out."""

MAX_REFERENCES = 4

# How often a kind is tried first: kinds that few sentences admit weigh more.
WEIGHTS: Mapping[ErrorKind, float] = {
    "agreement": 1.5,
    "article": 1.5,
    "preposition": 1.5,
    "tense": 2.0,
    "verb_form": 1.0,
    "plural": 1.0,
    "word_order": 1.2,
    "spelling": 0.7,
    "missing_word": 1.0,
    "extra_word": 0.8,
    "confused_word": 1.0,
    "punctuation": 0.6,
}

# Words that sound or look like another, and never make sense in its place here.
CONFUSED: Mapping[str, str] = {
    "their": "there", "there": "their", "your": "you're", "than": "then", "to": "too", "too": "to",
    "two": "too", "were": "where", "where": "were", "know": "no", "it's": "its", "write": "right", "buy": "by",
    "by": "buy", "weigh": "way", "advice": "advise",
}  # fmt: skip

# Distortions that are English words or accepted spellings: with them a sentence might be right.
ENGLISH: frozenset[str] = frozenset((
    "bats", "brad", "bred", "buss", "busses", "caches", "caries", "char", "chars", "clan", "clans", "coked",
    "coking", "diner", "fired", "fires", "framer", "framers", "hops", "instal", "instals", "loves",
    "manger", "mangers", "neighbor", "neighbors", "pant", "panted", "panting", "pants", "pint", "pints",
    "planed", "plying", "prod", "reds", "rids", "signer", "signers", "singed", "stdio", "toady", "tried",
    "tuns", "warps", "wars", "wining", "writs",
))  # fmt: skip

MISSPELLED: Mapping[str, tuple[str, ...]] = {
    "because": ("becouse", "becuase"), "tomorrow": ("tommorow", "tomorow"), "yesterday": ("yesturday",),
    "already": ("allready", "alredy"), "usually": ("usualy", "usally"), "beautiful": ("beatiful", "beautifull"),
    "interesting": ("intresting",), "comfortable": ("comfertable",), "library": ("libary",),
    "restaurant": ("restaurent", "resturant"), "dictionary": ("dictionery",), "secretary": ("secretery",),
    "important": ("importent",), "difficult": ("dificult",), "writing": ("writting",), "written": ("writen",),
    "interested": ("intrested",), "information": ("infomation",),
}  # fmt: skip


# Function words are left out: "three" would become "there".
SPELLED_ROLES: frozenset[Role] = frozenset(("noun", "verb", "adjective", "adverb", "time"))


@dataclass(frozen=True, slots=True)
class Corrupted:
    """One planted error.

    Attributes:
        kind: Its kind.
        edit: What it does to the clean words.
        repairs: Edits of the clean words that are right corrections too.
        capital: Whether the sentence still starts with a capital letter.
    """

    kind: ErrorKind
    edit: Edit
    repairs: tuple[Edit, ...] = ()
    capital: bool = True


Planter = Callable[[Sentence, Random], Corrupted | None]
Candidate = tuple[int, Slip]


def _annotated(sentence: Sentence, kind: ErrorKind) -> list[Candidate]:
    return [(at, slip) for at, token in enumerate(sentence) for slip in token.slips if slip.kind == kind]


def _planted(sentence: Sentence, rng: Random, candidates: Sequence[Candidate]) -> Corrupted | None:
    if not candidates:
        return None
    at, slip = rng.choice(candidates)
    token = sentence[at]
    repairs: list[Edit] = [{at: text} for text in slip.repairs]
    if slip.text == token.twin:
        repairs.append(_twins(sentence, token.group))
    return Corrupted(slip.kind, {at: slip.text}, tuple(repairs))


def _twins(sentence: Sentence, group: int) -> Edit:
    """Changes the number or the tense of a whole group."""
    return {at: token.twin for at, token in enumerate(sentence) if token.group == group and token.twin is not None}


def _annotated_error(kind: ErrorKind, sentence: Sentence, rng: Random) -> Corrupted | None:
    return _planted(sentence, rng, _annotated(sentence, kind))


def _moved(sentence: Sentence, at: int, places: int) -> Edit:
    """Moves one token by some places."""
    order = list(range(len(sentence)))
    order.insert(at + places, order.pop(at))
    return {place: sentence[source].text for place, source in enumerate(order) if place != source}


def word_order(sentence: Sentence, rng: Random) -> Corrupted | None:
    """Moves a word to where it is surely wrong, or turns a time phrase round."""
    movable = [at for at, token in enumerate(sentence) if token.shift]
    phrases = _annotated(sentence, "word_order")
    if not movable or (phrases and rng.random() < 0.3):
        return _planted(sentence, rng, phrases)
    at = rng.choice(movable)
    token = sentence[at]
    repairs = (_moved(sentence, at, token.floats),) if token.floats else ()
    return Corrupted("word_order", _moved(sentence, at, token.shift), repairs)


def extra_word(sentence: Sentence, rng: Random) -> Corrupted | None:
    """Adds a word that learners add ("must to go"), or writes a small word twice."""
    candidates = _annotated(sentence, "extra_word")
    if not candidates or rng.random() < 0.3:
        candidates = [
            (at, Slip("extra_word", f"{token.text} {token.text}"))
            for at, token in enumerate(sentence)
            if token.role in ("article", "preposition", "auxiliary") and "'" not in token.text
        ]
    return _planted(sentence, rng, candidates)


def confused_word(sentence: Sentence, rng: Random) -> Corrupted | None:
    """Writes a word for another that sounds, looks or means much the same."""
    alike = [
        (at, Slip("confused_word", CONFUSED[token.text])) for at, token in enumerate(sentence) if token.text in CONFUSED
    ]
    return _planted(sentence, rng, [*_annotated(sentence, "confused_word"), *alike])


def punctuation(sentence: Sentence, rng: Random) -> Corrupted | None:
    """Drops or changes the final mark, a comma, an apostrophe or a capital letter."""
    if rng.random() < 0.25:
        return Corrupted("punctuation", {0: sentence[0].text.lower()}, capital=False)
    last = len(sentence) - 1
    candidates = [(at, slip) for at, slip in _annotated(sentence, "punctuation") if at > 0]
    candidates.append((last, Slip("punctuation", "")))
    if sentence[last].text == "?":
        candidates.append((last, Slip("punctuation", ".")))
    candidates += [
        (at, Slip("punctuation", token.text.replace("'", "")))
        for at, token in enumerate(sentence)
        if "'" in token.text and token.role in ("auxiliary", "time")
    ]
    return _planted(sentence, rng, candidates)


def spelling(sentence: Sentence, rng: Random) -> Corrupted | None:
    """Drops, doubles or swaps a letter, or misspells a word the way many people do."""
    words = [at for at, token in enumerate(sentence) if token.role in SPELLED_ROLES and misspellings(token.text)]
    if not words:
        return None
    at = rng.choice(words)
    return Corrupted("spelling", {at: rng.choice(misspellings(sentence[at].text))})


@cache
def misspellings(word: str) -> tuple[str, ...]:
    """The plausible misspellings of a word that are no word of the corpus and point to no other word.

    Args:
        word: A lower-case word.

    Returns:
        The misspellings; none for a short word.
    """
    if word in MISSPELLED:
        return MISSPELLED[word]
    return tuple(text for text in _distorted(word) if text not in ENGLISH and _origins().get(text, {word}) == {word})


def _distorted(word: str) -> list[str]:
    """Every form of a word of five letters or more with one inner letter dropped, doubled or swapped."""
    if len(word) < 5 or not word.isalpha() or not word.islower():
        return []
    forms = []
    for at in range(1, len(word) - 1):
        before, letter, following = word[:at], word[at], word[at + 1]
        if letter in "aeiou" or letter == following:
            forms.append(before + word[at + 1 :])
        if letter in "lmnprst" and letter not in (following, word[at - 1]):
            forms.append(before + letter + word[at:])
        if at < len(word) - 2 and letter != following:
            forms.append(before + following + letter + word[at + 2 :])
    return list(dict.fromkeys(forms))


@cache
def _origins() -> dict[str, set[str]]:
    """What every word and every distortion in the corpus stands for."""
    nouns = [noun for theme in THEMES for noun in (*theme.people, *theme.things, *theme.masses)]
    verbs = [verb for theme in THEMES for verb, _ in theme.deeds]
    words = {form for noun in nouns for form in (noun.singular, noun.plural, *noun.adjectives) if form}
    words |= {form for verb in verbs for form in (verb.base, verb.third, verb.past, verb.participle, verb.ing)}
    words |= {place.noun for theme in THEMES for place in theme.places}
    origins: dict[str, set[str]] = {}
    for word in sorted(words):
        for text in (word, *_distorted(word)):
            origins.setdefault(text, set()).add(word)
    return origins


PLANTERS: Mapping[ErrorKind, Planter] = {
    **{kind: partial(_annotated_error, kind) for kind in ERROR_KINDS},
    "word_order": word_order,
    "extra_word": extra_word,
    "confused_word": confused_word,
    "punctuation": punctuation,
    "spelling": spelling,
}


@dataclass(frozen=True, slots=True)
class Learner:
    """A learner's sentence.

    Attributes:
        source: What the learner wrote.
        references: The right corrections, the clean sentence first.
        errors: What was planted.
    """

    source: str
    references: tuple[str, ...]
    errors: tuple[ErrorKind, ...]


def _scope(sentence: Sentence, corrupted: Corrupted) -> set[int]:
    """The positions that a second error must leave alone."""
    touched = {at for edit in (corrupted.edit, *corrupted.repairs) for at in edit}
    groups = {sentence[at].group for at in touched} - {0}
    return touched | {at for at, token in enumerate(sentence) if token.group in groups}


def _text(sentence: Sentence, edits: Iterable[Edit], capital: bool = True) -> str:
    words = [token.text for token in sentence]
    for edit in edits:
        for at, text in edit.items():
            words[at] = text
    return render(words, capital)


def corrupt(sentence: Sentence, rng: Random, count: int) -> Learner | None:
    """Plants errors in a clean sentence.

    Args:
        sentence: The clean sentence.
        rng: Decides which errors, where.
        count: How many.

    Returns:
        The learner's sentence, or None where the sentence does not admit that many independent errors, or where
        more than four corrections would be right.
    """
    planted: list[Corrupted] = []
    taken: set[int] = set()
    for kind in sorted(ERROR_KINDS, key=lambda kind: rng.random() ** (1 / WEIGHTS[kind]), reverse=True):
        if len(planted) == count:
            break
        corrupted = PLANTERS[kind](sentence, rng)
        if corrupted is None:
            continue
        scope = _scope(sentence, corrupted)
        if taken.isdisjoint(scope):
            planted.append(corrupted)
            taken |= scope
    source = _text(sentence, (error.edit for error in planted), all(error.capital for error in planted))
    repairs = product(*(({}, *error.repairs) for error in planted))
    references = tuple(dict.fromkeys(_text(sentence, edits) for edits in repairs))
    if len(planted) < count or len(references) > MAX_REFERENCES or (count > 0 and source in references):
        return None
    return Learner(source, references, tuple(error.kind for error in planted))
