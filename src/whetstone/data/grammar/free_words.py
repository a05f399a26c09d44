"""The words that the rules for free text know: forms of common verbs and nouns, and closed classes.

Only words whose forms are safe to tell apart are listed: a noun that goes without an article ("go to school"), a
collective noun ("the team are") or a verb with two past forms would make a planted error right by accident.
"""

from collections.abc import Mapping

from whetstone.data.grammar.vocabulary import ADJECTIVES, NAMES, THEMES, Noun, Verb, past_of, plural_of

__all__ = ["CLASSES", "NOUN_OF", "VERB_OF", "VOWELS"]

VOWELS = "aeiou"

# Base (or base/third), past, participle, -ing where they are not regular; commas between. None is a common noun.
_VERBS = """
go/goes went gone going, see saw seen seeing, take took taken, give gave given, come came come, know knew known,
think thought thought, find found found, tell told told, say said said, make made made, get got got getting, keep
kept kept, leave left left, feel felt felt, bring brought brought, begin began begun beginning, write wrote
written, eat ate eaten, speak spoke spoken, buy bought bought, sell sold sold, send sent sent, spend spent spent,
build built built, lose lost lost, meet met met, teach taught taught, understand understood understood, forget
forgot forgotten forgetting, become became become, choose chose chosen, grow grew grown, hear heard heard, sing
sang sung, sit sat sat sitting, steal stole stolen, have/has had had having, do/does did done doing, put put put
putting, accept, achieve, add, agree, allow, appear, apply, arrive, ask, avoid, believe, belong, borrow, carry,
celebrate, collect, compare, complain, consider, contain, continue, create, decide, depend, describe, destroy,
develop, die died died dying, disappear, discover, discuss, enjoy, enter, exist, expect, explain, express, fail,
follow, happen, improve, include, introduce, invite, involve, learn, listen, live, manage, occur occurred occurred
occurring, prefer preferred preferred preferring, prepare, prevent, protect, provide, realize, receive, recommend,
reduce, refuse, remain, remember, remove, require, save, seem, select, solve, succeed, suffer, suggest, want,
relax, imagine, forgive forgave forgiven, hide hid hidden, explore, educate, communicate
"""

# The same for verbs that are nouns as well ("the work", "a change"), which some rules must leave alone.
_NOUN_VERBS = """
work, need, use, help, pay paid paid, throw threw thrown, wear wore worn, win won won winning, play, like, love,
look, change, call, move, answer, hope, plan planned planned planning, start, stop stopped stopped stopping, stay,
study, support, talk, travel, try, turn, visit, wait, walk, watch, wish, offer, open, return, share, cook, clean,
cause, end, increase, produce, join, reach, worry, show showed shown, read read read, drive drove driven, drink
drank drunk, fall fell fallen, fly flew flown, hold held held, lead led led, ride rode ridden, rise rose risen, run
ran run running, sleep slept slept, stand stood stood, swim swam swum swimming, break broke broken, catch caught
caught, draw drew drawn, fight fought fought, cut cut cut cutting, practise, finish, pass
"""

# Count nouns that never stand bare in the singular: "bought car", "many car" are wrong wherever they come.
_SOLID = """
student, teacher, child children, person people, friend, doctor, parent, girl, boy, driver, worker, employee,
tourist, writer, scientist, manager, engineer, artist, player, customer, neighbour, visitor, book, essay, letter,
car, computer, house, building, room, bicycle, table, chair, window, idea, problem, country, city, village, shop,
company, machine, game, mistake, decision, job, subject, question, example, reason, opinion, lesson, holiday,
newspaper, magazine, photo, phone, product, suitcase, ticket, restaurant, museum, hotel, airport, station, garden,
animal, tree, flower, cat, bird, dictionary, notebook, poem, guitar, song, email, contract, printer, boat, bandage,
mask, racket, medal, knife knives, cup, basket, shelf shelves, lamp, wall, sister, brother, uncle, way, month,
hour, minute
"""

# Count nouns that may stand bare, but whose number shows after "two" or "every".
_COUNT = """
day, week, year, time, school, thing, place, word, family, group, man men, woman women, dog, system, class, course,
university, language, story, film, movie, area, advertisement, event, activity, skill, point, life lives
"""

