"""What every training has around its steps: guard, records, validation, checkpoints, and the way back to them."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import (
    PreTrainedModel,
    ProgressCallback,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.trainer_callback import PrinterCallback

from whetstone.errors import UserError
from whetstone.models.device import reset_peak_memory
from whetstone.train.batch import Origin
from whetstone.train.checkpoint import CheckpointStore
from whetstone.train.guard import FrozenAdapter, Guard
from whetstone.train.order import RowOrder
from whetstone.train.prepare import compiled_layers
from whetstone.train.recorder import Counters, Recorder, cut_after
from whetstone.train.restart import Restart, Restartable, Resumable
from whetstone.train.sensors import Sensors
from whetstone.train.session import Session
from whetstone.train.validation import ValidationLoss, load_best_weights
from whetstone.tune_section import Tune

__all__ = ["Supervised", "TrainingResult", "probe_ids", "supervise", "training_options", "unwatched", "warmup_steps"]

_CHECKPOINTS = 10
_PROBE_TOKENS = 64


@dataclass(frozen=True, slots=True)
class TrainingResult:
    """What is left to say when training has ended.

    Attributes:
        notes: What went otherwise than asked, a sentence each.
    """

    steps: int
    loss_tokens: int
    loss_tokens_by_origin: dict[Origin, int]
    final_loss: float
    duration_s: float
    notes: tuple[str, ...]


class Supervised(Restartable):
    """A Trainer that follows our order, counts, and shows each step to the guard before its weights move.

    Attributes:
        order: Which rows each optimiser step learns.
        counters: Of tokens so far.
        guard: Set by :func:`supervise`.
    """

    order: RowOrder
    counters: Counters
    guard: Guard

    def _clip_grad_norm(self, model: nn.Module) -> torch.Tensor:
        norm: torch.Tensor = super()._clip_grad_norm(model)
        loss, examples = self.step_summary()
        # A loss scaler that found an overflow skips the step by itself.
        if self.accelerator.scaler is None or norm.isfinite():
            self.guard.check(self.state.global_step + 1, loss, float(norm), examples)
        return norm

    def step_summary(self) -> tuple[float, list[str]]:
        """The mean loss of the step whose gradient is there, and the ids of its examples; asked once a step."""
        raise NotImplementedError


class _Guarding(TrainerCallback):  # type: ignore[misc]
    """Looks after each step whether anything was learned; keeps broken weights out of checkpoints.

    Weights of the lowest validation loss are not broken, whatever the training loss of their step.
    """

    def __init__(self, guard: Guard, frozen: FrozenAdapter, watched: ValidationLoss) -> None:
        self._guard = guard
        self._frozen = frozen
        self._watched = watched

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        self._frozen.check(state.global_step, last=state.global_step == state.max_steps)
        worth_keeping = self._guard.calm or self._watched.is_best(state.global_step)
        control.should_save = control.should_save and worth_keeping
        return control


def supervise(
    trainer: Supervised,
    frozen: FrozenAdapter,
    measure: Callable[[], float] | None,
    tune: Tune,
    session: Session,
    resumables: Mapping[str, Resumable] | None = None,
) -> TrainingResult:
    """Trains to the end, from the newest checkpoint where the session resumes, with everybody told who wants to know.

    Args:
        trainer: As it was made.
        frozen: Knows the model as it began.
        measure: Gives the validation loss; none is watched when there is nothing to measure.
        tune: How.
        session: Where, and who is told.
        resumables: More that a checkpoint keeps, by name.

    Raises:
        TrainingStopped: Training went wrong (a UserError; see :mod:`whetstone.train.guard`).
        UserError: A checkpoint cannot be written or used.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UserError("several processes (WORLD_SIZE) would each train the whole run; start one process")
    reset_peak_memory(trainer.model.device)
    store = CheckpointStore(session.folder / "checkpoints", tune.checkpoints, session.say)
    guard = Guard(tune.guard, lambda: None if (newest := store.newest()) is None else str(newest.folder))
    watched = ValidationLoss(measure or _nothing_to_measure, tune.validation)
    recorder = Recorder(
        session.metrics_path,
        trainer.counters,
        Sensors(trainer.model.device),
        epochs_after=trainer.order.epochs,
        validation_loss_at=watched.at,
        observer=session.observer,
    )
    trainer.guard = guard
    # The order matters: what is measured is recorded, and what is broken is not saved.
    for callback in (*([watched] if measure else []), recorder, *session.callbacks, _Guarding(guard, frozen, watched)):
        trainer.add_callback(callback)
    own: dict[str, Resumable] = {"validation": watched, "recorder": recorder, "guard": guard, "frozen": frozen}
    trainer.restart = Restart(store, {**own, **(resumables or {})}, watched.at)
    _run(trainer, store, session)
    if measure and tune.validation.keep == "best":
        load_best_weights(trainer.model, store, watched)
    last = recorder.last
    if last is None:
        raise AssertionError("the last step is always logged")
    return TrainingResult(
        steps=trainer.state.global_step,
        loss_tokens=last.loss_tokens,
        loss_tokens_by_origin=last.loss_tokens_by_origin,
        final_loss=last.loss,
        duration_s=last.elapsed_s,
        notes=(f"Stopped early: {watched.stopped}.",) if watched.stopped else (),
    )


