"""``metrics.jsonl``: one row for each logged step, each step once, however often the training was interrupted."""

# The callbacks of transformers are untyped here, and they are meant to be subclassed.
# mypy: allow-subclassing-any

import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from whetstone.errors import UserError
from whetstone.files import read_jsonl, write_jsonl
from whetstone.models.device import peak_memory_bytes
from whetstone.train.batch import Origin
from whetstone.train.sensors import Reading, Sensors

__all__ = ["Counters", "Observer", "Recorder", "StepMetrics", "append_row", "cut_after", "log_interval"]

_LOG_POINTS = 100


@dataclass(slots=True)
class Counters:
    """What the trainer has counted since the first step; the trainer adds, the recorder reads.

    Attributes:
        row_tokens: Tokens of the rows that were learned, padding not counted.
        computed_tokens: Tokens that went through the layers; fewer where rows share some, more where rows are padded.
        loss_tokens: Tokens learned from, by the origin of their rows; holds the origins that the run has.
    """

    row_tokens: int = 0
    computed_tokens: int = 0
    loss_tokens: dict[Origin, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class StepMetrics(Reading):
    """One row of ``metrics.jsonl``, what the sensors say among it; None is a loss that was not measured.

    Attributes:
        step: Optimiser steps done, of ``steps``.
        epoch: Passes over the task rows done.
        loss: Mean over the steps since the last row of the cross-entropy per loss token.
        learning_rate: Of this step.
        gradient_norm: Of this step, before clipping.
        tokens_per_s: Tokens of rows per second of the training steps since the last row; validation, checkpoints and
            sample answers take none of that time.
        loss_tokens: Tokens learned from so far.
        loss_tokens_by_origin: How many of them came from rows of the task, and how many from replayed rows.
        elapsed_s: Seconds of training so far, with everything that happens between the steps.
        memory_bytes: The most memory used so far: of the GPU by torch on CUDA, of the process elsewhere.
        validation_loss: Mean cross-entropy per loss token of the validation rows, where it was measured.
        computed_tokens_per_s: Tokens that really went through the layers, per second as above.
    """

    step: int
    steps: int
    epoch: float
    loss: float
    learning_rate: float
    gradient_norm: float
    tokens_per_s: float
    loss_tokens: int
    loss_tokens_by_origin: dict[Origin, int]
    elapsed_s: float
    memory_bytes: int
    validation_loss: float | None
    computed_tokens_per_s: float | None = None

    def as_row(self) -> dict[str, Any]:
        """The JSON row; JSON has no not-a-number, so such a value is null."""
        return {
            name: None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in asdict(self).items()
        }


Observer = Callable[[StepMetrics], None]
"""Told of every logged step: the live view, the trackers."""


class Recorder(TrainerCallback):
    """Writes the rows as training goes and tells the observer; decides, too, which steps are logged.

    Logged are the first step, the last one, every hundredth of the run, and every step at which the validation loss
    was measured or a checkpoint is due: a run that goes on from a checkpoint then writes the rows that it would have
    written without the interruption. The Trainer's own ``logging_strategy`` should be ``"no"``.
    """

    def __init__(
        self,
        path: Path,
        counters: Counters,
        sensors: Sensors,
        *,
        epochs_after: Callable[[int], float],
        validation_loss_at: Callable[[int], float | None],
        observer: Observer,
    ) -> None:
        """Begins to count the time.

        Args:
            path: Rows are appended here.
            counters: The trainer's; what they hold counts as done before.
            sensors: Read at every row.
            epochs_after: Passes over the task rows that so many steps make.
            validation_loss_at: Asked once at the end of each step; None where nothing was measured.
            observer: Told of every row once it is written.
        """
        self._path = path
        self._counters = counters
        self._sensors = sensors
        self._epochs_after = epochs_after
        self._validation_loss_at = validation_loss_at
        self._observer = observer
        self._step = 0
        self._validation_loss: float | None = None
        self._began_s = time.monotonic()
        self.last: StepMetrics | None = None
        self._start_interval()

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps, for JSON; to be asked between two steps."""
        return {
            "step": self._step,
            "elapsed_s": time.monotonic() - self._began_s,
            "counters": asdict(self._counters),
            "last": None if self.last is None else asdict(self.last),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Goes on from a checkpoint: time and counters continue, later rows of the file are cut off.

        Raises:
            UserError: The file holds something else than rows.
        """
        self._step = state["step"]
        self._began_s = time.monotonic() - state["elapsed_s"]
        self.last = None if state["last"] is None else StepMetrics(**state["last"])
        self._counters.row_tokens = state["counters"]["row_tokens"]
        self._counters.computed_tokens = state["counters"]["computed_tokens"]
        # The trainer keeps hold of the dictionary, so it is filled and not replaced.
        self._counters.loss_tokens.clear()
        self._counters.loss_tokens.update(state["counters"]["loss_tokens"])
        self._start_interval()
        cut_after(self._path, self._step)

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Starts the clock of a step."""
        self._step_began_s = time.perf_counter()

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Stops it, before any callback can do something else at the step's end."""
        self._busy_s += time.perf_counter() - self._step_began_s

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        """Takes the validation loss, and decides whether the step is logged."""
        self._step = state.global_step
        self._validation_loss = self._validation_loss_at(self._step)
        due = self._step == 1 or self._step % log_interval(state.max_steps) == 0
        control.should_log |= due or control.should_save or self._validation_loss is not None
        return control

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        """Logs the last step, also of a run that stops early; the Trainer logs no step twice."""
        control.should_log = True
        return control

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Writes the row of a step; what else the Trainer logs has no loss, or no gradient."""
        logs = kwargs["logs"]
        if "loss" not in logs or "grad_norm" not in logs:
            return
        counters = self._counters
        row_tokens, computed_tokens = self._counted
        self.last = StepMetrics(
            step=state.global_step,
            steps=state.max_steps,
            epoch=self._epochs_after(state.global_step),
            loss=float(logs["loss"]),
            learning_rate=float(logs["learning_rate"]),
            gradient_norm=float(logs["grad_norm"]),
            tokens_per_s=(counters.row_tokens - row_tokens) / self._busy_s,
            loss_tokens=sum(counters.loss_tokens.values()),
            loss_tokens_by_origin=dict(counters.loss_tokens),
            elapsed_s=time.monotonic() - self._began_s,
            memory_bytes=peak_memory_bytes(args.device),
            validation_loss=self._validation_loss,
            computed_tokens_per_s=(counters.computed_tokens - computed_tokens) / self._busy_s,
            **asdict(self._sensors.read()),
        )
        self._start_interval()
        append_row(self._path, self.last.as_row())
        self._observer(self.last)

    def _start_interval(self) -> None:
        """Rates are measured from here."""
        self._busy_s = 0.0
        self._step_began_s = time.perf_counter()
        self._counted = self._counters.row_tokens, self._counters.computed_tokens


def log_interval(steps: int) -> int:
    """Optimiser steps between two rows of a run."""
    return max(1, steps // _LOG_POINTS)


def append_row(path: Path, row: dict[str, Any]) -> None:
    """Appends one JSON object as a line.

    Raises:
        UserError: It cannot be written.
    """
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n")
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror}); free some space and resume the run") from error


def cut_after(path: Path, step: int) -> None:
    """Takes away, in one rename, the rows of steps that are still to come, and a last line that was torn.

    Args:
        path: Rows with a ``step``; nothing is done where there is no file.
        step: The last that counts.

    Raises:
        UserError: A line is not a JSON object, or the file cannot be written.
    """
    if path.exists():
        write_jsonl(path, [row for row in read_jsonl(path) if row["step"] <= step])
