"""Learner errors planted in any clean English text, where rules can tell that the result is wrong.

The generator of the embedded corpus knows every word's part of speech; here nothing is known but the words. So the
patterns of :mod:`~whetstone.data.grammar.free_rules` ask for contexts that leave no doubt, and a kind for which a
text holds none is left out.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from random import Random

from whetstone.data.grammar.errors import WEIGHTS
from whetstone.data.grammar.free_pattern import Rule, fitting_rules
from whetstone.data.grammar.free_spelling import free_misspellings
from whetstone.data.grammar.free_tokens import Token, tokenised
from whetstone.data.grammar.sentence import ERROR_KINDS, ErrorKind

__all__ = ["CorruptedText", "corrupt_text"]

# The kinds that fit almost any text must not crowd out those that seldom fit.
_WEIGHTS = {**WEIGHTS, "spelling": 0.3, "extra_word": 0.15, "punctuation": 0.15}
_LEFT_OUT = "_"
_MARGIN = 1
"""How many tokens beside an error a second error leaves alone, even where the pattern does not look at them."""


@dataclass(frozen=True, slots=True)
class CorruptedText:
    """A text with errors in it.

    Attributes:
        source: What the learner wrote.
        kinds: What was planted, in the order of the text.
    """

    source: str
    kinds: tuple[ErrorKind, ...]


@dataclass(frozen=True, slots=True)
class _Edit:
    """One way to go wrong.

    Attributes:
        kind: Which kind of error.
        pattern: The line of the table, or the word that is misspelled.
        start: The first character concerned.
        end: The end of the characters concerned.
        text: What is written for them.
        scope: The positions of tokens that a second error must leave alone.
    """

    kind: ErrorKind
    pattern: int | str
    start: int
    end: int
    text: str
    scope: range


def corrupt_text(text: str, rng: Random, errors: int) -> CorruptedText | None:
    """Plants errors of different kinds in a clean text.

    Args:
        text: The clean text: a sentence or several.
        rng: Decides which errors, where.
        errors: How many.

    Returns:
        The learner's text, or None where the text does not admit that many errors that keep out of each other's way.
    """
    found = _edits(text)
    chosen: list[_Edit] = []
    taken: set[int] = set()
    for kind in sorted(ERROR_KINDS, key=lambda kind: rng.random() ** (1 / _WEIGHTS[kind]), reverse=True):
        if len(chosen) == errors:
            break
        free = [edit for edit in found.get(kind, ()) if taken.isdisjoint(edit.scope)]
        if free:
            # The pattern first: otherwise a doubled word, which fits everywhere, would be nearly all there is.
            pattern = rng.choice(list(dict.fromkeys(edit.pattern for edit in free)))
            chosen.append(rng.choice([edit for edit in free if edit.pattern == pattern]))
            taken.update(chosen[-1].scope)
    if len(chosen) < errors:
        return None
    chosen.sort(key=lambda edit: edit.start)
    source = text
    for edit in reversed(chosen):
        source = source[: edit.start] + edit.text + source[edit.end :]
    return CorruptedText(source, tuple(edit.kind for edit in chosen))


def _edits(text: str) -> Mapping[ErrorKind, Sequence[_Edit]]:
    """Everything that may go wrong in a text, by kind."""
    tokens = tokenised(text)
    found: dict[ErrorKind, list[_Edit]] = {}
    for at, token in enumerate(tokens[1:-1], 1):
        for rule in fitting_rules(tokens, at):
            found.setdefault(rule.kind, []).extend(_planted(rule, text, tokens, at))
        scope = range(at - _MARGIN, at + _MARGIN + 1)
        for wrong in free_misspellings(token.text):
            edit = _Edit("spelling", token.text, token.start, token.end, wrong, scope)
            found.setdefault("spelling", []).append(edit)
    return found


def _planted(rule: Rule, text: str, tokens: Sequence[Token], at: int) -> Iterator[_Edit]:
    """What a rule that fits does to the text."""
    core = tokens[at : at + len(rule.core)]
    heir = tokens[at + len(core)]
    start, end = core[0].start, core[-1].end
    scope = range(at - max(len(rule.left), _MARGIN), at + len(core) + max(len(rule.right), _MARGIN))
    # A sentence keeps its capital, unless the capital is what goes wrong.
    first = "START" in tokens[at - 1].keys and core[0].text[:1].isupper() and rule.kind != "punctuation"
    shown = [core[0].lowered(), *core[1:]] if first else core
    for outcome in rule.outcomes:
        if outcome == _LEFT_OUT and first:
            yield _Edit(rule.kind, rule.place, start, heir.end, _capital(heir.text), scope)
        elif outcome == _LEFT_OUT:
            yield _Edit(rule.kind, rule.place, *_with_space(text, start, end), "", scope)
        else:
            written = outcome.format(*shown)
            written = _capital(written) if first else written
            if written != text[start:end]:
                yield _Edit(rule.kind, rule.place, start, end, written, scope)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _with_space(text: str, start: int, end: int) -> tuple[int, int]:
    """A span together with one of the spaces around it, so that leaving it out leaves one."""
    opened = start == 0 or text[start - 1].isspace()
    if opened and end < len(text) and text[end].isspace():
        return start, end + 1
    if opened and start > 0 and end == len(text):
        return start - 1, end
    return start, end