_MASSES = """
information, advice, homework, furniture, luggage, equipment, knowledge, traffic, software, bread, rice, money,
pollution, luck, garlic, butter, hay, firewood, research, music, jazz, honey, bedding, footwear
"""


def _verbs(table: str) -> list[Verb]:
    return [_verb(forms) for forms in table.replace("\n", " ").split(",")]


def _verb(forms: str) -> Verb:
    first, *irregular = forms.split()
    base, _, third = first.partition("/")
    stem = base[:-1] if base.endswith("e") and not base.endswith(("ee", "ie")) else base
    past, participle, ing = [*irregular, *(past_of(base), past_of(base), stem + "ing")[len(irregular) :]]
    return Verb(base, third or plural_of(base), past, participle, ing)


def _nouns(table: str) -> list[Noun]:
    entries = [forms.split() for forms in table.replace("\n", " ").split(",")]
    return [Noun(forms[0], forms[-1] if len(forms) > 1 else plural_of(forms[0])) for forms in entries]


def _is_irregular(verb: Verb) -> bool:
    return verb.past not in (verb.base, past_of(verb.base), verb.ing[:-3] + "ed")


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_PURE = _verbs(_VERBS)
_ALL_VERBS = [*_PURE, *_verbs(_NOUN_VERBS), *(verb for theme in THEMES for verb, _ in theme.deeds)]
_SOLID_NOUNS = [*_nouns(_SOLID), *(noun for theme in THEMES for noun in theme.people)]
_COUNT_NOUNS = [*_SOLID_NOUNS, *_nouns(_COUNT), *(noun for theme in THEMES for noun in theme.things)]

VERB_OF: Mapping[str, Verb] = {
    form: verb
    for verb in reversed(_ALL_VERBS)
    for form in (verb.ing, verb.participle, verb.past, verb.third, verb.base)
} | dict.fromkeys(("am", "is", "are", "was", "were", "been"), Verb("are", "is", "was", "been", "being"))
"""The verb that a form belongs to."""

NOUN_OF: Mapping[str, Noun] = {form: noun for noun in _COUNT_NOUNS for form in (noun.singular, noun.plural)}
"""The count noun that a form belongs to."""

_ADJECTIVES = """
good bad new old young big small large long short tall high low nice great important interesting difficult easy hard
beautiful expensive cheap famous modern comfortable heavy strong sweet fast slow different serious popular
dangerous happy sad rich poor clever friendly busy simple special terrible wonderful useful healthy clear
"""
_COMPARATIVES = """
better worse bigger smaller larger longer older younger taller higher lower cheaper easier harder faster
slower happier richer poorer stronger heavier sweeter healthier clearer simpler busier friendlier greater
"""
_PREPOSITIONS = """
of in on at to for with by from about into onto over under after before between among near behind without through
during against across around inside outside until since towards above below
"""
_NAMES = """
james john robert michael william richard thomas charles mary linda elizabeth susan sarah karen nancy lisa emma
daniel paul mark george kevin julia laura alice jane kate jack harry ahmed ali mohammed juan carlos pedro ana
"""
_BEFORE_TO = """
want wants wanted able order need needs needed try tries tried decide decided hope learned ready possible impossible
necessary how what where allowed forced supposed
"""
_STOPS = """
is are was were has have had will would can could should must may might do does did who which that because when if
but so than while where i he she we they it . , ; : ! ? ) not n't
"""

# "Found", "saw" and "fell" are bare verbs too: "they can saw the tree".
_PAST_IS_BASE = frozenset(("find", "see", "fall"))

