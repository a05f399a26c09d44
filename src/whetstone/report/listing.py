"""Which examples the page lists with all answers, and what it says of each.

Notable: what is listed is chosen from columns of numbers, and only what is chosen is read, each file once.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from whetstone.evaluate.evidence import Evidence
from whetstone.evaluate.metrics.metric import Metric
from whetstone.evaluate.sample import BASE, TUNED
from whetstone.report.suite_summary import SuiteSummary

__all__ = ["Listing", "choose", "suite_listing"]

_ROWS_AT_MOST = 10_000
_BYTES_AT_MOST = 48_000_000
"""Of the rows on disk whose texts are listed; two thirds of such a row is numbers that the page does not hold."""

Places = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Listing:
    """What is listed.

    Attributes:
        total: How many examples all suites have.
        places: By suite, the examples listed, as places in its evidence: what tuning broke or made worse first, then
            what it fixed or made better, then the others.
    """

    total: int
    places: dict[str, Places]

    @property
    def listed(self) -> int:
        """How many examples are listed."""
        return sum(map(len, self.places.values()))


def choose(suites: tuple[SuiteSummary, ...]) -> Listing:
    """Chooses the examples: all of them where there is room; else the changed ones, then an even choice.

    Small suites are listed whole before large ones are, for they share the room equally as far as they need it.
    """
    counts = {suite.name: suite.evidence.count for suite in suites}
    total = sum(counts.values())
    size = sum(suite.evidence.bytes_per_example * suite.evidence.count for suite in suites)
    room = _ROWS_AT_MOST if size <= _BYTES_AT_MOST else min(_ROWS_AT_MOST, int(total * _BYTES_AT_MOST / size))
    places = {}
    for waiting, suite in zip(range(len(suites), 0, -1), sorted(suites, key=lambda one: counts[one.name]), strict=True):
        places[suite.name] = _chosen(suite.evidence, suite.primary, min(counts[suite.name], room // waiting))
        room -= len(places[suite.name])
    return Listing(total, {suite.name: places[suite.name] for suite in suites})


def _chosen(evidence: Evidence, metric: Metric, room: int) -> Places:
    change = np.zeros(evidence.count)
    if {BASE, TUNED} <= evidence.arms.keys():
        sign = -1 if metric.direction == "lower" else 1
        change = sign * np.nan_to_num(evidence.scores(TUNED, metric) - evidence.scores(BASE, metric))
    changed = _evenly(np.flatnonzero(change), room)
    others = _evenly(np.flatnonzero(change == 0), room - len(changed))
    return np.concatenate([changed[change[changed] < 0], changed[change[changed] > 0], others])


def _evenly(places: Places, room: int) -> Places:
    return places[np.linspace(0, len(places) - 1, min(room, len(places))).round().astype(np.int64)]


def suite_listing(suite: SuiteSummary, arms: tuple[str, ...], places: Places) -> dict[str, Any]:
    """What the page's script knows of a suite.

    Args:
        suite: The suite.
        arms: In the order in which rows give their answers.
        places: The examples listed.
    """
    metric, evidence = suite.primary, suite.evidence
    scores = {arm: evidence.scores(arm, metric)[places] for arm in evidence.arms}
    known = [column[np.isfinite(column)] for column in scores.values()]
    return {
        "name": suite.name,
        "metric": metric.title,
        "unit": metric.unit,
        "lower": metric.direction == "lower",
        "binary": bool(known) and all(bool(np.isin(column, (0, 1)).all()) for column in known),
        "repeats": evidence.repeats,
        "categories": list(evidence.categories),
        "rows": list(_rows(evidence, arms, scores, places)),
    }


def _rows(
    evidence: Evidence, arms: tuple[str, ...], scores: dict[str, npt.NDArray[np.float64]], places: Places
) -> Iterator[list[Any]]:
    """One list an example: id, category, its distinct texts (the input first), references, answers and scores.

    References and answers are places among the texts, because most answers are one of the others; an answer that was
    cut off is the place below zero from -1 on. Arms that were not measured, and scores that do not apply, are null.
    """
    wanted = places.tolist()
    answers = {arm: evidence.first_answers(arm, wanted) for arm in evidence.arms}
    for number, (place, example) in enumerate(zip(wanted, evidence.examples_at(wanted), strict=True)):
        texts = {example.source: 0}
        given: list[int | None] = []
        references = [texts.setdefault(reference, len(texts)) for reference in example.references]
        for arm in arms:
            if arm not in answers:
                given.append(None)
                continue
            answer = next(answers[arm])
            if not example.messages:
                given.append(None)
                continue
            text = texts.setdefault(answer.text, len(texts))
            given.append(-1 - text if answer.finish_reason == "length" else text)
        scored = [_rounded(scores[arm][number]) if arm in scores else None for arm in arms]
        asked = references if example.messages else []
        yield [example.id, int(evidence.category_numbers[place]), list(texts), asked, given, scored]


def _rounded(score: float) -> float | None:
    return round(float(score), 6) if np.isfinite(score) else None
