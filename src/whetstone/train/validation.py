"""The validation loss while training runs: measured, remembered, and acted upon.

A new best asks for a checkpoint, so that its weights are on disk whatever follows; too long without one ends training
(early stopping; Prechelt 1998, "Early Stopping - But When?"). All of it follows from the history of measurements, which
is therefore everything that a resumed training needs.
"""

import math
from collections.abc import Callable
from typing import Any

from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from whetstone.errors import UserError
from whetstone.train.checkpoint import CheckpointStore, read_checkpoint
from whetstone.train.restart import load_weights
from whetstone.tune_section import Validation

__all__ = ["ValidationLoss", "load_best_weights"]

_MEASUREMENTS = 4


class ValidationLoss(TrainerCallback):  # type: ignore[misc]
    """Measures every so many steps and at the last one; put it before callbacks that ask for what it measured.

    Attributes:
        history: The loss at each step where it was measured, in order; it may be infinite or not a number.
    """

    def __init__(self, measure: Callable[[], float], section: Validation) -> None:
        """Prepares the measurements.

        Args:
            measure: Gives the loss of the validation rows. It must leave the model in training mode, and draw no random
                numbers.
            section: How often, and with what patience.
        """
        self._measure = measure
        self._section = section
        self.history: dict[int, float] = {}

    def at(self, step: int) -> float | None:
        """The loss after so many steps, if it was measured then."""
        return self.history.get(step)

    @property
    def best(self) -> tuple[int, float] | None:
        """Step and loss of the lowest finite measurement, the earlier of equals; none when there is none."""
        finite = [(step, loss) for step, loss in self.history.items() if math.isfinite(loss)]
        return min(finite, key=lambda measured: measured[1], default=None)

    def is_best(self, step: int) -> bool:
        """Whether the measurement of a step is the best so far."""
        return self.best is not None and self.best[0] == step

    @property
    def stopped(self) -> str | None:
        """Why training ended early, or none when it did not."""
        patience, best = self._section.patience, self.best
        since_best = [step for step in self.history if best is None or step > best[0]]
        if patience is None or len(since_best) < patience:
            return None
        lowest = "no finite one was measured" if best is None else f"the lowest is {best[1]:.4f} at step {best[0]}"
        return (
            f"step {since_best[-1]}: {patience} measurements in a row without a new lowest validation loss "
            f"(tune.validation.patience); {lowest}"
        )

    def state(self) -> dict[str, Any]:
        """The history, for a checkpoint."""
        return {"history": [[step, loss] for step, loss in self.history.items()]}

    def restore(self, state: dict[str, Any]) -> None:
        """Takes the history of the training that is resumed."""
        self.history = dict(state["history"])

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        """Ends at once what had ended before it was resumed."""
        control.should_training_stop = control.should_training_stop or self.stopped is not None
        return control

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        """Measures where it is due; the Trainer logs and saves after this."""
        step = state.global_step
        every = self._section.every or max(1, state.max_steps // _MEASUREMENTS)
        if step % every == 0 or step >= state.max_steps:
            self.history[step] = self._measure()
            control.should_save = control.should_save or self.is_best(step)
            control.should_training_stop = control.should_training_stop or self.stopped is not None
        return control


def load_best_weights(model: nn.Module, store: CheckpointStore, validation: ValidationLoss) -> int:
    """Puts the weights of the lowest validation loss back into the model that was trained.

    Returns:
        The step that they are of.

    Raises:
        UserError: No finite loss was measured, or the checkpoint is missing or damaged.
    """
    if validation.best is None:
        raise UserError(
            "tune.validation.keep: best, but no finite validation loss was measured; lower the learning rate"
        )
    step, _ = validation.best
    checkpoint = store.best()
    if checkpoint is None or checkpoint.step != step:
        raise UserError(
            f"{store.folder}: the checkpoint of step {step}, which is the best, is missing or damaged; "
            "train again with 'whet tune --fresh'"
        )
    load_weights(model, read_checkpoint(checkpoint.folder))
    return step
