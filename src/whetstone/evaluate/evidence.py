"""Reads a run's rows back: the only door between what was generated and what is concluded."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from whetstone.data.example import Example
from whetstone.errors import UserError
from whetstone.evaluate.metrics.metric import Metric
from whetstone.evaluate.sample import ARMS, Sample
from whetstone.files import read_jsonl

__all__ = ["Evidence", "load_evidence"]


@dataclass(frozen=True, slots=True)
class Evidence:
    """The held-out examples and what each arm answered, aligned by example.

    Attributes:
        examples: In the order of ``samples/examples.jsonl``.
        samples: For each arm that has answered every example, its samples in the order of ``examples``.
    """

    examples: tuple[Example, ...]
    samples: dict[str, tuple[Sample, ...]]

    def scores(self, arm: str, metric: Metric) -> list[float | None]:
        """The arm's score on each example; None where the metric does not apply."""
        return [metric.score(example, sample) for example, sample in zip(self.examples, self.samples[arm], strict=True)]


def load_evidence(folder: Path, extra_arms: Sequence[str] = ()) -> Evidence:
    """Reads ``samples/``; an arm whose file is missing or unfinished is left out, never filled in.

    Args:
        folder: Where the rows are.
        extra_arms: The arms beside the four.

    Raises:
        UserError: There are no examples, or a row is damaged, repeated, or belongs to an unknown example.
    """
    path = folder / "examples.jsonl"
    if not path.exists():
        raise UserError(f"{path}: no such file; 'whet compare' generates the samples")
    examples = tuple(Example.from_row(row) for row in read_jsonl(path))
    samples: dict[str, tuple[Sample, ...]] = {}
    for arm in (*ARMS, *extra_arms):
        answers = _answers(folder / f"{arm}.jsonl", {example.id for example in examples})
        if len(answers) == len(examples):
            samples[arm] = tuple(answers[example.id] for example in examples)
    return Evidence(examples, samples)


def _answers(path: Path, known: set[str]) -> dict[str, Sample]:
    answers: dict[str, Sample] = {}
    if not path.exists():
        return answers
    for number, row in enumerate(read_jsonl(path), 1):
        try:
            sample = Sample.from_row(row)
        except (KeyError, TypeError) as error:
            raise UserError(f"{path}:{number}: not a sample ({error}); delete the file to make it again") from None
        if sample.example not in known or sample.example in answers:
            raise UserError(
                f"{path}:{number}: example '{sample.example}' is unknown or repeated; delete the file to make it again"
            )
        answers[sample.example] = sample
    return answers
