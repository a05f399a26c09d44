"""Changes of nothing: "42 % better" where no two numbers of the report give it, or are there at all."""

import re
from collections.abc import Iterator, Sequence
from itertools import combinations

from whetstone.audit.columns import find_columns
from whetstone.audit.finding import Check, Claim
from whetstone.audit.markdown import Cell, Row, Section, Table
from whetstone.audit.material import Material, Passage
from whetstone.audit.numbers import Number, find_numbers
from whetstone.audit.pairs import Change, find_changes, find_pairs, same_kind
from whetstone.audit.readings import Readings
from whetstone.audit.words import CITED, HYPOTHETICAL, INTERVAL, ITEMS, OF_TARGET, SETTING, says

__all__ = ["check_bases"]

_OF_SETTINGS = re.compile(
    r"(?:learning rate|epochs?|batch|rank|context|steps?|data|examples|samples|training set|corpus|layers|heads|model)"
    r"(?![a-z])",
    re.IGNORECASE,
)
_COUNTS = re.compile(
    rf"^(?:#|n|no\.|number of|count|groups|rows|(?:train\w{{0,3}}|test|total)?\s?{ITEMS})(?![a-z])", re.IGNORECASE
)
_TOTAL = re.compile(r"(?:grand )?total(?![a-z])|sum(?![a-z])", re.IGNORECASE)
_BASED = re.compile(
    r"[0-9][^;|]{0,25}(?:→|\sto\s|\svs\.?\s|\sversus\s|\sagainst\s|\sinstead\sof\s|\scompared\s|\sand\s)[^;|]{0,25}[0-9]",
    re.IGNORECASE,
)
"""Two values that are joined, even if they are none that can be divided."""

_WIDEST = 150
"""Characters between a change and the values that it may come from."""

_LOOSE = re.compile(r"(?:more|larger|longer|greater)$", re.IGNORECASE)
"""Words that compare anything with anything."""

_MOST_NUMBERS = 12
_NEIGHBOURS = 6
"""How many passages in a row count as beside each other, wherever in the report they stand."""


def check_bases(material: Material) -> Iterator[Check]:
    """Judges changes for which the report has no base, measure or count that they could come from."""
    everywhere = _plausible(material)
    near = _Near(material)
    in_rows: set[int] = set()
    for section in material.report.sections:
        for table in section.tables:
            columns = find_columns(table)
            if columns.change is not None and not _is_wished(section, ""):
                for row in table.rows:
                    in_rows.add(id(row))
                    yield from _in_row(table, row, columns.change, section, near, everywhere)
    for passage in material.passages:
        if passage.row is not None and id(passage.row) in in_rows:
            continue
        for change in find_changes(passage):
            if _is_own_result(passage, change):
                claim = passage.claim(change.number.start, change.end)
                yield _judged(claim, change.number, passage.section, near, everywhere)


def _in_row(table: Table, row: Row, at: int, section: Section, near: "_Near", everywhere: Readings) -> Iterator[Check]:
    """A change in its column; where the cells beside it are words alone, nothing elsewhere can be its base."""
    if (
        at >= len(row.cells)
        or says(INTERVAL, row.text)
        or says(CITED, row.text)
        or says(HYPOTHETICAL, row.cells[0].text)
    ):
        return
    claimed = [number for number in find_numbers(row.cells[at].text) if number.unit in ("%", "x")]
    if len(claimed) != 1 or claimed[0].top != claimed[0].value or claimed[0].value == (claimed[0].unit == "x"):
        return
    number = claimed[0]
    claim = Claim(row.line, number.text, row.text[:160])
    beside = [cell for place, cell in enumerate(row.cells) if place not in (0, at)]
    if len(beside) >= 2 and not any(char.isdigit() for cell in beside for char in cell.text):
        yield _of_nothing(claim, number, "the cells that it should be computed from hold no number")
    else:
        yield _judged(claim, number, section, near, everywhere)


def _judged(claim: Claim, number: Number, section: Section, near: "_Near", everywhere: Readings) -> Check:
    if near.give(section, number) or everywhere.give(number):
        return Check(claim)
    return _of_nothing(claim, number, "no two numbers of its section, and no pair in a row or list elsewhere, give it")


def _of_nothing(claim: Claim, number: Number, why: str) -> Check:
    return Check.failed(
        "change-of-nothing",
        "unsupported",
        claim,
        f"{number.text} of what? {why}",
        "give the measure, the value before, the value after and the n; or leave the number out",
    )


