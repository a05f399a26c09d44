"""What the columns of a table are to each other: before, after, the change, the target, the n."""

import re
from dataclasses import dataclass

from whetstone.audit.markdown import Cell, Row, Table
from whetstone.audit.numbers import find_numbers
from whetstone.audit.words import ITEMS

__all__ = ["Columns", "find_columns", "row_n"]

_BEFORE = re.compile(
    r"\b(?:before|base|baseline|original|untuned|pre-?(?:trained|tuning|training)|old|previous|vanilla|unoptimi[sz]ed)\b",
    re.IGNORECASE,
)
_AFTER = re.compile(
    r"\b(?:after|(?:fine-?\s?)?tuned|post-?(?:tuning|training)|new|ours|optimi[sz]ed|adapter|lora|qlora|final|achieved"
    r"|result|actual|current|measured)\b",
    re.IGNORECASE,
)
_CHANGE = re.compile(
    r"\b(?:improve\w{0,6}|change|speed-?\s?up|gain|reduction|saving|savings|increase|decrease|faster)\b|^(?:delta|Δ)\b",
    re.IGNORECASE,
)
_TARGET = re.compile(r"^(?:the |our )?(?:target|goal)(?: value)?$", re.IGNORECASE)
_N = re.compile(rf"^(?:n|#|(?:number of |test |# ?)?{ITEMS}|test size|support)$", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Columns:
    """The place of each column that has a part to play; None where there is none, or several."""

    before: int | None
    after: int | None
    change: int | None
    target: int | None

    def cell(self, row: Row, at: int | None) -> Cell | None:
        """A cell of a row, if the row is long enough."""
        return row.cells[at] if at is not None and at < len(row.cells) else None


def find_columns(table: Table) -> Columns:
    """Reads the headings."""
    change = _only(table, _CHANGE, None)
    target = _only(table, _TARGET, None)
    before = _only(table, _BEFORE, _AFTER)
    return Columns(before, _only(table, _AFTER, _BEFORE), change, target)


def row_n(row: Row) -> int | None:
    """How many items a row says that it is counted over, in a column of its own."""
    for cell in row.cells[1:]:
        if _N.match(cell.heading):
            numbers = find_numbers(cell.text)
            if len(numbers) == 1 and numbers[0].is_integer and numbers[0].value > 0:
                return int(numbers[0].value)
    return None


def _only(table: Table, wanted: re.Pattern[str], unwanted: re.Pattern[str] | None) -> int | None:
    """The one column after the first whose heading has a word; None where two have."""
    found = [
        at
        for at, heading in enumerate(table.headings)
        if at > 0 and wanted.search(heading) and not (unwanted and unwanted.search(heading))
    ]
    return found[0] if len(found) == 1 else None