def unwatched(tune: Tune, reason: str) -> tuple[str, ...]:
    """A note for each setting that has no use where no validation loss is measured."""
    asked = (
        ("every", tune.validation.every is not None),
        ("patience", tune.validation.patience is not None),
        ("keep: best", tune.validation.keep == "best"),
    )
    return tuple(f"tune.validation.{name} is not applied: {reason}." for name, wanted in asked if wanted)


def _nothing_to_measure() -> float:
    raise AssertionError("a callback that was not added was called")


def _run(trainer: Supervised, store: CheckpointStore, session: Session) -> None:
    """Trains from where the session says; rows of steps that are still to come are taken away."""
    # On several GPUs the Trainer would wrap the model in DataParallel, which multiplies the batch and splits columns.
    trainer.args._n_gpu = min(trainer.args.n_gpu, 1)
    trainer.remove_callback(PrinterCallback)
    trainer.remove_callback(ProgressCallback)
    checkpoint = store.newest() if session.resume else None
    if checkpoint is None:
        session.metrics_path.unlink(missing_ok=True)
        session.watch_path.unlink(missing_ok=True)
    else:
        session.say(f"going on after step {checkpoint.step}")
        cut_after(session.watch_path, checkpoint.step)
    with compiled_layers(trainer.model, compiled=session.settings.compile):
        trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint.folder))


def probe_ids(order: RowOrder) -> list[int]:
    """The tokens whose logits show whether a model has changed."""
    return list(order.rows[0].input_ids[:_PROBE_TOKENS])


def training_options(model: PreTrainedModel, tune: Tune, steps: int, session: Session) -> Mapping[str, Any]:
    """The values that all trainers have in common."""
    settings = session.settings
    return {
        "output_dir": str(session.folder),
        "max_steps": steps,
        "per_device_train_batch_size": tune.batch_size * tune.accumulation,
        "learning_rate": tune.learning_rate,
        "lr_scheduler_type": tune.schedule,
        "warmup_steps": warmup_steps(tune, steps),
        "weight_decay": tune.weight_decay,
        "max_grad_norm": tune.max_gradient_norm,
        "seed": tune.seed,
        "logging_strategy": "no",
        "logging_nan_inf_filter": False,
        "save_strategy": "steps" if session.keeps_checkpoints else "no",
        "save_steps": tune.checkpoints.every or max(1, steps // _CHECKPOINTS),
        "report_to": "none",
        "disable_tqdm": True,
        "remove_unused_columns": False,
        "use_cpu": model.device.type == "cpu",
        "dataloader_pin_memory": False,
        "fp16": settings.precision == "float16",
        "optim": settings.optimiser,
    }


def warmup_steps(tune: Tune, steps: int) -> int:
    """Optimiser steps in which the learning rate rises.

    Raises:
        UserError: The run ends before its warm-up does, so it would never learn at the rate that it was given.
    """
    if tune.warmup_steps is None:
        return round((0.1 if tune.warmup_ratio is None else tune.warmup_ratio) * steps)
    if tune.warmup_steps >= steps:
        raise UserError(
            f"tune.warmup_steps: {tune.warmup_steps} steps of warm-up, but the run has {steps}; lower it, give "
            "warmup_ratio instead, or train longer"
        )
    return tune.warmup_steps
