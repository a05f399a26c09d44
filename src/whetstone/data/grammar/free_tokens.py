"""Free text as tokens that know their word classes and their other forms."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache

from whetstone.data.grammar.free_words import CLASSES, NOUN_OF, VERB_OF, VOWELS
from whetstone.data.grammar.vocabulary import Noun, Verb, past_of

__all__ = ["Token", "tokenised"]

_CHUNK = re.compile(r"\S+")
# Links, addresses and code are one token each, so that no rule looks inside.
_OPAQUE = re.compile(r"://|[@\\_<>{}=#|`~^]")
# Numbers, words, marks.
_TOKEN = re.compile(
    r"\d[\w.,:%/-]*\w|\d"
    r"|[^\W\d_]+(?:[-'’.][^\W\d_]+)*"
    r"|['’](?:s|re|ve|ll|d|m)\b"
    r"|\S"
)
_EDGE = frozenset(name for name, words in CLASSES.items() if "" in words)
_OTHER_NUMBER = {"is": "are", "are": "is", "was": "were", "were": "was", "don't": "doesn't", "doesn't": "don't"}
_PROPER = frozenset(("NAME", "MONTHS", "DAYS", "DAYSS", "COUNTRY", "LANGUAGE"))
_SILENT_H = ("hour", "honest", "honour", "honor", "heir")
_SOUNDS_LIKE_CONSONANT = ("uni", "use", "usu", "eu", "one", "once", "uk", "ut", "ub", "u-")


@dataclass(frozen=True, slots=True)
class Token:
    """A word, a number or a mark; the edges of a text are tokens without text.

    Attributes:
        text: As it is written.
        start: Where it begins.
        keys: What a pattern may call it: its lower-case word and the names of its classes.
    """

    text: str
    start: int
    keys: frozenset[str]

    def __str__(self) -> str:
        return self.text

    def __format__(self, spec: str) -> str:
        return self.text

    def lowered(self) -> "Token":
        """The token as it stands inside a sentence: without its capital, unless it is a name."""
        proper = self.text == "I" or self.text.startswith("I'") or not _PROPER.isdisjoint(self.keys)
        return self if proper else replace(self, text=self.text[:1].lower() + self.text[1:])

    @property
    def end(self) -> int:
        """Where it ends."""
        return self.start + len(self.text)

    @property
    def low(self) -> str:
        """In lower case, with a plain apostrophe."""
        return _low(self.text)

    @property
    def _verb(self) -> Verb:
        return VERB_OF[self.low]

    @property
    def _noun(self) -> Noun:
        return NOUN_OF[self.low]

    @property
    def clash(self) -> str:
        """The verb's form for a subject of the other number."""
        if self.low in _OTHER_NUMBER:
            return _OTHER_NUMBER[self.low]
        return self.third if self.low == self.base else self.base

    @property
    def base(self) -> str:
        """The bare verb."""
        return self._verb.base

    @property
    def third(self) -> str:
        """The verb with -s."""
        return self._verb.third

    @property
    def past(self) -> str:
        """The verb's past."""
        return self._verb.past

    @property
    def participle(self) -> str:
        """The verb's past participle."""
        return self._verb.participle

    @property
    def ing(self) -> str:
        """The verb with -ing."""
        return self._verb.ing

    @property
    def overdone(self) -> str:
        """The regular past that a learner gives an irregular verb."""
        verb = self._verb
        return past_of(verb.base) if verb.base.endswith(("e", "y")) else verb.ing[:-3] + "ed"

    @property
    def singular(self) -> str:
        """The noun's singular."""
        return self._noun.singular

    @property
    def plural(self) -> str:
        """The noun's plural."""
        return self._noun.plural

    @property
    def an(self) -> str:
        """The indefinite article that goes before the word."""
        return "an" if _sounds_like_vowel(self.low) else "a"

    @property
    def bare(self) -> str:
        """The word without its apostrophe."""
        return self.text.replace("'", "").replace("’", "")


def tokenised(text: str) -> Sequence[Token]:
    """The tokens of a text, with an empty one at either end."""
    spans = [span for chunk in _CHUNK.finditer(text) for span in _spans(text, chunk.start(), chunk.end())]
    tokens = [Token("", len(text), _EDGE)]
    asserted = True
    for word, start in reversed(spans):
        keys = _keys(word)
        if "START" in keys:
            asserted = word != "?"
        tokens.append(Token(word, start, keys | {"ASSERTED"} if asserted else keys))
    return [Token("", 0, _EDGE), *reversed(tokens)]


def _spans(text: str, start: int, end: int) -> list[tuple[str, int]]:
    """The tokens of a chunk, with where they begin; chunk by chunk, since a search for marks looks at all of one."""
    if _OPAQUE.search(text, start, end):
        return [(text[start:end], start)]
    return [(match.group(), match.start()) for match in _TOKEN.finditer(text, start, end)]


def _low(word: str) -> str:
    return word.lower().replace("’", "'")


@cache
def _keys(word: str) -> frozenset[str]:
    low = _low(word)
    return frozenset((low, *(name for name, words in CLASSES.items() if low in words), *_shapes(word, low)))


def _shapes(word: str, low: str) -> list[str]:
    """The classes that are told by how a word looks."""
    if word.isdigit():
        return ["NUMBER", "YEAR"] if len(word) == 4 and word[0] in "12" else ["NUMBER"]
    if not word[0].isalpha():
        return []
    shapes = ["WORD"]
    if word[0].isupper() and (word[1:].islower() or len(word) == 1):
        shapes.append("UPPER")
    if len(word) > 1 and not word.isupper() and word.isascii() and word.isalpha():
        vowel = _sounds_like_vowel(low)
        if vowel or low[0] != "h":
            shapes.append("VOWEL" if vowel else "CONSONANT")
    if low.endswith("n't") and len(low) > 3:
        shapes.append("NEGATED")
    return shapes


def _sounds_like_vowel(low: str) -> bool:
    if low.startswith(_SILENT_H):
        return True
    return low[0] in VOWELS and not low.startswith(_SOUNDS_LIKE_CONSONANT)
