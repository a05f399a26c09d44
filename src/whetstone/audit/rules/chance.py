"""Rates over so few items that they say little, and differences that such rates cannot show.

Intervals are Wilson's (1927, JASA 22, 209-212). Two rates are compared by Newcombe's hybrid interval (1998, Statistics
in Medicine 17, 873-890) and Fisher's exact test. A report that shows its own interval or p-value is left alone.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from scipy.stats import fisher_exact
from statsmodels.stats.proportion import confint_proportions_2indep, proportion_confint

from whetstone.audit.columns import Columns, find_columns
from whetstone.audit.finding import Check, Claim
from whetstone.audit.markdown import Row
from whetstone.audit.material import Material, Passage
from whetstone.audit.pairs import joined
from whetstone.audit.rules.rates import is_share, possible_counts
from whetstone.audit.shares import Rate, find_rates
from whetstone.audit.sizes import EvaluationSize, EvaluationSizes
from whetstone.audit.words import HYPOTHETICAL, INTERVAL, ITEMS, says

__all__ = ["check_chance"]

_SIGNIFICANT = 0.05

_NOT_SAMPLED = re.compile(
    r"(?<![a-z])(?:tests|unit tests?|test cases?|test suites?|pytest|checks?|files?|models|modules?|tasks|phases?"
    r"|steps?|layers?|endpoints?|criteria|gates?|issues?|cores?|gpus?|commits?|requirements?|features?|deliverables?"
    r"|sprints?|pages?|trainings?|runs?|builds?|components?|services?|deployments?|blocks?|scripts?|functions?|lines?"
    r"|coverage|checklist|ratings?|stars?|grade|mfu|parameters?|classes|categories|integrations?|migrations?)(?![a-z])",
    re.IGNORECASE,
)
"""Counts of these are complete: there is no larger whole that they were drawn from."""

_SAMPLED = re.compile(
    r"(?<![a-z])(?:accuracy|exact[\s-]match(?:es)?|correct(?:ly)?|pass@1|empty|refus(?:al|als|ed)|hallucinat\w{0,5}|answered"
    r"|solved?|win[\s-]rate|wins|won|preferred|error\srate|task\scompletion|valid\s(?:json|outputs?|answers?))(?![a-z])",
    re.IGNORECASE,
)
"""What is found out of samples."""

_NAMES_VALUE = r"(?:\srate|\sscore)?\s?(?:of|is|was|:|=|at|reached|to)?\s?$"

_HEDGED = re.compile(
    r"not significant|noise|no evidence|inconclusive|by chance|too few|too small|small sample|cannot (?:tell|show|say)"
    r"|only [0-9]|anecdot|indicative|tentative|preliminary",
    re.IGNORECASE,
)
_ITEM = re.compile(rf"\s{{0,2}}(?:[a-z][\w-]{{1,20}}\s){{0,2}}{ITEMS}(?![a-z])", re.IGNORECASE)
_BRACKETED = re.compile(r"\s?\([^()]{0,24}\)")


@dataclass(frozen=True, slots=True)
class _Counted:
    """A rate whose count and n are known; ``size`` where the n stands elsewhere in the report."""

    rate: Rate
    k: int
    n: int
    size: EvaluationSize | None

    @property
    def hedged(self) -> bool:
        """Whether the report itself says how sure it is."""
        beside = self.rate.passage.beside
        return says(INTERVAL, beside) or says(_HEDGED, beside)

    @property
    def share(self) -> float:
        """From 0 to 1."""
        return self.k / self.n

    @property
    def said(self) -> str:
        """The count, and where its n stands if not here."""
        source = f" (the {self.n} of line {self.size.line})" if self.size else ""
        return f"{self.k}/{self.n}{source}"


def check_chance(material: Material, widest: float) -> Iterator[Check]:
    """Judges rates of samples, and differences of two of them.

    Args:
        material: The report.
        widest: Width in percentage points of the widest 95 % interval that a rate may have without showing it.
    """
    sizes = EvaluationSizes(material.report)
    compared: set[Claim] = set()
    rates: list[_Counted] = []
    for passage in material.passages:
        counted = [found for rate in find_rates(passage) if (found := _counted(rate, sizes)) is not None]
        rates.extend(counted)
        for before, after in _neighbours(passage, counted):
            yield from _compare(before, after, compared)
    by_row: dict[int, list[_Counted]] = {}
    for found in rates:
        if found.rate.passage.row is not None:
            by_row.setdefault(id(found.rate.passage.row), []).append(found)
    for section in material.report.sections:
        for table in section.tables:
            columns = find_columns(table)
            for row in table.rows:
                for before, after in _in_row(columns, row, by_row.get(id(row), [])):
                    yield from _compare(before, after, compared)
    yield from _wide(rates, widest, compared)


def _counted(rate: Rate, sizes: EvaluationSizes) -> _Counted | None:
    """The count of a rate of sampled items; None of what is no such rate."""
    passage = rate.passage
    if _NOT_SAMPLED.search(_around(rate)) or says(HYPOTHETICAL, passage.context):
        return None
    size = None
    n = rate.n
    is_sampled = _SAMPLED.search(passage.context) is not None
    if n is None and _is_named(rate) and is_share(rate):
        size = sizes.of(passage.section)
        n = size.n if size else None
    if n is None or not is_share(rate):
        return None
    if rate.fraction is not None:
        end = max(rate.fraction.end, rate.percent.end if rate.percent else 0)
        is_sampled = is_sampled or _ITEM.match(passage.text, end) is not None
        return _Counted(rate, rate.fraction.k, n, None) if is_sampled else None
    counts = possible_counts(rate.percent, n) if rate.percent else []
    return _Counted(rate, counts[len(counts) // 2], n, size) if counts and (is_sampled or rate.direct) else None


def _is_named(rate: Rate) -> bool:
    """Whether a percentage without an n stands at the name of what is found out of samples."""
    passage, percent = rate.passage, rate.percent
    if percent is None or percent.bound:
        return False
    if passage.row is not None:
        return _SAMPLED.search(passage.context) is not None
    behind = _SAMPLED.match(passage.text[percent.end : percent.end + 40].lstrip())
    ahead = passage.text[max(0, percent.start - 40) : percent.start]
    return behind is not None or re.search(f"{_SAMPLED.pattern}{_NAMES_VALUE}", ahead, re.IGNORECASE) is not None


def _around(rate: Rate) -> str:
    """The words that may say what was counted."""
    passage = rate.passage
    if passage.row is not None:
        return f"{passage.row.cells[0].text} | {passage.text}"
    start, end = _span(rate)
    return passage.text[max(0, start - 40) : end + 40]


def _wide(rates: Sequence[_Counted], widest: float, compared: set[Claim]) -> Iterator[Check]:
    """One finding for each count that is shown nowhere with an interval."""
    seen = {(found.k, found.n) for found in rates if found.hedged}
    for found in rates:
        claim = found.rate.claim
        low, high = proportion_confint(found.k, found.n, method="wilson")
        if found.hedged or 100 * (high - low) <= widest:
            yield Check(claim)
        elif (found.k, found.n) not in seen and claim not in compared:
            seen.add((found.k, found.n))
            yield Check.failed(
                "wide-interval",
                "weak",
                claim,
                f"{found.said} = {100 * found.k / found.n:.3g} %: 95 % interval {100 * low:.0f}-{100 * high:.0f} %",
                "print the interval beside the rate, or measure on more items",
            )


def _neighbours(passage: Passage, counted: Sequence[_Counted]) -> Iterator[tuple[_Counted, _Counted]]:
    """Rates of a sentence that words or an arrow join."""
    for first, second in pairwise(counted):
        (start, end), (next_start, _) = _span(first.rate), _span(second.rate)
        tail = _BRACKETED.match(passage.text, end)
        joint = joined(passage.text, start, tail.end() if tail else end, next_start)
        if joint is not None:
            yield (second, first) if joint.order == "reversed" else (first, second)


def _span(rate: Rate) -> tuple[int, int]:
    spans = [(part.start, part.end) for part in (rate.percent, rate.fraction) if part is not None]
    return min(start for start, _ in spans), max(end for _, end in spans)


def _in_row(columns: Columns, row: Row, counted: Sequence[_Counted]) -> Iterator[tuple[_Counted, _Counted]]:
    """The rates before and after of a row."""
    before, after = columns.cell(row, columns.before), columns.cell(row, columns.after)
    if before is None or after is None:
        return
    of_before = [found for found in counted if found.rate.passage.text == before.text and _heads(found, before.heading)]
    of_after = [found for found in counted if found.rate.passage.text == after.text and _heads(found, after.heading)]
    if len(of_before) == len(of_after) == 1:
        yield of_before[0], of_after[0]


def _heads(found: _Counted, heading: str) -> bool:
    return f" | {heading} | " in found.rate.passage.context


def _compare(before: _Counted, after: _Counted, compared: set[Claim]) -> Iterator[Check]:
    if before.hedged or after.hedged or before.k * after.n == after.k * before.n:
        return
    claim = after.rate.claim
    table = np.array([[before.k, before.n - before.k], [after.k, after.n - after.k]])
    p = float(fisher_exact(table).pvalue)
    low, high = confint_proportions_2indep(after.k, after.n, before.k, before.n, method="newcomb")
    if p <= _SIGNIFICANT or not low <= 0 <= high:
        yield Check(claim)
        return
    compared.update((claim, before.rate.claim))
    yield Check.failed(
        "not-beyond-chance",
        "weak",
        claim,
        f"{before.said} against {after.said}: difference {100 * (after.share - before.share):+.0f} points, "
        f"95 % interval {100 * low:+.0f} to {100 * high:+.0f} (Newcombe), p = {p:.2g} (Fisher)",
        "print the interval of the difference (for paired answers the flips and McNemar's p), or use more items",
    )
