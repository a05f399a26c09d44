"""How many items a report says that its evaluation had, where the rates themselves do not say it."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from whetstone.audit.markdown import Report, Section
from whetstone.audit.shares import stated_n
from whetstone.audit.words import ITEMS

__all__ = ["EvaluationSize", "EvaluationSizes"]

_EVALUATED = re.compile(
    r"(?<![a-z])(?:tested on|test set|evaluat(?:ed|ion)|validat(?:ed|ion)|benchmark(?:ed)?|held[\s-]out|judged|assessed"
    r"|representative)(?![a-z])|(?<![a-z])test\s[a-z]",
    re.IGNORECASE,
)
_TRAINED = re.compile(r"(?<![a-z])(?:train|split|learn)", re.IGNORECASE)
_LABELLED = re.compile(
    rf"(?<![a-z])(?:test|evaluation|eval|validation|held-out)\s(?:set\s)?(?:size|{ITEMS})\s?[:=|]\s?([0-9]{{1,3}}(?:,[0-9]{{3}}){{1,3}}|[0-9]{{1,9}})"
    r"(?![0-9.,/%])",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class EvaluationSize:
    """A number of items, and the line that states it."""

    n: int
    line: int


class EvaluationSizes:
    """The sizes stated in a report, looked up by section."""

    def __init__(self, report: Report) -> None:
        self._by_titles: dict[tuple[str, ...], list[EvaluationSize]] = {}
        self._all: list[EvaluationSize] = []
        for section in report.sections:
            found = list(_stated(section))
            self._by_titles.setdefault(section.titles, []).extend(found)
            self._all.extend(found)

    def of(self, section: Section) -> EvaluationSize | None:
        """The size that holds for a section: its own, else that of a section above, else the report's only one."""
        for depth in range(len(section.titles), 0, -1):
            found = self._by_titles.get(section.titles[:depth], [])
            if found:
                return _only(found)
        return _only(self._all)


def _only(found: list[EvaluationSize]) -> EvaluationSize | None:
    return found[0] if len({size.n for size in found}) == 1 else None


def _stated(section: Section) -> Iterator[EvaluationSize]:
    for sentence in section.sentences:
        labelled = _LABELLED.search(sentence.text)
        if labelled is not None:
            yield EvaluationSize(int(labelled[1].replace(",", "")), sentence.line_at(labelled.start()))
        elif _EVALUATED.search(sentence.text) and not _TRAINED.search(sentence.text):
            n = stated_n(sentence.text)
            if n is not None:
                yield EvaluationSize(n, sentence.line_at(0))
    for table in section.tables:
        for row in table.rows:
            labelled = _LABELLED.match(row.text)
            if labelled is not None:
                yield EvaluationSize(int(labelled[1].replace(",", "")), row.line)
