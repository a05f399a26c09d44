"""Stops training that has gone wrong, in one line that says what happened, where, and what to do.

Notable: a model with root-mean-square norms does not answer an absurd learning rate with NaN. At 1e4 the squares
overflow, the norm returns zeros, and the run goes on for ever with the loss of a uniform guess and a gradient of
exactly zero (measured on tiny Llama models, full and LoRA). So a gradient that vanishes while there is something to
learn stops the run, as a loss that rises does.
"""

import hashlib
import math
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from statistics import median
from typing import Any

import torch
from transformers import PreTrainedModel

from whetstone import tune_section
from whetstone.errors import UserError

__all__ = ["FrozenAdapter", "Guard", "TrainingStopped", "require_loss_tokens"]

_WINDOW_STEPS = 20

# A model that lost everything guesses by the frequency of tokens: about 3 nats for bytes, 7 and more for the usual
# vocabularies. Below that, a large multiple of a small median (0.001 after memorising) is one hard example.
_FLOOR_NATS = 2.0

# The first batch can be an easy one: the median of so few is trusted only when the loss is out of the ordinary.
_FEW_STEPS = 5
_FLOOR_OF_FEW_NATS = 4.0

# What is known by heart has a gradient that rounds to zero, and rightly so.
_LEARNED_NATS = 0.01

# Spikes that pass are no sign of anything in steps of single rows, where replayed rows cost more than those that are
# known by heart. Where more than one of the last 200 steps or so was such a spike, a run of spikes has to be as
# improbable as ``spikes`` in a row are at that rate.
_USUAL_RATE = 1 / 200

_EXAMPLES_SHOWN = 3
_WEIGHTS_SAMPLED = 256


class TrainingStopped(UserError):  # noqa: N818 - a guard that does its work is no error of the program
    """Training went wrong and was ended; what was saved before is untouched."""