def _is_own_result(passage: Passage, change: Change) -> bool:
    """Whether a change is said to have happened here: no wish, no setting, and nobody else's."""
    text = passage.text
    around = text[max(0, change.start - 40) : change.end + 40]
    return (
        change.number.top == change.number.value
        and change.number.value > 0
        and (change.number.unit, change.number.value) != ("x", 1)
        and _BASED.search(text[max(0, change.start - _WIDEST) : change.start]) is None
        and _BASED.search(text[change.end : change.end + _WIDEST]) is None
        and _LOOSE.search(text[change.start : change.end]) is None
        and not _is_wished(passage.section, passage.beside)
        and not says(CITED, passage.beside)
        and not says(INTERVAL, passage.beside)
        and not says(SETTING, around)
        and _OF_SETTINGS.match(text[change.end :].lstrip()) is None
    )


def _is_wished(section: Section, text: str) -> bool:
    return says(HYPOTHETICAL, section.title) or says(HYPOTHETICAL, text)


class _Near:
    """What the numbers of each section give, computed when it is asked for."""

    def __init__(self, material: Material) -> None:
        self._passages: dict[int, list[Passage]] = {}
        for passage in material.passages:
            self._passages.setdefault(id(passage.section), []).append(passage)
        self._readings: dict[int, tuple[Readings, Readings]] = {}

    def give(self, section: Section, number: Number) -> bool:
        """Whether any two numbers of a section give a change."""
        if id(section) not in self._readings:
            found = self._passages.get(id(section), [])
            numbers = [one for passage in found for one in _not_changes(passage)]
            pairs = [(pair.before, pair.after) for passage in found for pair in find_pairs(passage)]
            self._readings[id(section)] = Readings.among(numbers), Readings(pairs)
        return any(one.give(number) for one in self._readings[id(section)])


def _not_changes(passage: Passage) -> list[Number]:
    """What a change can be computed from: no ratios, and no changes."""
    changes = {change.number.start for change in find_changes(passage)}
    return [number for number in _measured(passage.text, passage.numbers) if number.start not in changes]


def _plausible(material: Material) -> Readings:
    """Of the pairs that belong together: in a sentence, a row, a column, or a few neighbouring sentences.

    Numbers without a unit belong together only where words, a row or a column join them.
    """
    pairs = [(pair.before, pair.after) for passage in material.passages for pair in find_pairs(passage)]
    for section in material.report.sections:
        for table in section.tables:
            pairs += _of_table(table)
    window: list[tuple[Section, list[Number]]] = []
    for passage in material.passages:
        if passage.sentence is not None:
            numbers = _not_changes(passage)[:_MOST_NUMBERS]
            earlier = [number for section, found in window if section is passage.section for number in found]
            pairs += [(one, other) for one in earlier for other in numbers if one.unit and same_kind(one, other)]
            pairs += [(one, other) for one, other in combinations(numbers, 2) if one.unit and same_kind(one, other)]
            window = [*window[1 - _NEIGHBOURS :], (passage.section, numbers)]
    return Readings(pairs)


def _of_table(table: Table) -> list[tuple[Number, Number]]:
    """Of one row, or of one column within a few rows of each other."""
    pairs: list[tuple[Number, Number]] = []
    grid = [[_values(cell) for cell in row.cells] for row in table.rows]
    for at, cells in enumerate(grid):
        flat = [number for cell in cells for number in cell][:_MOST_NUMBERS]
        pairs += [(one, other) for one, other in combinations(flat, 2) if same_kind(one, other)]
        for below in grid[at + 1 : at + _NEIGHBOURS]:
            for upper, lower in zip(cells, below, strict=False):
                # Rows of a table of settings are different things.
                joined = [(one, other) for one in upper for other in lower if same_kind(one, other)]
                pairs += [(one, other) for one, other in joined if one.unit or len(cells) > 2]
    return pairs


def _values(cell: Cell) -> list[Number]:
    """The values in a cell; how many examples there are is no measure of a model."""
    if _COUNTS.search(cell.heading) or _TOTAL.match(cell.label):
        return []
    return [number for number in _measured(cell.text, find_numbers(cell.text)) if not number.sign][:3]


def _measured(text: str, numbers: Sequence[Number]) -> list[Number]:
    """Without ratios and shares of targets, which are changes already."""
    return [number for number in numbers if number.unit != "x" and not OF_TARGET.match(text, number.end)]
