"""Frames of comparison, of two clauses, and of verbs that ask for a form of another verb."""

from functools import cache
from random import Random

from whetstone.data.grammar.phrases import (
    COMMA,
    FUTURE_TIMES,
    HABITS,
    OBJECT,
    OCCASIONS,
    PAST_TIMES,
    QUESTION,
    SECOND,
    STOP,
    SUBJECT,
    THIRD,
    TO,
    Subject,
    after,
    anyone,
    auxiliary,
    be,
    gerund,
    location,
    named,
    noun_phrase,
    participle,
    past,
    person,
    present,
    something,
    word,
)
from whetstone.data.grammar.sentence import Sentence, Slip, Token
from whetstone.data.grammar.vocabulary import ADJECTIVES, Noun, Theme, Verb

AGREE, DECIDE, ENJOY, GO, HOPE, MISS, NEED, PLAN, WANT = (
    Verb("agree", "agrees", "agreed", "agreed", "agreeing"),
    Verb("decide", "decides", "decided", "decided", "deciding"),
    Verb("enjoy", "enjoys", "enjoyed", "enjoyed", "enjoying"),
    Verb("go", "goes", "went", "gone", "going"),
    Verb("hope", "hopes", "hoped", "hoped", "hoping"),
    Verb("miss", "misses", "missed", "missed", "missing"),
    Verb("need", "needs", "needed", "needed", "needing"),
    Verb("plan", "plans", "planned", "planned", "planning"),
    Verb("want", "wants", "wanted", "wanted", "wanting"),
)
LOOSE_COMMA = (Token(",", "mark", (Slip("punctuation", ""),)),)
FEELINGS = ("happy", "tired", "proud", "excited")
# Past and present of what sets the scene, for "when".
SIGNALS = (
    ("the rain", "stopped", "stops"),
    ("the bell", "rang", "rings"),
    ("the lights", "went out", "go out"),
    ("the sun", "came out", "comes out"),
    ("the phone", "rang", "rings"),
)
# Present, bare and past of a condition, for "if".
CONDITIONS = (("it", "rains", "rain", "rained"), ("it", "snows", "snow", "snowed"),
              ("the sun", "shines", "shine", "shone"), ("the weather", "improves", "improve", "improved"))  # fmt: skip
# An adjective, the preposition that it takes, wrong ones, and what it is confused with. "Tired washing cups" may be
# right, and "tiring of washing cups" is.
NONE = Slip("missing_word", "")
PREDICATES: tuple[tuple[Token, str, tuple[str, ...], tuple[Slip, ...]], ...] = (
    (Token("interested", "adjective", (Slip("confused_word", "interesting"),)), "in", ("on", "at"), (NONE,)),
    (Token("good", "adjective"), "at", ("on", "of"), (NONE,)),
    (Token("afraid", "adjective"), "of", ("at", "from"), (NONE,)),
    (Token("tired", "adjective"), "of", ("on", "at"), ()),
    (Token("worried", "adjective"), "about", ("on", "of"), ()),
)


def _owned(noun: Noun, adjective: str, plural: bool, rng: Random) -> Subject:
    """My book, or this book, as a subject."""
    determiner = rng.choice(("my", "your", "our", "their", "these" if plural else "this"))
    return Subject(noun_phrase(noun, determiner, plural, adjective, SUBJECT, "verb"), plural, free=True)


def _rival(noun: Noun, plural: bool, rng: Random) -> Sentence:
    determiner = rng.choice(("her", "his", "the other", "those" if plural else "that"))
    return noun_phrase(noun, determiner, plural, "", SECOND, "fixed")


def comparative(theme: Theme, rng: Random) -> Sentence:
    """My book is heavier than that book."""
    (noun, adjective), plural = rng.choice(theme.described), rng.random() < 0.4
    who = _owned(noun, "", plural, rng)
    forms = ADJECTIVES[adjective]
    more = (Token("more", "adverb", (Slip("missing_word", ""),)), *word(adjective, "adjective"))
    if forms:
        more = (Token(forms[0], "adjective", (Slip("extra_word", f"more {forms[0]}"),)),)
    than = Token("than", "function", (Slip("preposition", "of"), Slip("missing_word", "")))
    return (*who.tokens, be(who), *more, than, *_rival(noun, plural, rng), *STOP)


def equality(theme: Theme, rng: Random) -> Sentence:
    """My book is as heavy as that book."""
    (noun, adjective), plural = rng.choice(theme.described), rng.random() < 0.4
    who = _owned(noun, "", plural, rng)
    first = Token("as", "function", (Slip("missing_word", ""),), THIRD)
    second = Token("as", "function", (Slip("preposition", "like"), Slip("confused_word", "than")), THIRD)
    return (*who.tokens, be(who), first, *word(adjective, "adjective"), second, *_rival(noun, plural, rng), *STOP)


