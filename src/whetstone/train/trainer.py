"""The transformers Trainer with our batches, our loss and our log; loop, optimiser and schedule are its own.

Notable: what the Trainer takes for a batch is a whole optimiser step. It is cut into micro-batches here, each is
backpropagated before the next is computed, and the loss is divided by the loss tokens of the step: accumulation changes
memory, never the result. A step for which memory does not suffice is begun again in smaller pieces.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn
from torch.utils.data import Dataset, Sampler
from transformers import PreTrainedModel, TrainingArguments

from whetstone.train.batch import ORIGINS, Row, RowDataset
from whetstone.train.guard import FrozenAdapter, require_loss_tokens
from whetstone.train.loss import Loss
from whetstone.train.micro import MicroBatches, is_out_of_memory
from whetstone.train.order import RowOrder, RowSampler
from whetstone.train.recorder import Counters
from whetstone.train.session import Session
from whetstone.train.supervise import Supervised, TrainingResult, probe_ids, supervise, training_options, unwatched
from whetstone.tune_section import Tune

__all__ = ["CompletionTrainer", "fit"]


class CompletionTrainer(Supervised):
    """A Trainer whose loss is summed over tokens and divided by the loss tokens of the whole optimiser step."""

    def __init__(self, order: RowOrder, loss: Loss, micro: MicroBatches, **kwargs: Any) -> None:
        super().__init__(train_dataset=RowDataset(order.rows), data_collator=list, **kwargs)
        present = {row.origin for row in order.rows}
        self.order = order
        self.counters = Counters(loss_tokens={origin: 0 for origin in ORIGINS if origin in present})
        self.loss = loss
        self.micro = micro
        self._rows: list[Row] = []
        self._step_loss = torch.zeros(())

    def _get_train_sampler(self, train_dataset: Dataset[Row] | None = None) -> Sampler[int]:
        """The order of the whole run; the Trainer has no sampler that mixes."""
        return RowSampler(self.order, self.args.max_steps)

    def floating_point_ops(self, inputs: Any) -> int:
        """Not counted: what a trie saves would be counted, too."""
        return 0

    def training_step(
        self, model: nn.Module, rows: list[Row], num_items_in_batch: torch.Tensor | int | None = None
    ) -> torch.Tensor:
        """Leaves the gradient of a whole optimiser step in the parameters, and gives its mean loss."""
        model.train()
        self._rows = rows
        require_loss_tokens(sum(row.loss_tokens for row in rows), _names(rows), self.state.global_step + 1)
        while True:
            try:
                self._step_loss, computed_tokens = self._learn(rows)
                break
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
            model.zero_grad()
            self.micro.halve(self.state.global_step + 1, rows)
        self.counters.row_tokens += sum(len(row.input_ids) for row in rows)
        self.counters.computed_tokens += computed_tokens
        for row in rows:
            self.counters.loss_tokens[row.origin] += row.loss_tokens
        return self._step_loss

    def _learn(self, rows: list[Row]) -> tuple[torch.Tensor, int]:
        """The mean loss of a step, backpropagated, and how many tokens were computed for it."""
        loss_tokens = sum(row.loss_tokens for row in rows)
        total, computed_tokens = torch.zeros((), device=self.args.device), 0
        for micro_batch in self.micro.cut(rows):
            for part in self.loss.parts(micro_batch):
                share = part.total / loss_tokens
                self.accelerator.backward(share)
                total += share.detach()
                computed_tokens += part.computed_tokens
        return total, computed_tokens

    def step_summary(self) -> tuple[float, list[str]]:
        """The mean loss of the step whose gradient is there, and the ids of its examples; culprits where it is NaN."""
        if self._step_loss.isfinite():
            return self._step_loss.item(), _names(self._rows)
        with torch.no_grad():
            losses = [torch.stack([part.total for part in self.loss.parts([row])]).sum() for row in self._rows]
        culprits = [row for row, loss in zip(self._rows, losses, strict=True) if not loss.isfinite()]
        return self._step_loss.item(), _names(culprits or self._rows)


def _names(rows: Sequence[Row]) -> list[str]:
    """The examples of rows, each once."""
    return list(dict.fromkeys(row.example for row in rows))


def fit(
    model: PreTrainedModel, order: RowOrder, validation: Sequence[Row], tune: Tune, session: Session
) -> TrainingResult:
    """Trains the parameters of ``model`` that require a gradient, in place.

    Args:
        model: On its device, prepared (:func:`whetstone.train.prepare.prepare`).
        order: What to learn, and when.
        validation: What to measure the loss on.
        tune: How.
        session: Where, and who is told.

    Raises:
        TrainingStopped: Training went wrong (a UserError; see :mod:`whetstone.train.guard`).
        UserError: There is nothing to learn, the run is shorter than its warm-up, or a checkpoint cannot be used.
    """
    settings = session.settings
    require_loss_tokens(sum(row.loss_tokens for row in order.rows), _names(order.rows))
    loss = Loss(
        model, order.rows, share_tokens=tune.share_tokens, compiled=settings.compile, autocast=settings.autocast
    )
    frozen = FrozenAdapter(model, probe_ids(order), tune.guard.frozen_steps)
    micro = MicroBatches(tune.batch_size, session.say)
    options = training_options(model, tune, tune.steps or order.steps(tune.epochs), session)
    trainer = CompletionTrainer(order, loss, micro, model=model, args=TrainingArguments(**options))
    measure = (lambda: _mean_loss(model, loss, validation, micro.rows)) if validation else None
    result = supervise(trainer, frozen, measure, tune, session, {"micro": micro})
    idle = () if validation else unwatched(tune, "there are no validation rows")
    return replace(result, notes=(*idle, *loss.notes, *micro.notes, *result.notes))


@torch.no_grad()
def _mean_loss(model: PreTrainedModel, loss: Loss, rows: Sequence[Row], batch_size: int) -> float:
    """The mean loss of a token of some rows; similar lengths together."""
    model.eval()
    ordered = sorted(rows, key=lambda row: len(row.input_ids))
    batches = [ordered[start : start + batch_size] for start in range(0, len(ordered), batch_size)]
    # Each new length would be compiled, for one pass.
    with torch.compiler.set_stance("force_eager"):
        total = sum(part.total.item() for batch in batches for part in loss.parts(batch))
    model.train()
    return total / sum(row.loss_tokens for row in rows)
