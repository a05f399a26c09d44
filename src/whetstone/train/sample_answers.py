"""What the model says to a few validation prompts while it learns.

Notable: watching changes nothing. The answers are greedy, one prompt at a time without padding; random streams, modes
and settings of the model are left as they were, so the weights are the same, bit for bit, with and without.
"""

# The callbacks of transformers are untyped here, and they are meant to be subclassed.
# mypy: allow-subclassing-any

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import (
    GenerationConfig,
    PreTrainedModel,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from whetstone.data.template import Template
from whetstone.models.load import context_tokens, end_ids
from whetstone.train.batch import Row
from whetstone.train.recorder import append_row
from whetstone.tune_section import Watch

__all__ = ["SampleAnswer", "SampleAnswers"]

_MAX_NEW_TOKENS = 64


@dataclass(frozen=True, slots=True)
class SampleAnswer:
    """One row of ``watch.jsonl``.

    Attributes:
        step: Optimiser steps that the model had made.
        example: The id of the validation example.
        prompt: As the template renders it, without special tokens.
        answer: What the model said, cut after 64 tokens.
        reference: An answer that counts as right.
    """

    step: int
    example: str
    prompt: str
    answer: str
    reference: str


class SampleAnswers(TrainerCallback):
    """Lets the model answer every so many steps, and after the last."""

    def __init__(
        self,
        path: Path,
        rows: Sequence[Row],
        template: Template,
        watch: Watch,
        observer: Callable[[SampleAnswer], None],
    ) -> None:
        """Chooses the prompts: those of the first examples, each once however many references it has.

        Args:
            path: Rows are appended here; :func:`whetstone.train.recorder.cut_after` mends it when a run is resumed.
            rows: The validation rows.
            template: Decodes prompts and answers, and knows what ends an answer.
            watch: Says how often (``samples_every``) and how many (``samples``).
            observer: Told of every answer once it is written.
        """
        self._path = path
        firsts: dict[str, Row] = {}
        for row in rows:
            firsts.setdefault(row.example, row)
        self._rows = list(firsts.values())[: watch.samples]
        self._template = template
        self._every = watch.samples_every
        self._observer = observer

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Answers where the interval says so; the last step is left to :meth:`on_epoch_end`."""
        if self._every and state.global_step % self._every == 0 and not control.should_training_stop:
            self._answer(kwargs["model"], state.global_step)

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Answers after the last step, also of a run that stops early."""
        if self._every and control.should_training_stop:
            self._answer(kwargs["model"], state.global_step)

    def _answer(self, model: PreTrainedModel, step: int) -> None:
        stop_ids = sorted(self._template.stop_ids(end_ids(model)))
        with _only_looking(model):
            for row in self._rows:
                ids = torch.tensor([row.input_ids[: row.prompt_tokens]], device=model.device)
                config = GenerationConfig(
                    do_sample=False,
                    max_new_tokens=min(_MAX_NEW_TOKENS, context_tokens(model.config) - row.prompt_tokens),
                    eos_token_id=stop_ids,
                    pad_token_id=stop_ids[0],
                    use_cache=True,
                )
                generated = model.generate(
                    input_ids=ids, attention_mask=torch.ones_like(ids), generation_config=config
                )[0, row.prompt_tokens :]
                answer = SampleAnswer(
                    step=step,
                    example=row.example,
                    prompt=self._template.decode(row.input_ids[: row.prompt_tokens]),
                    answer=self._template.decode(generated.tolist()),
                    reference=self._template.decode(row.input_ids[row.prompt_tokens :]),
                )
                append_row(self._path, asdict(answer))
                self._observer(answer)


@contextlib.contextmanager
def _only_looking(model: nn.Module) -> Iterator[None]:
    """Evaluation mode, with every module's own mode and the random streams put back at the end."""
    training = [module for module in model.modules() if module.training]
    devices = [parameter.device for parameter in model.parameters() if parameter.device.type == "cuda"][:1]
    # Every new length would be compiled, for one token.
    with torch.random.fork_rng(devices), torch.compiler.set_stance("force_eager"):
        model.eval()
        try:
            yield
        finally:
            # Not model.train(): what the trainer keeps in evaluation mode must stay there.
            for module in training:
                module.training = True
