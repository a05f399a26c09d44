"""The transformers Trainer with our batches, our loss and our log; loop, optimiser and schedule are its own."""

import json
import math
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, Sampler
from transformers import (
    PreTrainedModel,
    ProgressCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.trainer_callback import PrinterCallback

from whetstone.errors import UserError
from whetstone.models.device import peak_memory_bytes
from whetstone.train.batch import IGNORE, ORIGINS, Origin, Row, RowDataset, collate, cut_padding
from whetstone.train.loss import completion_loss
from whetstone.train.order import RowOrder, RowSampler
from whetstone.tune_section import Tune

__all__ = ["Observer", "StepMetrics", "TrainingResult", "fit"]

_LOG_POINTS = 100
_VALIDATION_POINTS = 4


@dataclass(frozen=True, slots=True)
class StepMetrics:
    """One row of ``metrics.jsonl``.

    Attributes:
        step: Optimiser steps done, of ``steps``.
        epoch: Passes over the task rows done.
        loss: Mean cross-entropy per loss token since the last row.
        tokens_per_s: Tokens that went through the model (padding not counted) per second since the last row.
        loss_tokens: Tokens learned from so far.
        loss_tokens_by_origin: How many of them came from rows of the task, and how many from replayed rows.
        validation_loss: Mean cross-entropy per loss token of the validation rows, where it was measured.
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


Observer = Callable[[StepMetrics], None]
"""Told of every logged step; the command line draws its progress bar from it."""


@dataclass(frozen=True, slots=True)
class TrainingResult:
    """What is left to say when training has ended."""

    steps: int
    loss_tokens: int
    loss_tokens_by_origin: dict[Origin, int]
    final_loss: float
    duration_s: float


class CompletionTrainer(Trainer):
    """A Trainer whose loss is summed over tokens and divided by the loss tokens of the whole optimiser step."""

    # The loss below is normalised over the accumulated batch, so the Trainer must not divide it again.
    loss_is_scaled_for_ga = True

    def __init__(self, order: RowOrder, **kwargs: Any) -> None:
        super().__init__(train_dataset=RowDataset(order.rows), **kwargs)
        self.order = order
        # Asks the Trainer to count the labels of the whole optimiser step and to hand the number to compute_loss.
        self.model_accepts_loss_kwargs = True
        self.input_tokens = 0
        present = {row.origin for row in order.rows}
        self.loss_tokens: dict[Origin, int] = {origin: 0 for origin in ORIGINS if origin in present}

    def _get_train_sampler(self, train_dataset: Dataset[Row] | None = None) -> Sampler[int]:
        """The order of the whole run; the Trainer has no sampler that mixes."""
        return RowSampler(self.order, self.args.max_steps)

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, torch.Tensor],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor:
        """This micro-batch's share of the mean loss of the optimiser step."""
        learned = (inputs["labels"][:, 1:] != IGNORE).sum(dim=1)
        # One transfer from the device for all that is counted.
        counts = torch.stack((inputs["attention_mask"].sum(dim=1), learned, inputs["origins"]))
        lengths, loss_tokens, origins = counts.tolist()
        self.input_tokens += sum(lengths)
        for origin, tokens in zip(origins, loss_tokens, strict=True):
            self.loss_tokens[ORIGINS[origin]] += tokens
        total = torch.stack([completion_loss(model, part) for part in cut_padding(inputs, lengths)]).sum()
        return total / (sum(loss_tokens) if num_items_in_batch is None else num_items_in_batch)


class _Recorder(TrainerCallback):
    """Writes ``metrics.jsonl`` as training goes, measures validation loss, and tells the observer."""

    def __init__(self, path: Path, validation: Sequence[Row], pad_id: int, batch_size: int, observer: Observer) -> None:
        self._path = path
        self._observer = observer
        self._validation = validation
        self._batches = DataLoader(RowDataset(validation), batch_size, collate_fn=partial(collate, pad_id=pad_id))
        self._began = self._last = time.monotonic()
        self._last_tokens = 0
        self.trainer: CompletionTrainer | None = None
        self.last: StepMetrics | None = None

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        """Logs the last step too, which the logging interval may miss."""
        control.should_log = control.should_log or state.global_step == state.max_steps
        return control

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        logs, trainer = kwargs["logs"], self.trainer
        if trainer is None or "loss" not in logs:
            return control
        if not (math.isfinite(logs["loss"]) and math.isfinite(logs["grad_norm"])):
            raise UserError(
                f"step {state.global_step}: loss {logs['loss']} and gradient norm {logs['grad_norm']}; lower "
                "tune.learning_rate, or look for broken examples. Nothing was saved"
            )
        now = time.monotonic()
        every = max(1, state.max_steps // _VALIDATION_POINTS)
        measure = state.global_step % every < args.logging_steps or state.global_step == state.max_steps
        self.last = StepMetrics(
            step=state.global_step,
            steps=state.max_steps,
            epoch=trainer.order.epochs(state.global_step),
            loss=float(logs["loss"]),
            learning_rate=float(logs["learning_rate"]),
            gradient_norm=float(logs["grad_norm"]),
            tokens_per_s=(trainer.input_tokens - self._last_tokens) / (now - self._last),
            loss_tokens=sum(trainer.loss_tokens.values()),
            loss_tokens_by_origin=dict(trainer.loss_tokens),
            elapsed_s=now - self._began,
            memory_bytes=peak_memory_bytes(args.device),
            validation_loss=self._validate(kwargs["model"], args.device) if measure and self._validation else None,
        )
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(self.last)) + "\n")
        self._observer(self.last)
        self._last, self._last_tokens = time.monotonic(), trainer.input_tokens
        return control

    @torch.no_grad()
    def _validate(self, model: nn.Module, device: torch.device) -> float:
        model.eval()
        total, count = 0.0, 0
        for batch in self._batches:
            total += completion_loss(model, {name: tensor.to(device) for name, tensor in batch.items()}).item()
            count += int((batch["labels"] >= 0).sum())
        model.train()
        return total / count