CLASSES: Mapping[str, frozenset[str]] = {
    "BASE": frozenset(verb.base for verb in _ALL_VERBS) - _PAST_IS_BASE,
    "PURE": frozenset(verb.base for verb in _PURE) - _PAST_IS_BASE,
    "THIRD": frozenset(verb.third for verb in _ALL_VERBS),
    "PURETHIRD": frozenset(verb.third for verb in _PURE),
    "PAST": frozenset(verb.past for verb in _ALL_VERBS),
    "IRREGULAR": frozenset(verb.past for verb in _ALL_VERBS if _is_irregular(verb)) - {"did", "had"},
    "PARTICIPLE": frozenset(verb.participle for verb in _ALL_VERBS),
    "SPECIAL": frozenset(verb.participle for verb in _ALL_VERBS if verb.participle not in (verb.base, verb.past)),
    "PUREDONE": frozenset(verb.participle for verb in _PURE if verb.participle != verb.base) - {"got", "had", "lived"},
    "ING": frozenset(verb.ing for verb in _ALL_VERBS),
    "PUREING": frozenset(verb.ing for verb in _PURE) - {"building", "feeling", "understanding"},
    "SOLID": frozenset(noun.singular for noun in _SOLID_NOUNS),
    "SOLIDS": frozenset(noun.plural for noun in _SOLID_NOUNS),
    "COUNT": frozenset(noun.singular for noun in _COUNT_NOUNS),
    "COUNTS": frozenset(noun.plural for noun in _COUNT_NOUNS),
    "MASS": _words(_MASSES.replace(",", " ")),
    "ADJ": _words(_ADJECTIVES) | frozenset(ADJECTIVES),
    "ER": _words(_COMPARATIVES) | {forms[0] for forms in ADJECTIVES.values() if forms},
    "EST": _words("best worst biggest largest oldest highest longest greatest youngest easiest fastest"),
    "NAME": _words(_NAMES) | {name.lower() for name in NAMES},
    "PREP": _words(_PREPOSITIONS),
    "DET": _words("the a an my your his its our their this that these those"),
    "ONEDET": _words("the this that my your his her our their a"),
    "POSS": _words("my your his its our their"),
    "LINK": _words(_PREPOSITIONS) | _words("and or nor than as"),
    "STOP": _words(_STOPS) | _words(_PREPOSITIONS) | {""},
    "END": _words(". , ! ? ;") | {""},
    "START": _words(". ! ? ;") | {""},
    "OPEN": _words(". , ! ? ; : but that because when so which") | {""},
    "CLAUSE": _words(". , ! ? ; : that which who because when while but if although and") | {""},
    "EDGE": frozenset(("",)),
    "HE": _words("he she it"),
    "THEY": _words("i you we they"),
    "WE": _words("you we they"),
    "PRON": _words("i he she we they"),
    "OBJ": _words("me him us them"),
    "MODAL": _words("can could will would should must might cannot can't couldn't won't wouldn't shouldn't"),
    "NOT": _words("not n't"),
    "DO": _words("do does did"),
    "DONT": _words("don't doesn't didn't"),
    "BE": _words("am is are was were"),
    "MANY": _words("two three four five six seven eight nine ten several few both various"),
    "MONTHS": _words("january february april june july august september october november december"),
    "DAYS": _words("monday tuesday wednesday thursday friday saturday sunday"),
    "DAYSS": _words("mondays tuesdays wednesdays thursdays fridays saturdays sundays"),
    "COUNTRY": _words("europe africa asia america england france germany spain italy china japan india"),
    "LANGUAGE": _words("english french spanish german italian chinese japanese russian arabic"),
    "UNIT": _words("week month year night"),
    "ROOM": _words("airport station stadium kitchen garden library classroom canteen pharmacy greenhouse academy"),
    "WANT": _words(_BEFORE_TO),
    "DECIDE": _words("want wants wanted decide decides decided hope refuse refused promise promised expect"),
    "ENJOY": _words("enjoy enjoys enjoyed avoid avoids avoided finish finished"),
    "WH": _words("what where when why how who"),
    "ASK": _words("know knows knew understand explain wonder tell me remember"),
    "MAKE": _words("make makes made let lets"),
    "KEEP": _words("make makes made find finds found keep keeps kept consider considers leave leaves"),
    "COMPARE": _words("than as who what where how whatever whoever wherever if though"),
    "UNSURE": _words("of as from and or nor kind type sort"),
}
"""Names of word classes in patterns, with their members; "" is the edge of the text."""