def superlative(theme: Theme, rng: Random) -> Sentence:
    """This is the oldest book in the library."""
    (noun, adjective), plural = rng.choice(theme.described), rng.random() < 0.4
    text, other = ("these", "this") if plural else ("this", "these")
    this = Token(text, "determiner", (Slip("agreement", other),), SUBJECT, other)
    forms = ADJECTIVES[adjective]
    most = (*word("most", "adverb"), *word(adjective, "adjective"))
    if forms:
        most = (Token(forms[1], "adjective", (Slip("extra_word", f"most {forms[1]}"),)),)
    head = noun_phrase(noun, "", plural, "", SUBJECT, "verb")
    the = Token("the", "article", (Slip("article", ""),), SUBJECT)
    return (this, auxiliary("be", plural, True), the, *most, *head, *location(rng.choice(theme.places)), *STOP)


@cache
def _desirable(theme: Theme) -> tuple[tuple[Noun, str], ...]:
    return tuple(pair for pair in theme.described if pair[1] not in ("old", "small", "heavy"))


def enough(theme: Theme, rng: Random) -> Sentence:
    """My book is not interesting enough for the student."""
    (noun, adjective), plural = rng.choice(_desirable(theme)), rng.random() < 0.4
    who = _owned(noun, "", plural, rng)
    quality = (*word("not"), *word(adjective, "adjective"), Token("enough", "adverb", shift=-1))
    target = noun_phrase(rng.choice(theme.people), "the", rng.random() < 0.5, "", SECOND)
    return (*who.tokens, be(who), *quality, *word("for"), *target, *STOP)


def infinitive(theme: Theme, rng: Random) -> Sentence:
    """The student wants to read a book tomorrow."""
    verb, noun = rng.choice(theme.deeds)
    if rng.random() < 0.5:
        who, want = anyone(theme, rng), rng.choice((WANT, HOPE, PLAN))
        finite, time = present(want, who.plural, who.free), rng.choice(FUTURE_TIMES)
    else:
        who, want = anyone(theme, rng, "open"), rng.choice((DECIDE, AGREE, WANT))
        finite, time = past(want, who.plural), rng.choice(PAST_TIMES)
    return (*who.tokens, finite, *TO, after("to", verb), *something(noun, rng), *time, *STOP)


def verb_gerund(theme: Theme, rng: Random) -> Sentence:
    """The student enjoys reading old books in the library."""
    who, (verb, noun) = anyone(theme, rng), rng.choice(theme.deeds)
    what = noun_phrase(noun, "", True, rng.choice(("", *noun.adjectives)))
    finite = present(rng.choice((ENJOY, MISS)), who.plural, who.free)
    where = location(rng.choice(theme.places))
    return (*who.tokens, finite, gerund(verb, "enjoy"), *what, *where, *STOP)


def adjective_preposition(theme: Theme, rng: Random) -> Sentence:
    """The student is interested in reading old books."""
    who, (verb, noun) = anyone(theme, rng), rng.choice(theme.deeds)
    adjective, preposition, wrong, missing = rng.choice(PREDICATES)
    slips = (*(Slip("preposition", other) for other in wrong), *missing)
    what = noun_phrase(noun, "", True, rng.choice(("", *noun.adjectives)))
    link = (adjective, Token(preposition, "preposition", slips), gerund(verb, "preposition"))
    return (*who.tokens, be(who), *link, *what, *STOP)


def purpose(theme: Theme, rng: Random) -> Sentence:
    """The student went to the library to read a book yesterday."""
    who, (verb, noun) = anyone(theme, rng, "open"), rng.choice(theme.deeds)
    _, the, place = location(rng.choice(theme.places))
    there = Token("to", "preposition", (Slip("preposition", "at"), Slip("missing_word", "")))
    # "Went and read" would be right as well, so "to" is not left out before such verbs.
    to = Token(
        "to", "function", (Slip("preposition", "for"), *(TO[0].slips if verb.base != verb.past else ())), SUBJECT
    )
    action = (to, after("to", verb), *something(noun, rng))
    return (*who.tokens, past(GO, who.plural), there, the, place, *action, *rng.choice(PAST_TIMES), *STOP)


def passive(theme: Theme, rng: Random) -> Sentence:
    """The book was read by the student yesterday."""
    verb, noun = rng.choice(theme.deeds)
    plural = bool(noun.plural) and rng.random() < 0.5
    determiner = rng.choice(("the", "the", "these" if plural else "this", "my", "their"))
    what = noun_phrase(noun, determiner, plural, "", SUBJECT, "verb")
    slips = (Slip("tense", "are" if plural else "is"), Slip("missing_word", ""))
    was = auxiliary("was", plural, bool(noun.plural), slips)
    by = Token("by", "preposition", (Slip("preposition", "of"), Slip("missing_word", "")), SUBJECT)
    agent = noun_phrase(rng.choice(theme.people), "the", rng.random() < 0.5, "", SECOND)
    return (*what, was, participle(verb), by, *agent, *rng.choice(PAST_TIMES), *STOP)


