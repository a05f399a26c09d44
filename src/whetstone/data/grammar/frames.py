"""The table of sentence frames: what each is called, how hard it is, and what builds it.

A frame gives enough context (a time adverb, a number word, a determiner) that what is right is determinable.
"""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Literal

from whetstone.data.grammar import complex_frames as complicated
from whetstone.data.grammar import simple_frames as simple
from whetstone.data.grammar.sentence import Sentence
from whetstone.data.grammar.vocabulary import Theme

__all__ = ["FRAMES", "Builder", "Frame"]

Builder = Callable[[Theme, Random], Sentence]


@dataclass(frozen=True, slots=True)
class Frame:
    """One kind of sentence.

    Attributes:
        name: Its name in a cell.
        difficulty: 1 for one plain clause, 2 for a marked form, 3 for two clauses or a long dependency.
        build: Makes a clean sentence with its annotations.
    """

    name: str
    difficulty: Literal[1, 2, 3]
    build: Builder


BUILDERS: dict[Literal[1, 2, 3], tuple[Builder, ...]] = {
    1: (
        simple.present_singular, simple.present_plural, simple.past_simple, simple.present_continuous,
        simple.future_will, simple.going_to, simple.modal, simple.imperative, simple.there_be, simple.possessive,
    ),
    2: (
        simple.present_perfect, simple.perfect_duration, simple.negation_present, simple.negation_past,
        simple.yes_no_present, simple.yes_no_past, simple.what_question, simple.when_question, simple.how_many,
        simple.quantifier, complicated.comparative, complicated.equality, complicated.superlative,
        complicated.infinitive, complicated.verb_gerund, complicated.adjective_preposition,
    ),
    3: (
        complicated.enough, complicated.purpose, complicated.passive, complicated.because, complicated.when_clause,
        complicated.if_clause, complicated.relative, complicated.indirect_question, complicated.listing,
        complicated.tag_question,
    ),
}  # fmt: skip
FRAMES: tuple[Frame, ...] = tuple(
    Frame(build.__name__, difficulty, build) for difficulty, builders in BUILDERS.items() for build in builders
)
