"""One fixed or broken sample as a reader sees it: what went in, what each arm did to it, what was acceptable."""

from dataclasses import dataclass
from typing import Literal

from whetstone.evaluate.sample import Sample
from whetstone.report.difference import Piece, similarity, word_difference
from whetstone.report.suite_summary import Change

__all__ = ["Answer", "ChangeView", "view_change"]

_ALIKE = 0.5
"""From this share of matching words on, an acceptable answer is taken to be the input with corrections."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A text as its difference from the text that the sample is measured against; no pieces when it is empty."""

    who: str
    pieces: tuple[Piece, ...]
    cut_off: bool = False


@dataclass(frozen=True, slots=True)
class ChangeView:
    """What is shown of one change.

    Attributes:
        example: The id.
        category: The example's label.
        kind: ``fixed`` or ``broken``.
        against: What all the differences are taken against.
        input: The bare text that went in.
        answers: Base, then tuned.
        references: Every acceptable answer, as its difference.
    """

    example: str
    category: str
    kind: Literal["fixed", "broken"]
    against: Literal["input", "nearest reference"]
    input: str
    answers: tuple[Answer, ...]
    references: tuple[tuple[Piece, ...], ...]


def view_change(change: Change, kind: Literal["fixed", "broken"]) -> ChangeView:
    """Chooses what to compare with: the input when the task edits it, else the reference nearest to the new answer."""
    example = change.example
    edits_input = similarity(example.source, example.references) >= _ALIKE
    nearest = max(example.references, key=lambda reference: similarity(change.candidate.text, [reference]))
    origin = example.source if edits_input else nearest
    return ChangeView(
        example=example.id,
        category=example.category,
        kind=kind,
        against="input" if edits_input else "nearest reference",
        input=example.source,
        answers=(_answer("Base", origin, change.baseline), _answer("Tuned", origin, change.candidate)),
        references=tuple(tuple(word_difference(origin, reference)) for reference in example.references),
    )


def _answer(who: str, origin: str, sample: Sample) -> Answer:
    pieces = tuple(word_difference(origin, sample.text)) if sample.text.strip() else ()
    return Answer(who, pieces, cut_off=sample.finish_reason == "length")
