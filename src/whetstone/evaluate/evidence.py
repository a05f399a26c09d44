"""Reads a run's rows back: the only door between what was generated and what is concluded.

Rows become columns of numbers; their texts stay on disk and are read again where they are shown.
"""

import hashlib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from whetstone.data.example import Example
from whetstone.errors import UserError
from whetstone.evaluate.metrics.metric import Metric
from whetstone.evaluate.metrics.preferred import PREFERRED
from whetstone.evaluate.preference_rows import preferred_scores, read_preferences
from whetstone.evaluate.sample import BASE, TUNED, Sample
from whetstone.evaluate.scoring import AnswerColumns, score_rows
from whetstone.line_file import LineFile

__all__ = ["EXAMPLES", "Evidence", "data_hash", "load_evidence"]

EXAMPLES = "examples.jsonl"
"""The file of what was asked, beside the answers of each arm."""


@dataclass(frozen=True, slots=True, eq=False)
class Evidence:
    """The examples of one suite and what each arm answered, aligned by example.

    Attributes:
        folder: Where the rows are.
        metrics: What was scored.
        repeats: How many answers each example has.
        count: How many examples there are; with early stopping, how many every arm has answered.
        groups: The group of each example, as a number, ``(examples,)``.
        planned_groups: The same of all examples that were to be answered; longer than ``groups`` where the arms stopped
            early.
        categories: The names of the categories, in the order of the alphabet.
        category_numbers: The category of each example, as a place in ``categories``, ``(examples,)``.
        arms: The columns of each arm that has answered every example.
        data_hash: Hash of the file of examples.
    """

    folder: Path
    metrics: tuple[Metric, ...]
    repeats: int
    count: int
    groups: npt.NDArray[np.int64]
    planned_groups: npt.NDArray[np.int64]
    categories: tuple[str, ...]
    category_numbers: npt.NDArray[np.int64]
    arms: dict[str, AnswerColumns]
    data_hash: str
    _examples: LineFile
    _answers: dict[str, LineFile]

    def scores(self, arm: str, metric: Metric) -> npt.NDArray[np.float64]:
        """The arm's score on each example, ``(examples,)``; not a number where the metric does not apply."""
        return self.arms[arm].scores[metric.name]

    def example(self, index: int) -> Example:
        """One example, read from disk."""
        return Example.from_row(self._examples.row(index))

    def examples_at(self, indices: Sequence[int]) -> Iterator[Example]:
        """Some examples, in the order asked for, read from disk in one pass."""
        return map(Example.from_row, self._examples.pick(indices))

    def first_answers(self, arm: str, indices: Sequence[int]) -> Iterator[Sample]:
        """An arm's first answer to each of some examples, read from disk in one pass."""
        return map(Sample.from_row, self._answers[arm].pick([index * self.repeats for index in indices]))

    @property
    def bytes_per_example(self) -> float:
        """What an example and all answers to it take on disk, on average."""
        files = (self._examples, *self._answers.values())
        return sum(int(file.ends[-1]) for file in files if len(file)) / max(1, self.count)

    def places(self, ids: Collection[str]) -> list[int]:
        """Where the examples of these ids are."""
        rows = self._examples.rows(0, self.count)
        return [index for index, row in enumerate(rows) if row["id"] in ids] if ids else []

    def answers(self, arm: str, index: int) -> tuple[Sample, ...]:
        """An arm's answers to one example, read from disk."""
        start = index * self.repeats
        return tuple(map(Sample.from_row, self._answers[arm].rows(start, start + self.repeats)))

    @property
    def group_count(self) -> int:
        """How many groups the examples form."""
        return len(np.unique(self.groups))


def load_evidence(
    folder: Path, arms: Sequence[str], metrics: Sequence[Metric], *, repeats: int = 1, unfinished: bool = False
) -> Evidence:
    """Reads one suite's rows; an arm whose file is missing or unfinished is left out, never filled in.

    Args:
        folder: Where the rows are.
        arms: The arms to look for.
        metrics: What to score.
        repeats: How many answers each example has.
        unfinished: Where the arms have answered only so far (early stopping), read up to where all of them are.

    Raises:
        UserError: There are no examples, or a row is damaged or does not belong to the example at its place.
    """
    path = folder / EXAMPLES
    if not path.exists():
        raise UserError(f"{path}: no such file; 'whet compare' generates the samples")
    examples = LineFile.open(path)
    files = {arm: LineFile.open(folder / f"{arm}.jsonl") for arm in arms if (folder / f"{arm}.jsonl").exists()}
    count = len(examples)
    if unfinished:
        count = min([count, *(len(file) // repeats for file in files.values())])
    complete = {arm: file for arm, file in files.items() if len(file) >= count * repeats}
    for arm, file in complete.items():
        if len(file) > len(examples) * repeats:
            raise file.problem(len(examples) * repeats, f"more answers of '{arm}' than there are examples")
    scored = score_rows(examples, complete, metrics, repeats, count)
    if any(one.name == PREFERRED for one in metrics):
        _add_preferences(scored.arms, folder, [row["id"] for row in examples.rows(0, count)])
    rest = [row["group"] for row in examples.rows(count, len(examples))] if unfinished else []
    planned = _numbered([*scored.groups, *rest])
    categories = sorted(set(scored.categories))
    places = {name: place for place, name in enumerate(categories)}
    return Evidence(
        folder=folder,
        metrics=tuple(metrics),
        repeats=repeats,
        count=count,
        groups=planned[:count],
        planned_groups=planned,
        categories=tuple(categories),
        category_numbers=np.array([places[name] for name in scored.categories], np.int64),
        arms=scored.arms,
        data_hash=data_hash(path.read_bytes()),
        _examples=examples,
        _answers=complete,
    )


def _add_preferences(arms: dict[str, AnswerColumns], folder: Path, ids: Sequence[str]) -> None:
    """What graders said is of pairs of answers, and stands in rows of its own."""
    preferences = read_preferences(folder)
    for arm in (BASE, TUNED):
        if arm in arms:
            arms[arm].scores[PREFERRED] = preferred_scores(preferences, ids, arm)


def data_hash(content: bytes) -> str:
    """Identity of a file of examples; the first 16 hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()[:16]


def _numbered(names: Sequence[str]) -> npt.NDArray[np.int64]:
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(name, len(numbers)) for name in names], np.int64)