class Guard:
    """Looks at every step before its optimiser step, so that a broken gradient never reaches the weights.

    A loss is a spike when it exceeds the median of the last 20 steps ``spike`` times or by ``spike`` nats, whichever is
    less, and 2 nats in any case. The second bound is there because a collapsed model costs 7 to 12 nats, and no more,
    which is never four times a median of 3. Spikes are kept out of the median while they last: the third would
    otherwise be compared with the first two. Once the loss is back they join it, and are known to pass. Where many have
    passed, more than ``spikes`` in a row are needed: 6 instead of 3 at one spike in 20 steps, 7 at one in 10.
    """

    def __init__(self, settings: tune_section.Guard, last_checkpoint: Callable[[], str | None]) -> None:
        """Begins with no history.

        Args:
            settings: The limits.
            last_checkpoint: Asked, when training stops, for the newest checkpoint that can be resumed from.
        """
        self._settings = settings
        self._last_checkpoint = last_checkpoint
        self._losses: deque[float] = deque(maxlen=_WINDOW_STEPS)
        self._spikes: list[float] = []
        self._vanished = 0
        self._rate = 0.0

    @property
    def calm(self) -> bool:
        """Whether the last step was ordinary; weights of any other moment are not worth a checkpoint."""
        return not self._spikes and not self._vanished

    def check(self, step: int, loss: float, gradient_norm: float, examples: Sequence[str]) -> None:
        """Accepts a step or ends the training.

        Args:
            step: The optimiser step that is about to be made, from 1.
            loss: Mean of the step, in nats for a token where the method learns from answers.
            gradient_norm: Before clipping, of the unscaled gradient. Where a loss scaler has found an overflow and
                skips the step, there is nothing to check.
            examples: The ids of the examples in the step.

        Raises:
            TrainingStopped: Loss or gradient is not finite, the gradient is too large, or for ``spikes`` steps in a row
                the loss was a spike or the gradient exactly zero.
        """
        limit = self._settings.gradient_norm
        precise = "or set tune.precision to float32"
        if not math.isfinite(loss):
            self._stop(step, f"the loss is {loss}", precise, examples)
        if not math.isfinite(gradient_norm):
            self._stop(step, f"the gradient norm is {gradient_norm} (loss {loss:.4g})", precise, examples)
        if gradient_norm > limit:
            what = f"the gradient norm is {gradient_norm:.4g}, above {limit:g} (loss {loss:.4g})"
            self._stop(step, what, "or raise tune.guard.gradient_norm", examples)
        self._vanished = self._vanished + 1 if gradient_norm == 0 and loss > _LEARNED_NATS else 0
        if self._vanished >= self._settings.spikes:
            what = f"the gradient was exactly zero {_in_a_row(self._vanished)} although the loss is {loss:.4g}"
            self._stop(step, f"{what}: the weights have overflowed, or nothing of them is used", precise, examples)
        self._watch(step, loss, examples)

    def state(self) -> dict[str, Any]:
        """What a checkpoint has to keep, as JSON."""
        return {
            "losses": list(self._losses),
            "spikes": list(self._spikes),
            "vanished": self._vanished,
            "rate": self._rate,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Goes on from what :meth:`state` gave."""
        self._losses.clear()
        self._losses.extend(state["losses"])
        self._spikes = list(state["spikes"])
        self._vanished, self._rate = state["vanished"], state["rate"]

    def _watch(self, step: int, loss: float, examples: Sequence[str]) -> None:
        usual = median(self._losses) if self._losses else math.inf
        spike = self._settings.spike
        floor = _FLOOR_OF_FEW_NATS if len(self._losses) < _FEW_STEPS else _FLOOR_NATS
        if loss <= max(floor, min(spike * usual, usual + spike)):
            for passed in (*[1.0] * len(self._spikes), 0.0):
                self._rate += (passed - self._rate) * _USUAL_RATE
            self._losses.extend((*self._spikes, loss))
            self._spikes.clear()
            return
        self._spikes.append(loss)
        rate = max(_USUAL_RATE, self._rate)
        if len(self._spikes) >= self._settings.spikes * math.log(_USUAL_RATE) / math.log(rate):
            what = f"the loss {loss:.4g} is far above the median {usual:.4g} of the steps before"
            what += f", {_in_a_row(len(self._spikes))}"
            self._stop(step, what, "or raise tune.guard.spike", examples)

    def _stop(self, step: int, what: str, mend: str, examples: Sequence[str]) -> None:
        checkpoint = self._last_checkpoint()
        kept = (
            "no checkpoint yet"
            if checkpoint is None
            else f"the last good checkpoint is {checkpoint} ('whet tune --resume' goes on with the same settings)"
        )
        raise TrainingStopped(
            f"step {step}: {what}; {_named(examples)}; {kept}; lower tune.learning_rate or mend the examples and "
            f"begin anew with --fresh, {mend}"
        )


def require_loss_tokens(loss_tokens: int, examples: Iterable[str], step: int | None = None) -> None:
    """Refuses a step, or a whole run, in which nothing is learned: its mean loss would be a division by zero.

    Args:
        loss_tokens: Labels that are learned; a label at the first position has nothing that predicts it.
        examples: The ids of the examples that they were counted in.
        step: The optimiser step; None for the whole run.

    Raises:
        UserError: There is none.
    """
    if loss_tokens < 1:
        where = "the whole run" if step is None else f"step {step}"
        raise UserError(
            f"{where}: no token is learned, every label is masked; {_named(examples)}; give these examples answers, or "
            "raise data.max_tokens if their answers were cut off"
        )


class FrozenAdapter:
    """Finds training that trains nothing: the logits of a probe stay, bit for bit, what they were before it.

    The start is remembered as a hash of the logits, so it fits into a checkpoint. An adapter's start is the base: LoRA
    begins with B = 0 (Hu et al. 2021, arXiv:2106.09685). DoRA's start equals the base but for rounding, which is why
    the model is compared with itself as it began, and not with its adapter switched off.

    On another machine the last bits of the logits differ, and a run that is resumed there is never called frozen.
    """

    def __init__(self, model: PreTrainedModel, probe_ids: Sequence[int], steps: int) -> None:
        """Remembers how the model answers before the first optimiser step.

        Args:
            model: As it will be trained; its parameters are changed in place.
            probe_ids: A few tokens, such as the first prompt.
            steps: So many optimiser steps must have changed the logits.

        Raises:
            TrainingStopped: No parameter requires a gradient, or none that does bears on the logits.
        """
        self._model = model
        self._probe = torch.tensor([list(probe_ids)])
        self._steps = steps
        if not any(parameter.requires_grad for parameter in model.parameters()):
            raise TrainingStopped(
                "before the first step: no parameter requires a gradient, so nothing can be trained; enable the "
                "adapter, or check tune.targets"
            )
        with torch.enable_grad():
            logits = self._logits()
        if not logits.requires_grad:
            raise TrainingStopped(
                "before the first step: no parameter that is trained bears on the logits; enable the adapter, or name "
                "layers in tune.targets that the model's forward uses"
            )
        self._logits_hash = _bits_hash([logits])
        self._weights_hash = self._hash_weights()

    def check(self, step: int, *, last: bool = False) -> None:
        """Compares, after ``steps`` optimiser steps and after the last one.

        Args:
            step: Optimiser steps done.
            last: Whether training ends here.

        Raises:
            TrainingStopped: The logits are those of the start.
        """
        if step != self._steps and not last:
            return
        with torch.no_grad():
            logits = self._logits()
        if _bits_hash([logits]) != self._logits_hash:
            return
        cause = (
            "no trained weight has changed either: the learning rate is 0, or too small for the type of the weights "
            "(tune.learning_rate, tune.schedule, tune.warmup_steps), or tune.targets names layers that the model's "
            "forward does not use"
            if self._hash_weights() == self._weights_hash
            else "trained weights have changed, but too little to bear on them (tune.learning_rate), or the adapter is "
            "disabled, or tune.targets names layers that the model's forward does not use"
        )
        raise TrainingStopped(f"step {step}: the logits are still, bit for bit, those before training; {cause}")

    def state(self) -> dict[str, Any]:
        """What a checkpoint has to keep, as JSON: a resumed run is compared with its first start."""
        return {"logits": self._logits_hash, "weights": self._weights_hash}

    def restore(self, state: dict[str, Any]) -> None:
        """Goes on from what :meth:`state` gave."""
        self._logits_hash, self._weights_hash = state["logits"], state["weights"]

    def _logits(self) -> torch.Tensor:
        """Without dropout, and so without a draw from the random stream of training; ``(1, tokens, vocabulary)``."""
        training = self._model.training
        self._model.eval()
        # Compiled layers round otherwise, and the first look was at layers that were not.
        with torch.compiler.set_stance("force_eager"):
            logits: torch.Tensor = self._model(input_ids=self._probe.to(self._model.device), use_cache=False).logits
        self._model.train(training)
        return logits

    def _hash_weights(self) -> str:
        """A sample is enough to tell the causes apart, and takes no time on eight billion weights."""
        trained = (parameter for parameter in self._model.parameters() if parameter.requires_grad)
        return _bits_hash(parameter.flatten()[:_WEIGHTS_SAMPLED] for parameter in trained)


def _bits_hash(tensors: Iterable[torch.Tensor]) -> str:
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _named(examples: Iterable[str]) -> str:
    """The first few ids, and how many more there are; an example with several answers is one."""
    ids = list(dict.fromkeys(examples))
    shown = ", ".join(f"'{name}'" for name in ids[:_EXAMPLES_SHOWN])
    more = f" and {len(ids) - _EXAMPLES_SHOWN:,} more" if len(ids) > _EXAMPLES_SHOWN else ""
    return f"example{'' if len(ids) == 1 else 's'} {shown}{more}" if ids else "no example"


def _in_a_row(steps: int) -> str:
    return "in this step" if steps == 1 else f"{steps} steps in a row"
