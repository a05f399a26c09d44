"""How long training will take, by training a few steps and throwing them away."""

import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedModel

from whetstone.train.batch import Row
from whetstone.train.order import RowOrder
from whetstone.train.recorder import StepMetrics
from whetstone.train.session import Session
from whetstone.train.settings import Settings
from whetstone.train.trainer import fit
from whetstone.tune_section import Tune

__all__ = ["SpeedEstimate", "probe_speed"]

_ENOUGH_S = 1.0
_MOST_STEPS = 100


@dataclass(frozen=True, slots=True)
class SpeedEstimate:
    """What a few steps say about the whole run.

    Attributes:
        tokens_per_s: Tokens that went through the model, padding not counted, per second.
        epoch_tokens: Tokens of an epoch, replayed rows included.
        epoch_s: Seconds for them.
        training_s: Seconds for the steps of the whole run; validation and loading are not in it.
        measured_steps: Optimiser steps that were timed.
    """

    tokens_per_s: float
    epoch_tokens: int
    epoch_s: float
    training_s: float
    measured_steps: int

    def as_row(self) -> dict[str, Any]:
        """The JSON object that ``--json`` prints."""
        return asdict(self)


def probe_speed(
    model: PreTrainedModel, order: RowOrder, tune: Tune, settings: Settings, *, steps: int = 3
) -> SpeedEstimate:
    """Times optimiser steps of the real trainer on real rows, and extrapolates by tokens.

    The rows are those whose lengths are nearest to the mean of an epoch: the time of a row is nearly proportional to
    its length, so what holds at the mean holds for the epoch. The first step warms up and is not counted. Where the
    others took less than a second together, so many more are timed that they take one.

    The weights of ``model`` are changed: throw it away. Nothing stays on disk.

    Args:
        model: As it would be trained.
        order: What would be learned, and when.
        tune: How.
        settings: What the device can do.
        steps: Optimiser steps, two or more.
    """
    epoch = order.epoch(0)
    lengths = np.array([len(row.input_ids) for row in order.rows])
    mean = float(lengths[epoch].mean())
    tokens, seconds = _time_steps(model, _rows_near(order, mean, steps), _short(tune, steps), settings)
    if seconds < _ENOUGH_S:
        steps = min(_MOST_STEPS, 1 + ceil((steps - 1) * _ENOUGH_S / seconds))
        tokens, seconds = _time_steps(model, _rows_near(order, mean, steps), _short(tune, steps), settings)
    tokens_per_s = tokens / seconds
    epoch_tokens = int(lengths[epoch].sum())
    run_steps = tune.steps or order.steps(tune.epochs)
    return SpeedEstimate(
        tokens_per_s=tokens_per_s,
        epoch_tokens=epoch_tokens,
        epoch_s=epoch_tokens / tokens_per_s,
        training_s=run_steps * order.step_rows * mean / tokens_per_s,
        measured_steps=steps - 1,
    )


def _rows_near(order: RowOrder, mean_tokens: float, steps: int) -> RowOrder:
    """An order of the rows nearest to a length, all counted as rows of the task."""
    nearest = sorted(order.rows, key=lambda row: abs(len(row.input_ids) - mean_tokens))[: steps * order.step_rows]
    rows: Sequence[Row] = [replace(row, origin="task") for row in nearest]
    return RowOrder(rows, order.step_rows, order.seed)


def _short(tune: Tune, steps: int) -> Tune:
    """A run of so few steps; a warm-up in steps would be longer than it."""
    return tune.model_copy(update={"steps": steps, "warmup_steps": None, "warmup_ratio": 0.0})


def _time_steps(model: PreTrainedModel, order: RowOrder, tune: Tune, settings: Settings) -> tuple[float, float]:
    """Tokens and seconds of all steps but the first."""
    seen: list[StepMetrics] = []
    with tempfile.TemporaryDirectory() as folder:
        session = Session(Path(folder), settings, seen.append, lambda line: None, keeps_checkpoints=False)
        fit(model, order, [], tune, session)
    seconds = [later.elapsed_s - earlier.elapsed_s for earlier, later in pairwise(seen)]
    tokens = sum(step.tokens_per_s * taken for step, taken in zip(seen[1:], seconds, strict=True))
    return tokens, sum(seconds)