def fit(
    model: PreTrainedModel,
    order: RowOrder,
    validation: Sequence[Row],
    tune: Tune,
    metrics_path: Path,
    observer: Observer,
    *,
    bfloat16: bool = False,
) -> TrainingResult:
    """Trains the parameters of ``model`` that require a gradient, in place.

    Args:
        model: On its device; wrapped by PEFT for LoRA.
        order: What to learn, and when.
        validation: What to measure the loss on, four times in a run.
        tune: How.
        metrics_path: Rows are appended here as they come.
        observer: Told of every row.
        bfloat16: Compute products in bfloat16 (autocast).

    Raises:
        UserError: Loss or gradient is not a finite number.
    """
    steps = tune.steps or order.steps(tune.epochs)
    pad_id = model.config.pad_token_id or 0
    recorder = _Recorder(metrics_path, validation, pad_id, tune.batch_size, observer)
    trainer = CompletionTrainer(
        order,
        model=model,
        args=_arguments(model, tune, steps, bfloat16),
        data_collator=partial(collate, pad_id=pad_id),
        callbacks=[recorder],
    )
    trainer.remove_callback(PrinterCallback)
    trainer.remove_callback(ProgressCallback)
    recorder.trainer = trainer
    began = time.monotonic()
    trainer.train()
    last = recorder.last
    if last is None:
        raise AssertionError("the last step is always logged")
    return TrainingResult(
        steps=trainer.state.global_step,
        loss_tokens=last.loss_tokens,
        loss_tokens_by_origin=last.loss_tokens_by_origin,
        final_loss=last.loss,
        duration_s=time.monotonic() - began,
    )


def _arguments(model: PreTrainedModel, tune: Tune, steps: int, bfloat16: bool) -> TrainingArguments:
    arguments = TrainingArguments(
        output_dir=tempfile.gettempdir(),
        max_steps=steps,
        per_device_train_batch_size=tune.batch_size,
        gradient_accumulation_steps=tune.accumulation,
        learning_rate=tune.learning_rate,
        lr_scheduler_type=tune.schedule,
        warmup_steps=warmup_steps(tune, steps),
        weight_decay=tune.weight_decay,
        max_grad_norm=tune.max_gradient_norm,
        seed=tune.seed,
        logging_steps=max(1, steps // _LOG_POINTS),
        logging_nan_inf_filter=False,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
        use_cpu=model.device.type == "cpu",
        dataloader_pin_memory=model.device.type == "cuda",
        bf16=bfloat16,
        optim="adamw_torch_fused" if model.device.type in ("cuda", "cpu") else "adamw_torch",
    )
    # On several GPUs the Trainer would wrap the model in DataParallel, which multiplies the batch and splits columns.
    arguments._n_gpu = min(arguments.n_gpu, 1)
    return arguments


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
