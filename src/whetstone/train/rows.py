"""All rows of a run: what is learned, what is replayed, what the loss is watched on."""

from collections.abc import Sequence
from dataclasses import dataclass

from whetstone.data.example import Example
from whetstone.errors import UserError
from whetstone.experiment import Experiment
from whetstone.section import stable_hash
from whetstone.train.batch import MadeRows, Origin, Row, make_rows
from whetstone.train.check import Checked
from whetstone.train.order import RowOrder

__all__ = ["RunRows", "rows_of_run"]

_FEWEST_TO_HOLD_OUT = 50
_MOST_HELD_OUT = 100


@dataclass(frozen=True, slots=True)
class RunRows:
    """The rows of a run, and what the length policy left out of each part.

    Attributes:
        task: What is learned.
        replay: What is learned between them.
        validation: What the loss is watched on.
        held_replay: Rows of the replay source that are not learned: what is lost on them is forgotten.
    """

    task: MadeRows
    replay: MadeRows
    validation: MadeRows
    held_replay: list[Row]

    def order(self, experiment: Experiment) -> RowOrder:
        """The order in which an experiment learns them."""
        tune, replay = experiment.tune, experiment.data.replay
        rows = [*self.task.rows, *self.replay.rows]
        return RowOrder(rows, tune.batch_size * tune.accumulation, tune.seed, replay.fraction if replay else 0.0)

    def notes(self) -> tuple[str, ...]:
        """What the length policy did, for the run's record."""
        return tuple(
            f"{count} {part} rows were longer than allowed and {fate} (data.too_long)."
            for part, made in (("training", self.task), ("replay", self.replay), ("validation", self.validation))
            for count, fate in ((made.dropped, "were dropped"), (made.truncated, "lost the end of their answer"))
            if count
        )


def rows_of_run(experiment: Experiment, checked: Checked) -> RunRows:
    """Renders all parts that training looks at.

    Raises:
        UserError: A row is longer than allowed and the policy is ``raise``, or nothing is left to learn or to replay.
    """

    def rows(examples: Sequence[Example], origin: Origin = "task") -> MadeRows:
        limits = experiment.data, experiment.tune, checked.context_tokens
        return make_rows(examples, checked.template, *limits, origin=origin)

    replayed, held = _hold_out(checked.replay)
    validation = rows(checked.splits.validation)
    made = RunRows(rows(checked.splits.train), rows(replayed, "replay"), validation, rows(held, "replay").rows)
    for part, kept, examples in (
        ("training", made.task, checked.splits.train),
        ("replay", made.replay, replayed),
    ):
        if examples and not kept.rows:
            raise UserError(f"data.max_tokens: every {part} row is longer than allowed; raise it, or shorten the rows")
    return made


def _hold_out(examples: Sequence[Example]) -> tuple[list[Example], list[Example]]:
    """What is replayed and what is not: a tenth by the hash of its group, where that leaves enough to learn from."""
    if len(examples) < _FEWEST_TO_HOLD_OUT:
        return list(examples), []
    held = [example for example in examples if int(stable_hash(example.group), 16) % 10 == 0]
    chosen = {example.group for example in held[:_MOST_HELD_OUT]}
    kept = [example for example in examples if example.group not in chosen]
    return kept, [example for example in held if example.group in chosen]
