"""A report as rules look at it: its passages, each with all that says what its numbers mean."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

from whetstone.audit.finding import Claim
from whetstone.audit.markdown import LINK, Report, Row, Section, Sentence
from whetstone.audit.numbers import Number, find_numbers
from whetstone.audit.words import NUMBERED

__all__ = ["Material", "Passage", "is_name"]

_QUOTED = 110
_MOST_NUMBERS = 60
"""Of one passage; what holds more is data, not a claim."""


@dataclass(frozen=True, slots=True)
class Passage:
    """A sentence or a cell, with all that says what its numbers mean.

    Attributes:
        text: What a reader sees.
        section: Where it stands.
        context: The text, and for a cell the heading of its column and the label of its row.
        beside: All that stands on the same row, or the sentence.
        sentence: Where it came from, to find lines; None for a cell.
        row: The row of a cell.
    """

    text: str
    section: Section
    context: str
    beside: str
    sentence: Sentence | None
    row: Row | None
    numbers: tuple[Number, ...]

    def claim(self, start: int, end: int) -> Claim:
        """What stands from one place to another, as a claim."""
        if self.row is not None:
            return Claim(self.row.line, _plain(self.text[start:end]), _excerpt(self.row.text, 0))
        line = self.sentence.line_at(start) if self.sentence else 0
        return Claim(line, _plain(self.text[start:end]), _excerpt(self.text, start))


@dataclass(frozen=True, slots=True)
class Material:
    """What rules look at: a report, and its passages."""

    report: Report
    passages: tuple[Passage, ...]

    @classmethod
    def of(cls, report: Report) -> Self:
        """Finds the passages of a report."""
        return cls(report, tuple(_passages(report)))


def _passages(report: Report) -> Iterator[Passage]:
    """All sentences and cells that hold a digit."""
    for section in report.sections:
        for sentence in section.sentences:
            if any(char.isdigit() for char in sentence.text):
                text = sentence.text
                yield Passage(text, section, text, text, sentence, None, find_numbers(text)[:_MOST_NUMBERS])
        for table in section.tables:
            headings = " | ".join(table.headings)
            for row in table.rows:
                beside = f"{headings} | {row.text}"
                for cell in row.cells:
                    if any(char.isdigit() for char in cell.text):
                        context = f"{cell.label} | {cell.heading} | {cell.text}"
                        numbers = find_numbers(cell.text)[:_MOST_NUMBERS]
                        yield Passage(cell.text, section, context, beside, None, row, numbers)


def is_name(text: str, start: int) -> bool:
    """Whether the word before a number makes a name of it, as in "phase 1"."""
    return NUMBERED.search(text, max(0, start - 20), start) is not None


def _plain(text: str) -> str:
    return text.replace(LINK, "").strip()


def _excerpt(text: str, start: int) -> str:
    """Up to 110 characters round a place."""
    text = text.replace(LINK, "")
    if len(text) <= _QUOTED:
        return text.strip()
    first = max(0, min(start - _QUOTED // 2, len(text) - _QUOTED))
    piece = text[first : first + _QUOTED].strip()
    return f"{'…' if first else ''}{piece}{'…' if first + _QUOTED < len(text) else ''}"
