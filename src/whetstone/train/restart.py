"""A Trainer that goes on where it was interrupted, bit for bit.

:class:`Restartable` is mixed into any transformers Trainer (ours, TRL's). It puts everything that bears on the steps to
come into one checkpoint (:mod:`whetstone.train.checkpoint`) and takes it out again: trainable weights, optimiser,
learning-rate schedule, gradient scaler, every random generator, the loss that is not logged yet, and the counters of
whoever asks (:class:`Resumable`). It writes nothing of the Trainer's own and reads no pickle.

Notable: which rows come next is not saved, since the order is a function of seed and step
(:mod:`whetstone.train.order`). An optimiser casts loaded state to the type of its parameter; that rounds the float32
statistics of bfloat16 weights, so they are put back as they were. One process trains.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn
from torch.optim import Optimizer
from transformers import Trainer

from whetstone.errors import UserError
from whetstone.train.checkpoint import Checkpoint, CheckpointStore, read_checkpoint, read_part
from whetstone.train.random_streams import random_state, restore_random_state

__all__ = ["Restart", "Restartable", "Resumable", "load_weights"]


class Resumable(Protocol):
    """Something with counters of its own that a resumed training must go on with."""

    def state(self) -> dict[str, Any]:
        """What to save: anything that JSON can hold; numbers may be infinite or not a number."""

    def restore(self, state: dict[str, Any]) -> None:
        """Takes what :meth:`state` gave, in another process."""


def _not_measured(step: int) -> float | None:
    return None


@dataclass(frozen=True, slots=True)
class Restart:
    """What a :class:`Restartable` needs.

    Attributes:
        store: Where checkpoints go.
        resumables: Whose state goes in and comes back, by name. A name that a checkpoint lacks keeps its fresh state,
            so a run may be resumed with another observer.
        validation_loss: The one that was measured at a step, if any: it decides which checkpoint is the best.
    """

    store: CheckpointStore
    resumables: Mapping[str, Resumable] = field(default_factory=dict)
    validation_loss: Callable[[int], float | None] = _not_measured


class Restartable(Trainer):  # type: ignore[misc]
    """Mix in before the Trainer, set :attr:`restart`, then ``train(resume_from_checkpoint=str(checkpoint.folder))``.

    A checkpoint is saved whenever the Trainer or a callback says so (``save_steps``, ``control.should_save``).
    """

    restart: Restart
    """Set before ``train``."""

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """Saves everything in one checkpoint; the Trainer's own (and TRL's model card) are not written."""
        self.store_flos()
        step = self.state.global_step
        scaler = self.accelerator.scaler
        parts = {
            "weights": _trainable(self.model),
            "optimiser": self.optimizer.state_dict(),
            "scheduler": self.lr_scheduler.state_dict(),
            "scaler": None if scaler is None else scaler.state_dict(),
            "random": random_state(),
            "unlogged": {"loss": self._tr_loss.item(), "since_step": self._globalstep_last_logged},
            "resumables": {name: resumable.state() for name, resumable in self.restart.resumables.items()},
            # The Trainer reads this file itself, to know its step.
            "trainer_state": asdict(self.state),
        }
        self.restart.store.save(step, parts, self.restart.validation_loss(step))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        """Proves the checkpoint, then restores the weights and those that count; the Trainer calls this first."""
        checkpoint = read_checkpoint(Path(resume_from_checkpoint))
        load_weights(self.model, checkpoint)
        states = checkpoint.part("resumables")
        for name, resumable in self.restart.resumables.items():
            if name in states:
                resumable.restore(states[name])

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is None:
            return
        folder = Path(checkpoint)
        try:
            _restore_optimiser(self.optimizer, read_part(folder, "optimiser"))
        except (ValueError, KeyError) as error:
            raise UserError(f"{folder}: not of this optimiser ({error}); resume with the same tune section") from error
        self.lr_scheduler.load_state_dict(read_part(folder, "scheduler"))

    def _load_scaler(self, checkpoint: str | None) -> None:
        scaler = self.accelerator.scaler
        if checkpoint is None or scaler is None:
            return
        state = read_part(Path(checkpoint), "scaler")
        if state is None:
            raise UserError(f"{checkpoint}: saved at another tune.precision; resume with the same tune section")
        scaler.load_state_dict(state)

    def _load_rng_state(self, checkpoint: str | None) -> None:
        """Restores the random generators, and what the Trainer has begun to sum for its next log.

        The Trainer calls this last, after everything that draws random numbers while training is set up.
        """
        if checkpoint is None:
            return
        unlogged = read_part(Path(checkpoint), "unlogged")
        self._tr_loss.fill_(unlogged["loss"])
        self._globalstep_last_logged = unlogged["since_step"]
        # The mean loss that the Trainer reports at the end is of the steps of this process only.
        self._total_loss_scalar = -unlogged["loss"]
        restore_random_state(read_part(Path(checkpoint), "random"))

    def _run_epoch(self, **kwargs: Any) -> None:
        """The Trainer would do one more step before it looks whether a callback had ended training already."""
        if not self.control.should_training_stop:
            super()._run_epoch(**kwargs)


@torch.no_grad()
def load_weights(model: nn.Module, checkpoint: Checkpoint) -> None:
    """Puts a checkpoint's weights into the trainable parameters of the model that they are of.

    Raises:
        UserError: The model has other parameters; it is left as it was.
    """
    saved, parameters = checkpoint.part("weights"), _trainable(model)
    for name in sorted(saved.keys() | parameters.keys()):
        there, here = (_described(tensors.get(name)) for tensors in (saved, parameters))
        if there != here:
            raise UserError(
                f"{checkpoint.folder}: {name} is {there} there and {here} in this model; resume with the same model "
                "and tune sections"
            )
    for name, parameter in parameters.items():
        parameter.copy_(saved[name])


def _trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    """Parameters that learn, by name; one that is tied to another is named once."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def _described(tensor: torch.Tensor | None) -> str:
    return "absent" if tensor is None else f"{tensor.dtype} {tuple(tensor.shape)}"


def _restore_optimiser(optimiser: Optimizer, saved: dict[str, Any]) -> None:
    optimiser.load_state_dict(saved)
    parameters = (parameter for group in optimiser.param_groups for parameter in group["params"])
    indices = (index for group in saved["param_groups"] for index in group["params"])
    for parameter, index in zip(parameters, indices, strict=True):
        state, exact = optimiser.state.get(parameter, {}), saved["state"].get(index, {})
        for name, value in state.items():
            if isinstance(value, torch.Tensor) and name in exact and value.dtype != exact[name].dtype:
                state[name] = exact[name].to(value.device)
