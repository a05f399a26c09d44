"""Speed-ups, savings and improvements that are not what their own two values give.

Every honest reading is allowed (:func:`whetstone.audit.readings.readings`), every rounding, and every other pair of
values of the same sentence or row: a change is contradicted only when nothing beside it gives it.
"""

import re
from collections.abc import Iterator, Sequence
from itertools import combinations

from whetstone.audit.columns import Columns, find_columns
from whetstone.audit.finding import Check, Claim
from whetstone.audit.markdown import Cell, Row, Section
from whetstone.audit.material import Material, Passage
from whetstone.audit.numbers import Number, find_numbers
from whetstone.audit.pairs import Change, Direction, Pair, find_changes, find_pairs
from whetstone.audit.readings import Readings, readings
from whetstone.audit.words import better_is_higher

__all__ = ["check_changes"]

_FILLER = re.compile(
    r"[\s(\[:,;=–—~≈-]{0,6}"
    r"(?:(?:a|an|the|about|around|roughly|nearly|almost|i\.e\.|that is|which is|is|or|by|giving|meaning|for|of|making"
    r"|representing|from|now|it|this|thus|so|hence|→|training|inference|time|times|speed|taking|runs?|running|in|at|to"
    r"|improvement|with|went|going|dropping|dropped|falling|fell|rising|rose)[\s:,]{1,2}){0,5}"
    r"[\s(\[:,;=–—~≈+-]{0,4}",
    re.IGNORECASE,
)
"""May stand between two values and the change from one to the other, and mean nothing else."""

_ELSEWHERE = re.compile(r"\s(?!than|overall|relative)[a-z]", re.IGNORECASE)
_FAULT = 1e-9


def check_changes(material: Material) -> Iterator[Check]:
    """Judges changes that stand beside their two values, in sentences and in rows of tables."""
    for passage in material.passages:
        if passage.sentence is not None:
            yield from _in_sentence(passage)
    for section in material.report.sections:
        for table in section.tables:
            columns = find_columns(table)
            if None not in (columns.before, columns.after, columns.change):
                for row in table.rows:
                    yield from _in_row(section, row, columns)


def _in_sentence(passage: Passage) -> Iterator[Check]:
    pairs = [pair for pair in find_pairs(passage) if pair.before.top == pair.before.value]
    for change in find_changes(passage):
        if change.number.top != change.number.value:
            continue
        linked = [pair for pair in pairs if _belongs(passage.text, pair, change)]
        if len(linked) != 1:
            continue
        pair = linked[0]
        claim = passage.claim(change.number.start, change.end)
        others = [number for number in passage.numbers if number is not change.number]
        wrong_way = _wrong_way(change.direction, pair, passage.text)
        if wrong_way is not None:
            yield _misdirected(claim, pair, wrong_way)
        elif _gives(pair.before, pair.after, change.number) or _among(others, change.number):
            yield Check(claim)
        else:
            yield _contradicted(claim, pair.before, pair.after, change.number)


def _belongs(text: str, pair: Pair, change: Change) -> bool:
    """Whether nothing but filler stands between a pair and a change."""
    if pair.start <= change.number.start < pair.end:
        return False
    first_end, second_start = (pair.end, change.start) if pair.end <= change.start else (change.end, pair.start)
    # "4K to 32K is 64 times the work in attention": the work is another measure.
    if pair.before.unit == "" and _ELSEWHERE.match(text, change.end):
        return False
    return first_end <= second_start and _FILLER.fullmatch(text, first_end, second_start) is not None


def _in_row(section: Section, row: Row, columns: Columns) -> Iterator[Check]:
    cells = [columns.cell(row, at) for at in (columns.before, columns.after, columns.change)]
    before, after, change = (find_numbers(cell.text) if cell else () for cell in cells)
    claimed = [number for number in change if number.unit in ("%", "x")]
    shown = cells[2]
    if shown is None or len(claimed) != 1 or not 1 <= len(before) <= 2 or not 1 <= len(after) <= 2:
        return
    number = claimed[0]
    claim = Claim(row.line, number.text, row.text[:160])
    pair = Pair(before[0], after[0], 0, 0, ordered=True)
    if before[0].unit != after[0].unit or before[0].top != before[0].value or after[0].top != after[0].value:
        return
    wrong_way = _wrong_way(_direction(shown, number), pair, row.cells[0].text)
    everything = [*before, *after, *(other for other in change if other is not number)]
    if wrong_way is not None:
        yield _misdirected(claim, pair, wrong_way)
    elif _gives(before[0], after[0], number) or _among(everything, number):
        yield Check(claim)
    else:
        yield _contradicted(claim, before[0], after[0], number)