def because(theme: Theme, rng: Random) -> Sentence:
    """Anna is happy because she read a book yesterday."""
    who, (verb, noun) = named(rng), rng.choice(theme.deeds)
    why = Token("because", "function", (Slip("extra_word", "because of"),), SECOND)
    pronoun = Token(who.pronoun, "pronoun", (Slip("missing_word", ""),), SECOND)
    clause = (pronoun, past(verb, who.plural), *something(noun, rng), *rng.choice(PAST_TIMES))
    return (*who.tokens, be(who), *word(rng.choice(FEELINGS), "adjective"), why, *clause, *STOP)


def when_clause(theme: Theme, rng: Random) -> Sentence:
    """When the rain stopped, Anna read a book."""
    who, (verb, noun) = named(rng), rng.choice(theme.deeds)
    signal, rang, rings = rng.choice(SIGNALS)
    reads = verb.base if who.plural else verb.third
    fronted = (*word("when"), *word(signal))
    if reads == verb.past:
        clause = (*word(rang), *COMMA, *who.tokens, Token(verb.past, "verb"))
    else:
        trigger = Token(rang, "verb", (Slip("tense", rings),), SECOND, rings)
        main = past(verb, who.plural, dated=False)
        slips = (Slip("tense", reads), *main.slips)
        clause = (trigger, *COMMA, *who.tokens, Token(main.text, "verb", slips, SECOND, reads))
    return (*fronted, *clause, *something(noun, rng), *STOP)


def if_clause(theme: Theme, rng: Random) -> Sentence:
    """If it rains tomorrow, Anna will read a book."""
    who, (verb, noun) = named(rng), rng.choice(theme.deeds)
    what, rains, rain, rained = rng.choice(CONDITIONS)
    slips = (Slip("agreement", rain), Slip("tense", rained), Slip("tense", f"will {rain}"))
    condition = (*word("if"), *word(what), Token(rains, "verb", slips, SECOND, rained), Token("tomorrow", "time"))
    will = Token("will", "function", (), SECOND, "would")
    return (*condition, *COMMA, *who.tokens, will, after("modal", verb), *something(noun, rng), *STOP)


def relative(theme: Theme, rng: Random) -> Sentence:
    """The student who read a book yesterday is very tired."""
    who, (verb, noun) = person(theme, rng, rng.random() < 0.5), rng.choice(theme.deeds)
    slips: tuple[Slip, ...] = (Slip("confused_word", "which", ("that",)),)
    # Without "who", "sent" could be a participle: "the manager sent the letter is tired" is right.
    if verb.past != verb.participle:
        slips = (*slips, Slip("missing_word", "", ("that",)))
    pronoun = Token("who", "pronoun", slips, SUBJECT)
    clause = (pronoun, past(verb, who.plural), *something(noun, rng), *rng.choice(PAST_TIMES))
    return (*who.tokens, *clause, be(who), *word("very"), *word(rng.choice(FEELINGS), "adjective"), *STOP)


def indirect_question(theme: Theme, rng: Random) -> Sentence:
    """I do not know where the book is."""
    opener = rng.choice(
        (("I", "do", "not", "know"), ("please", "tell", "me"), ("nobody", "knows"), ("it's", "not", "clear"))
    )
    (noun, adjective), plural = rng.choice(theme.described), rng.random() < 0.4
    determiner = rng.choice(("the", "the", "my", "these" if plural else "this"))
    described = adjective if rng.random() < 0.4 else ""
    what = noun_phrase(noun, determiner, plural, described, SUBJECT, "definite")
    verb = auxiliary("be", plural, True, (Slip("missing_word", "", ("were" if plural else "was",)),), -len(what))
    return (*(token for text in opener for token in word(text)), *word("where"), *what, verb, *STOP)


def listing(theme: Theme, rng: Random) -> Sentence:
    """The student needs a book, two notebooks and some homework today."""
    who, need = anyone(theme, rng), rng.choice((NEED, WANT))
    one, two, three = rng.sample(theme.things, 3)
    first = noun_phrase(one, "a", False, "", OBJECT)
    second = noun_phrase(two, rng.choice(("two", "three")), True, "", SECOND)
    third = noun_phrase(three, "a", False, "", THIRD)
    if rng.random() < 0.5:
        third = noun_phrase(rng.choice(theme.masses), "some", False, "", THIRD)
    things = (*first, *LOOSE_COMMA, *second, *word("and"), *third)
    return (*who.tokens, present(need, who.plural, who.free), *things, *rng.choice(OCCASIONS[:3]), *STOP)


def tag_question(theme: Theme, rng: Random) -> Sentence:
    """Anna borrows the book every day, doesn't she?"""
    who, (verb, noun) = named(rng), rng.choice(theme.dated_deeds)
    wrong = Slip("confused_word", "aren't" if who.plural else "isn't")
    tag = (*LOOSE_COMMA, auxiliary("don't", who.plural, False, (wrong,)), *word(who.pronoun))
    clause = (*who.tokens, present(verb, who.plural, False), *something(noun, rng, definite=True))
    return (*clause, *rng.choice(HABITS), *tag, *QUESTION)
