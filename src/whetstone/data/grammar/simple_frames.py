"""Frames of one clause: statements, negations and questions in the tenses, and "there is"."""

from random import Random

from whetstone.data.grammar.phrases import (
    COMMA,
    FUTURE_TIMES,
    HABITS,
    NOT,
    OBJECT,
    OCCASIONS,
    PAST_TIMES,
    PRESENT_TIMES,
    QUESTION,
    STOP,
    SUBJECT,
    TO,
    Subject,
    after,
    anyone,
    auxiliary,
    be,
    gerund,
    have,
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
from whetstone.data.grammar.vocabulary import Theme

DO_OR_DID = (Slip("missing_word", "", ("did",)),)
NEVER: Sentence = (Token("never", "adverb", shift=1),)
FREQUENCIES: tuple[Sentence, ...] = (
    NEVER,
    (Token("always", "adverb", shift=1),),
    *(word(text, "adverb") for text in ("often", "usually", "sometimes")),
)
DURATIONS = (
    *((Token("for", "preposition", (Slip("preposition", "since"),)), Token(time, "time")) for time in
      ("two years", "three years", "many years", "six months")),
    *((Token("since", "preposition", (Slip("preposition", "from"),)), Token(time, "time")) for time in
      ("Monday", "last summer", "last year")),
)  # fmt: skip
AMOUNTS: tuple[tuple[Sentence, str, str], ...] = (
    (word("too", "adverb"), "many", "much"),
    (word("very", "adverb"), "few", "little"),
    ((), "a lot of", "a lot of"),
    ((), "several", "a little"),
)


def _habitual(who: Subject, theme: Theme, rng: Random) -> Sentence:
    verb, noun = rng.choice(theme.dated_deeds)
    frequency = rng.choice(FREQUENCIES) if rng.random() < 0.5 else ()
    # "Always ... every day" would say it twice, and "never ... some" is not said.
    habit = rng.choice(HABITS[2:] if frequency else HABITS)
    what = something(noun, rng, definite=frequency == NEVER)
    return (*who.tokens, *frequency, present(verb, who.plural, who.free), *what, *habit, *STOP)


def present_singular(theme: Theme, rng: Random) -> Sentence:
    """The student borrows a book every day."""
    return _habitual(named(rng, False) if rng.random() < 0.2 else person(theme, rng, False), theme, rng)


def present_plural(theme: Theme, rng: Random) -> Sentence:
    """The students often borrow books in the morning."""
    return _habitual(person(theme, rng, True), theme, rng)


def past_simple(theme: Theme, rng: Random) -> Sentence:
    """Yesterday, the student read a book."""
    who, (verb, noun) = anyone(theme, rng, "open"), rng.choice(theme.deeds)
    clause = (*who.tokens, past(verb, who.plural), *something(noun, rng))
    if len(clause) == 3 or rng.random() < 0.2:
        clause = (*clause, *location(rng.choice(theme.places)))
    time = rng.choice(PAST_TIMES)
    return (*time, *COMMA, *clause, *STOP) if rng.random() < 0.3 else (*clause, *time, *STOP)


def present_continuous(theme: Theme, rng: Random) -> Sentence:
    """The student is reading a book right now."""
    who, (verb, noun) = anyone(theme, rng), rng.choice(theme.deeds)
    where = location(rng.choice(theme.places)) if rng.random() < 0.3 else ()
    action = (be(who, now=True), gerund(verb, "be"), *something(noun, rng))
    return (*who.tokens, *action, *where, *rng.choice(PRESENT_TIMES), *STOP)


def present_perfect(theme: Theme, rng: Random) -> Sentence:
    """The student has already read the book."""
    who, (verb, noun) = anyone(theme, rng), rng.choice(theme.deeds)
    what = something(noun, rng, definite=True)
    already = Token("already", "adverb", shift=1, floats=1 + len(what))
    adverb = rng.choice(((already,), word("never", "adverb"), word("just", "adverb")))
    return (*who.tokens, have(who, verb), *adverb, participle(verb), *what, *STOP)


def perfect_duration(theme: Theme, rng: Random) -> Sentence:
    """The student has read old books for two years."""
    who, (verb, noun) = anyone(theme, rng), rng.choice(theme.deeds)
    what = noun_phrase(noun, "", True, rng.choice(("", *noun.adjectives)))
    return (*who.tokens, have(who, verb), participle(verb), *what, *rng.choice(DURATIONS), *STOP)


def future_will(theme: Theme, rng: Random) -> Sentence:
    """The student will read a book tomorrow."""
    who, (verb, noun) = anyone(theme, rng, "open"), rng.choice(theme.deeds)
    clause = (*who.tokens, *word("will"), after("modal", verb), *something(noun, rng))
    time = rng.choice(FUTURE_TIMES)
    return (*time, *COMMA, *clause, *STOP) if rng.random() < 0.3 else (*clause, *time, *STOP)


def going_to(theme: Theme, rng: Random) -> Sentence:
    """The student is going to read a book next week."""
    who, (verb, noun) = anyone(theme, rng), rng.choice(theme.deeds)
    action = (*word("going"), *TO, after("to", verb), *something(noun, rng))
    verb_be = auxiliary("be", who.plural, who.free, (Slip("missing_word", ""),))
    return (*who.tokens, verb_be, *action, *rng.choice(FUTURE_TIMES), *STOP)


def modal(theme: Theme, rng: Random) -> Sentence:
    """The student must read these books before lunch."""
    who, (verb, noun) = anyone(theme, rng, "open"), rng.choice(theme.deeds)
    must = word(rng.choice(("can", "must", "should")))
    return (*who.tokens, *must, after("modal", verb), *something(noun, rng), *rng.choice(OCCASIONS), *STOP)


def negation_present(theme: Theme, rng: Random) -> Sentence:
    """The student doesn't read the book every day."""
    who, (verb, noun) = anyone(theme, rng), rng.choice(theme.deeds)
    do: Sentence = (auxiliary("do", who.plural, who.free, DO_OR_DID), *NOT)
    if rng.random() < 0.5:
        do = (auxiliary("don't", who.plural, who.free),)
    what = something(noun, rng, definite=True)
    return (*who.tokens, *do, after("do", verb), *what, *rng.choice(HABITS), *STOP)


def negation_past(theme: Theme, rng: Random) -> Sentence:
    """The student did not read the book yesterday."""
    who, (verb, noun) = anyone(theme, rng, "open"), rng.choice(theme.deeds)
    did = (_did(0), *NOT) if rng.random() < 0.5 else (Token("didn't", "auxiliary"),)
    what = something(noun, rng, definite=True)
    return (*who.tokens, *did, after("do", verb), *what, *rng.choice(PAST_TIMES), *STOP)


def imperative(theme: Theme, rng: Random) -> Sentence:
    """Please read the book before lunch."""
    verb, noun = rng.choice(theme.deeds)
    what = (*something(noun, rng, definite=True), *rng.choice(OCCASIONS), *STOP)
    if rng.random() < 0.4:
        do = Token("do", "auxiliary", (Slip("missing_word", ""),), SUBJECT)
        return (*word("please"), do, *NOT, after("do", verb), *what)
    return (*word("please"), after("please", verb), *what)


def _did(shift: int) -> Token:
    return Token("did", "auxiliary", (Slip("missing_word", ""),), SUBJECT, shift=shift)


def yes_no_present(theme: Theme, rng: Random) -> Sentence:
    """Does the student read the book every day?"""
    who, (verb, noun) = anyone(theme, rng), rng.choice(theme.deeds)
    do = auxiliary("do", who.plural, who.free)
    what = something(noun, rng, definite=True)
    return (do, *who.tokens, after("do", verb), *what, *rng.choice(HABITS), *QUESTION)


def yes_no_past(theme: Theme, rng: Random) -> Sentence:
    """Did the student read the book yesterday?"""
    who, (verb, noun) = anyone(theme, rng, "open"), rng.choice(theme.deeds)
    what = something(noun, rng, definite=True)
    did = Token("did", "auxiliary")
    return (did, *who.tokens, after("do", verb), *what, *rng.choice(PAST_TIMES), *QUESTION)


def what_question(theme: Theme, rng: Random) -> Sentence:
    """What did the student read in the library yesterday?"""
    who, (verb, _) = person(theme, rng, rng.random() < 0.5, "open"), rng.choice(theme.deeds)
    where = location(rng.choice(theme.places)) if rng.random() < 0.6 else ()
    clause = (_did(len(who.tokens)), *who.tokens, after("do", verb), *where)
    return (*word("what"), *clause, *rng.choice(PAST_TIMES), *QUESTION)


def when_question(theme: Theme, rng: Random) -> Sentence:
    """When does the student usually read the book?"""
    who, (verb, noun) = anyone(theme, rng), rng.choice(theme.deeds)
    do = auxiliary("do", who.plural, who.free, DO_OR_DID, len(who.tokens))
    usually = word("usually", "adverb") if rng.random() < 0.5 else ()
    clause = (do, *who.tokens, *usually, after("do", verb), *something(noun, rng, definite=True))
    return (*word(rng.choice(("when", "where", "why"))), *clause, *QUESTION)


def how_many(theme: Theme, rng: Random) -> Sentence:
    """How many books did the student read yesterday?"""
    who = anyone(theme, rng, "open")
    countable = rng.random() < 0.6
    verb, noun = rng.choice(theme.count_deeds if countable else theme.mass_deeds)
    what = noun_phrase(noun, "many" if countable else "much", countable)
    clause = (*what, _did(len(who.tokens)), *who.tokens, after("do", verb))
    return (*word("how"), *clause, *rng.choice(PAST_TIMES), *QUESTION)


def quantifier(theme: Theme, rng: Random) -> Sentence:
    """The student read too many books last week."""
    who = anyone(theme, rng, "open")
    countable = rng.random() < 0.6
    verb, noun = rng.choice(theme.count_deeds if countable else theme.mass_deeds)
    lead, *determiners = rng.choice(AMOUNTS)
    what = (*lead, *noun_phrase(noun, determiners[0 if countable else 1], countable))
    return (*who.tokens, past(verb, who.plural), *what, *rng.choice(PAST_TIMES), *STOP)


def there_be(theme: Theme, rng: Random) -> Sentence:
    """There are three old books in the library."""
    noun = rng.choice(theme.things)
    plural = rng.random() < 0.6
    determiner = rng.choice(("two", "three", "four", "many", "several")) if plural else "a"
    what = noun_phrase(noun, determiner, plural, rng.choice(("", *noun.adjectives)), OBJECT, "fixed")
    return (*word("there"), auxiliary("be", plural, False), *what, *location(rng.choice(theme.places)), *STOP)


def possessive(theme: Theme, rng: Random) -> Sentence:
    """The teacher's old book is in the library."""
    if rng.random() < 0.4:
        (name,) = named(rng, False).tokens
        owner: Sentence = (Token(f"{name.text}'s", "name", (Slip("punctuation", f"{name.text}s"),)),)
    else:
        noun = rng.choice(theme.people)
        plural_owner = (f"{noun.singular}s'",) if noun.plural == f"{noun.singular}s" else ()
        slip = Slip("punctuation", f"{noun.singular}s", plural_owner)
        owner = (*word("the"), Token(f"{noun.singular}'s", "noun", (slip,)))
    thing = rng.choice(theme.things)
    plural = rng.random() < 0.5
    what = noun_phrase(thing, "", plural, rng.choice(("", *thing.adjectives)), SUBJECT, "verb")
    verb = be(Subject(what, plural, free=True))
    return (*owner, *what, verb, *location(rng.choice(theme.places)), *STOP)
