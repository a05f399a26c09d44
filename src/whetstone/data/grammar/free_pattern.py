"""The lines of :mod:`~whetstone.data.grammar.free_rules`, read and matched with the tokens of a text."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from whetstone.data.grammar.free_rules import CUES, RULES
from whetstone.data.grammar.free_tokens import Token
from whetstone.data.grammar.sentence import ErrorKind

__all__ = ["Rule", "fitting_rules", "read_rule"]

_LINE = re.compile(r"(?P<left>.*?)\[(?P<core>.+)\](?P<right>.*?) -> (?P<outcomes>.+)")
_CUE_SIGNS = "-~+"
_LONGEST_SENTENCE_TOKENS = 100
"""Where nothing ends a sentence for longer, cues cannot be trusted, and looking for them takes time."""


@dataclass(frozen=True, slots=True)
class _Element:
    """One position of a pattern: a token with one of these keys, or (``negated``) with none of them."""

    keys: frozenset[str]
    negated: bool

    def fits(self, token: Token) -> bool:
        return self.keys.isdisjoint(token.keys) == self.negated


@dataclass(frozen=True, slots=True, eq=False)
class Rule:
    """One line of the table.

    Attributes:
        kind: The error that it plants.
        place: Its number; candidates are listed in this order.
        left: What stands before the core.
        core: What is written otherwise.
        right: What stands after the core.
        outcomes: How the core may be written, as format strings.
        never: What must not stand earlier in the sentence.
        before: What must stand earlier in the sentence.
        later: What must stand later in the clause.
    """

    kind: ErrorKind
    place: int
    left: tuple[_Element, ...]
    core: tuple[_Element, ...]
    right: tuple[_Element, ...]
    outcomes: tuple[str, ...]
    never: re.Pattern[str] | None
    before: re.Pattern[str] | None
    later: re.Pattern[str] | None

    def fits(self, tokens: Sequence[Token], at: int) -> bool:
        """Whether the pattern fits with its core at a position; a text begins and ends with an empty token."""
        elements = (*self.left, *self.core, *self.right)
        first = at - len(self.left)
        if first < 0 or first + len(elements) > len(tokens):
            return False
        around = tokens[first : first + len(elements)]
        if not all(element.fits(token) for element, token in zip(elements, around, strict=True)):
            return False
        if self.never or self.before:
            earlier = _earlier(tokens, at)
            if earlier is None or (self.never and self.never.search(earlier)):
                return False
            if self.before and not self.before.search(earlier):
                return False
        return not self.later or self.later.search(_later(tokens, at + len(self.core))) is not None


def fitting_rules(tokens: Sequence[Token], at: int) -> Iterable[Rule]:
    """The rules that fit at a position, in the order of the table."""
    rules = {rule for key in tokens[at].keys for rule in _rules_by_key().get(key, ())}
    return sorted((rule for rule in rules if rule.fits(tokens, at)), key=lambda rule: rule.place)


@cache
def _rules_by_key() -> Mapping[str, Sequence[Rule]]:
    """The table, by the keys of the first token of a core."""
    index: dict[str, list[Rule]] = {}
    lines = [(kind, line) for kind, table in RULES.items() for line in table.strip().splitlines()]
    for place, (kind, line) in enumerate(lines):
        rule = read_rule(kind, place, line)
        for key in rule.core[0].keys:
            index.setdefault(key, []).append(rule)
    return index


def read_rule(kind: ErrorKind, place: int, line: str) -> Rule:
    """Reads one line of the table.

    Raises:
        ValueError: It does not have the form of a rule.
    """
    parts = _LINE.fullmatch(line)
    if parts is None:
        raise ValueError(f"not a rule: {line}")
    cues: dict[str, re.Pattern[str]] = {}
    sides: dict[str, tuple[_Element, ...]] = {}
    for side in ("left", "core", "right"):
        words = parts[side].split()
        cues |= {word[0]: _cue(word[1:]) for word in words if word[0] in _CUE_SIGNS}
        sides[side] = tuple(_element(word) for word in words if word[0] not in _CUE_SIGNS)
    never, before, later = (cues.get(sign) for sign in _CUE_SIGNS)
    outcomes = tuple(parts["outcomes"].split(" | "))
    return Rule(kind, place, sides["left"], sides["core"], sides["right"], outcomes, never, before, later)


def _cue(name: str) -> re.Pattern[str]:
    return re.compile(rf"(?<!\S)(?:{CUES[name]})(?!\S)")


def _element(word: str) -> _Element:
    negated = len(word) > 1 and word.startswith("!")
    return _Element(frozenset(word[negated:].split("/")), negated)


def _earlier(tokens: Sequence[Token], at: int) -> str | None:
    """The words of a sentence before a position; None where it is too long to be one."""
    start = at
    while "START" not in tokens[start - 1].keys:
        start -= 1
        if at - start > _LONGEST_SENTENCE_TOKENS:
            return None
    return " ".join(token.low for token in tokens[start:at])


def _later(tokens: Sequence[Token], at: int) -> str:
    """The words of a clause from a position on."""
    end = at
    last = min(at + _LONGEST_SENTENCE_TOKENS, len(tokens))
    while end < last and "CLAUSE" not in tokens[end].keys:
        end += 1
    return " ".join(token.low for token in tokens[at:end])
