"""From rows on disk to columns of numbers: one pass over examples and answers, by several processes if there are many.

What a comparison needs of an answer is a handful of numbers; its text is read again where it is shown. A million
examples with three arms are four million rows of JSON, and a few hundred megabytes of columns.
"""

import hashlib
import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import islice

import numpy as np
import numpy.typing as npt

from whetstone.cores import usable_cores
from whetstone.data.example import Example
from whetstone.evaluate.metrics.catalogue import metric
from whetstone.evaluate.metrics.metric import Metric
from whetstone.evaluate.sample import Sample
from whetstone.line_file import LineFile

__all__ = ["AnswerColumns", "ScoredPart", "score_rows"]

_PART = 20_000
"""Examples that one process scores at a time; fewer are scored in this process, since starting one takes longer."""

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class AnswerColumns:
    """What an arm's answers came to.

    Attributes:
        scores: By metric: one number an example, over all its answers; not a number where the metric does not apply.
        prompt_hashes: Of the prompts, one an answer, as numbers that are equal when the hashes are.
        new_tokens: One an answer; not a number where nobody counted.
        first_token_s: One an answer; not a number where nothing was generated.
        end_s: As ``first_token_s``.
        batch: Which batch it was answered in, one an answer.
        memory_bytes: One an answer; zero where nothing was measured.
        judgements: The judgements that the rows say they belong to.
    """

    scores: dict[str, Floats]
    prompt_hashes: Integers
    new_tokens: Floats
    first_token_s: Floats
    end_s: Floats
    batch: Integers
    memory_bytes: Integers
    judgements: frozenset[str]


@dataclass(frozen=True, slots=True, eq=False)
class ScoredPart:
    """Columns of some examples in a row: their groups and categories, and the answers of each arm."""

    groups: list[str]
    categories: list[str]
    arms: dict[str, AnswerColumns]


def score_rows(
    examples: LineFile, arms: dict[str, LineFile], metrics: Sequence[Metric], repeats: int, count: int
) -> ScoredPart:
    """Scores the first ``count`` examples.

    Args:
        examples: The examples.
        arms: Each arm's answers, in the order of the examples, all answers to one example together.
        metrics: What to score.
        repeats: How many answers each example has.
        count: How many examples every arm has answered.

    Raises:
        UserError: A row is damaged, or belongs to another example than the one at its place.
    """
    names = tuple(one.name for one in metrics)
    jobs = [
        (examples, arms, names, repeats, start, min(start + _PART, count)) for start in range(0, max(count, 1), _PART)
    ]
    if len(jobs) == 1:
        return _score_part(*jobs[0])
    workers = min(len(jobs), usable_cores())
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        parts = list(pool.map(_score_part, *zip(*jobs, strict=True)))
    return _joined(parts)


def _score_part(
    examples: LineFile, arms: dict[str, LineFile], names: tuple[str, ...], repeats: int, start: int, stop: int
) -> ScoredPart:
    metrics = [metric(name) for name in names]
    builders = {arm: _Builder(file, metrics, repeats, start, stop) for arm, file in arms.items()}
    groups, categories = [], []
    for index, row in enumerate(examples.rows(start, stop), start):
        try:
            example = Example.from_row(row)
        except (KeyError, TypeError) as error:
            raise examples.problem(index, f"not an example ({error})") from None
        groups.append(example.group)
        categories.append(example.category)
        for builder in builders.values():
            builder.add(example)
    return ScoredPart(groups, categories, {arm: builder.columns() for arm, builder in builders.items()})


class _Builder:
    """Reads one arm's answers beside the examples."""

    def __init__(self, file: LineFile, metrics: Sequence[Metric], repeats: int, start: int, stop: int) -> None:
        self._file, self._metrics, self._repeats = file, metrics, repeats
        self._rows = enumerate(file.rows(start * repeats, stop * repeats), start * repeats)
        self._scores: dict[str, list[float]] = {one.name: [] for one in metrics}
        self._answers: list[tuple[float, float, float, float, float]] = []
        self._hashes: list[int] = []
        self._judgements: set[str] = set()

    def add(self, example: Example) -> None:
        samples = [self._read(example.id, index, row) for index, row in islice(self._rows, self._repeats)]
        for one in self._metrics:
            score = one.of(example, samples)
            self._scores[one.name].append(np.nan if score is None else score)

    def columns(self) -> AnswerColumns:
        answers = np.array(self._answers, np.float64).reshape(-1, 5).T
        return AnswerColumns(
            scores={name: np.array(scores, np.float64) for name, scores in self._scores.items()},
            prompt_hashes=np.array(self._hashes, np.int64),
            new_tokens=answers[0].copy(),
            first_token_s=answers[1].copy(),
            end_s=answers[2].copy(),
            batch=answers[3].astype(np.int64),
            memory_bytes=answers[4].astype(np.int64),
            judgements=frozenset(self._judgements),
        )

    def _read(self, example: str, index: int, row: dict[str, object]) -> Sample:
        try:
            sample = Sample.from_row(row)
        except (KeyError, TypeError) as error:
            raise self._file.problem(index, f"not a sample ({error})") from None
        if sample.example != example or sample.repeat != index % self._repeats:
            raise self._file.problem(
                index, f"an answer to example '{sample.example}' where one to '{example}' has to be"
            )
        tokens, first_s, end_s = sample.new_tokens, sample.first_token_s, sample.end_s
        self._answers.append(
            (
                np.nan if tokens is None else tokens,
                np.nan if first_s is None else first_s,
                np.nan if end_s is None else end_s,
                sample.batch,
                sample.memory_bytes or 0,
            )
        )
        self._hashes.append(_number(sample.prompt_hash))
        self._judgements.add(sample.judgement)
        return sample


def _number(text: str) -> int:
    """A number of 56 bits that stands for a text; unlike ``hash``, the same in every process."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=7).digest())


def _joined(parts: Sequence[ScoredPart]) -> ScoredPart:
    def column(arm: str, name: str) -> npt.NDArray[np.float64]:
        return np.concatenate([getattr(part.arms[arm], name) for part in parts])

    arms = {}
    for arm, first in parts[0].arms.items():
        arms[arm] = AnswerColumns(
            scores={name: np.concatenate([part.arms[arm].scores[name] for part in parts]) for name in first.scores},
            judgements=frozenset().union(*(part.arms[arm].judgements for part in parts)),
            prompt_hashes=np.concatenate([part.arms[arm].prompt_hashes for part in parts]),
            batch=np.concatenate([part.arms[arm].batch for part in parts]),
            memory_bytes=np.concatenate([part.arms[arm].memory_bytes for part in parts]),
            new_tokens=column(arm, "new_tokens"),
            first_token_s=column(arm, "first_token_s"),
            end_s=column(arm, "end_s"),
        )
    return ScoredPart(
        [group for part in parts for group in part.groups],
        [category for part in parts for category in part.categories],
        arms,
    )