def _direction(cell: Cell, number: Number) -> Direction:
    """What a cell of a change column says; a minus sign or an arrow down may mean anything but better."""
    text = f"{cell.heading} {cell.text}".lower()
    if "slower" in cell.text.lower() or "↓" in cell.text or "⬇" in cell.text or number.sign == "-":
        return ""
    if re.search(r"speed-?\s?up|faster", text):
        return "faster" if number.unit == "%" or number.value >= 1 else ""
    if number.unit == "%" and number.value > 0 and re.search(r"improve|gain", text):
        return "better"
    return ""


def _wrong_way(direction: Direction, pair: Pair, measure: str) -> str | None:
    """What is wrong with a direction, in words; None where nothing is, or the words do not say."""
    before, after = pair.before, pair.after
    if not pair.ordered or before.unit != after.unit:
        return None
    rose, fell = after.low > before.high + _FAULT, after.high < before.low - _FAULT
    if not rose and not fell:
        return None
    higher_is_faster = {"s": False, "/s": True}.get(before.unit)
    higher_is_better = higher_is_faster if higher_is_faster is not None else better_is_higher(measure)
    went = "rose" if rose else "fell"
    verdicts: dict[Direction, tuple[bool | None, bool]] = {
        "up": (True, rose),
        "down": (True, fell),
        "faster": (higher_is_faster, rose if higher_is_faster else fell),
        "slower": (higher_is_faster, fell if higher_is_faster else rose),
        "better": (higher_is_better, rose if higher_is_better else fell),
        "worse": (higher_is_better, fell if higher_is_better else rose),
    }
    known, right = verdicts.get(direction, (None, True))
    if known is None or right:
        return None
    words = {"up": "an increase", "down": "a reduction"}.get(direction, direction)
    return f"it {went} from {before.text} to {after.text}, which is not {words}"


def _gives(before: Number, after: Number, claimed: Number) -> bool:
    if before.unit != after.unit:
        return False
    spans = readings(before, after)
    return any(claimed.admits(*span) for name, span in spans.items() if name[-1] == claimed.unit)


def _among(numbers: Sequence[Number], claimed: Number) -> bool:
    """Whether any two other numbers give the change; also a part of a whole that several numbers share."""
    return (
        Readings.among(numbers).give(claimed)
        if len(numbers) > 2
        else any(_gives(one, other, claimed) for one, other in combinations(numbers, 2))
    )


def _misdirected(claim: Claim, pair: Pair, wrong: str) -> Check:
    return Check.failed(
        "wrong-direction",
        "contradicted",
        claim,
        wrong,
        f"say which way it went: {pair.before.text} before, {pair.after.text} after",
    )


def _contradicted(claim: Claim, before: Number, after: Number, number: Number) -> Check:
    a, b = before.value, after.value
    if a == 0 or b == 0:
        given = f"{before.text} and {after.text} give no ratio"
        mend = "give the difference; nothing can be divided by zero"
    elif number.unit == "x":
        given = f"{before.text} to {after.text} is {max(a, b) / min(a, b):.3g}x, not {number.text}"
        mend = f"write {max(a, b) / min(a, b):.3g}x, or correct the values"
    else:
        points = f", a difference of {abs(b - a):.3g} points" if before.unit == "%" else ""
        given = (
            f"{before.text} to {after.text} is {100 * (b - a) / a:+.3g} % of the first, "
            f"{100 * (a - b) / b:+.3g} % of the second{points}; not {number.text}"
        )
        mend = f"write {100 * (b - a) / a:+.3g} %, or correct the values"
    return Check.failed("change-against-values", "contradicted", claim, given, mend)
