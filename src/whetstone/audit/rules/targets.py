"""Shares of a target that stand where a comparison with the value before should stand."""

import re
from collections.abc import Iterator

from whetstone.audit.columns import Columns, find_columns
from whetstone.audit.finding import Check, Claim
from whetstone.audit.markdown import Row
from whetstone.audit.material import Material, Passage
from whetstone.audit.numbers import Number, find_numbers
from whetstone.audit.words import OF_TARGET, better_is_higher

__all__ = ["check_targets"]

_TARGET_VALUE = re.compile(r"(?:target|goal)\s?(?:of|is|was|:|=|\(|at)\s?$", re.IGNORECASE)
_BEFORE_VALUE = re.compile(
    r"(?:baseline|base model|base|before(?: tuning| training)?|previously|\(was|untuned|original(?:ly)?)"
    r"[\s:=(,]{1,3}(?:(?:of|at|was|scored|reached|had|model)\s){0,2}$",
    re.IGNORECASE,
)
_PRAISE = re.compile(
    r"✅|✓|✔|🎉|🟢|(?<![a-z])(?:achieved|met|reached|success\w{0,5}|excellent|on track|improve\w{0,6}|great|strong"
    r"|pass(?:ed)?)(?![a-z])",
    re.IGNORECASE,
)
_ADMITTED = re.compile(
    r"❌|✗|⚠|🔴|(?<![a-z])(?:regress\w{0,5}|worse|fail(?:ed|s)?|missed|dropped|fell|declined?"
    r"|no improvement|not (?:an? )?improve\w{0,4}|below (?:the )?base\w{0,4}|degraded|lower than)(?![a-z])",
    re.IGNORECASE,
)
_IMPROVED = re.compile(
    r"(?<![a-z])(?:improve(?:d|ment|ments|s)|better|gains?|outperform\w{0,4})(?![a-z])", re.IGNORECASE
)


def check_targets(material: Material) -> Iterator[Check]:
    """Judges rows with a target, a value before and a value after, and sentences with a share of a target."""
    for section in material.report.sections:
        for table in section.tables:
            columns = find_columns(table)
            if None not in (columns.target, columns.before, columns.after):
                for row in table.rows:
                    yield from _in_row(row, columns)
    for passage in material.passages:
        if passage.sentence is not None:
            yield from _in_sentence(passage)


def _in_row(row: Row, columns: Columns) -> Iterator[Check]:
    cells = [columns.cell(row, at) for at in (columns.target, columns.before, columns.after)]
    numbers = [find_numbers(cell.text) if cell else () for cell in cells]
    if any(len(found) != 1 for found in numbers):
        return
    target, before, after = (found[0] for found in numbers)
    places = (0, columns.target, columns.before, columns.after)
    others = " ".join(cell.text for at, cell in enumerate(row.cells) if at not in places)
    if not before.unit == after.unit == target.unit or _ADMITTED.search(others):
        return
    praised = _PRAISE.search(others) is not None or any(
        _is_share_of(target, after, found) for found in find_numbers(others)
    )
    if praised:
        yield _judged(Claim(row.line, after.text, row.text[:160]), row.cells[0].text, target, before, after)


def _in_sentence(passage: Passage) -> Iterator[Check]:
    text = passage.text
    shares = [number for number in passage.numbers if number.unit == "%" and OF_TARGET.match(text, number.end)]
    if len(shares) != 1 or _ADMITTED.search(text):
        return
    share = shares[0]
    claim = passage.claim(share.start, share.end)
    others = [number for number in passage.numbers if number is not share]
    targets = [number for number in others if _TARGET_VALUE.search(text, 0, number.start)]
    befores = [number for number in others if _BEFORE_VALUE.search(text, max(0, number.start - 40), number.start)]
    afters = [number for number in others if number not in targets and number not in befores]
    if len(targets) == len(befores) == 1:
        fitting = [number for number in afters if _is_share_of(targets[0], number, share)]
        if len(fitting) == 1 and fitting[0].unit == befores[0].unit:
            yield _judged(claim, text, targets[0], befores[0], fitting[0])
    elif not befores and _IMPROVED.search(text, max(0, share.start - 40), share.end + 60):
        yield Check.failed(
            "target-hides-regression",
            "unsupported",
            claim,
            f"{share.text} of a target says nothing of an improvement: the value before is not given",
            "give the value before and the value after",
        )


def _is_share_of(target: Number, after: Number, share: Number) -> bool:
    """Whether a percentage is the value after in terms of the target, either way up."""
    if share.unit != "%" or target.value <= 0 or after.value <= 0:
        return False
    ratios = (after.value / target.value, target.value / after.value)
    return any(share.admits(99.5 * ratio, 100.5 * ratio) for ratio in ratios)


def _judged(claim: Claim, measure: str, target: Number, before: Number, after: Number) -> Check:
    """Better is what the measure says, else the way from the value before to the target."""
    higher = better_is_higher(measure)
    if higher is None:
        higher = target.value > before.value
    worse = after.high < before.low if higher else after.low > before.high
    if not worse:
        return Check(claim)
    return Check.failed(
        "target-hides-regression",
        "contradicted",
        claim,
        f"{after.text} is worse than the {before.text} before, whatever share of the target {target.text} it is",
        f"say that it went from {before.text} to {after.text}",
    )
