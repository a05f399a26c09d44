"""Learning from preferences and from rewards: DPO, ORPO and GRPO, by TRL's trainers on our token ids.

Notable: TRL renders no text here. Prompts and answers are encoded by :class:`~whetstone.data.template.Template`, so a
model is tuned on the ids that it is judged and served with. The reference model is the base, with the adapter switched
off; there is one copy of the weights. Dropout is off: the methods compare probabilities of one text.
"""

import copy
import os
from array import array
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import datasets
import torch
from peft import PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from whetstone.data.example import Example
from whetstone.data.template import Template
from whetstone.data_section import Data
from whetstone.errors import UserError
from whetstone.experiment import Experiment
from whetstone.train.batch import Row
from whetstone.train.check import Checked
from whetstone.train.guard import FrozenAdapter, TrainingStopped
from whetstone.train.micro import is_out_of_memory
from whetstone.train.order import RowOrder
from whetstone.train.preference_trainers import DPO, GRPO, ORPO, DPOConfig, GRPOConfig, OnPairs, ORPOConfig, Pair
from whetstone.train.rewards import Score, scores
from whetstone.train.session import Session
from whetstone.train.supervise import TrainingResult, probe_ids, supervise, training_options, unwatched
from whetstone.tune_section import Tune

__all__ = ["MadePreferences", "PreferenceRow", "fit_preferences", "make_preference_rows", "preference_trainer"]


@dataclass(frozen=True, slots=True)
class PreferenceRow:
    """A prompt, and two answers to it.

    Attributes:
        example: What it comes from.
        prompt_ids: Up to the place where the answer begins.
        chosen_ids: The better answer, the end-of-turn token last unless it is truncated. GRPO, which answers itself,
            takes nothing from it but the order of the rows.
        rejected_ids: The worse answer; empty for GRPO.
    """

    example: Example
    prompt_ids: Sequence[int]
    chosen_ids: Sequence[int]
    rejected_ids: Sequence[int] = ()


@dataclass(frozen=True, slots=True)
class MadePreferences:
    """What became of examples: the rows, how many were left out as too long, how many lost the end of an answer."""

    rows: list[PreferenceRow]
    dropped: int
    truncated: int


def make_preference_rows(
    examples: Sequence[Example], template: Template, data: Data, tune: Tune, context_tokens: int
) -> MadePreferences:
    """Renders examples for the method: a row for each pair of answers, or for each prompt.

    A pair whose answers are too long is cut where both still differ, else dropped. A prompt must leave room for
    ``tune.rewards.max_new_tokens``; there is nothing of it to cut.

    Raises:
        UserError: An example has no rejected answer, or a row is too long and the policy is ``raise``.
    """
    limit = min(data.max_tokens, context_tokens)
    rows: list[PreferenceRow] = []
    dropped = truncated = 0
    for row in _encoded(examples, template, tune):
        answer = max(len(row.chosen_ids), len(row.rejected_ids))
        room = limit - len(row.prompt_ids)
        if tune.method == "grpo":
            answer = tune.rewards.max_new_tokens
        if answer <= room:
            rows.append(row)
            continue
        if data.too_long == "raise":
            raise UserError(
                f"example '{row.example.id}': {len(row.prompt_ids) + answer} tokens, but at most {limit} are allowed; "
                "raise data.max_tokens, set data.too_long to drop or truncate, or shorten it"
            )
        chosen, rejected = row.chosen_ids[: max(room, 0)], row.rejected_ids[: max(room, 0)]
        if data.too_long == "truncate" and tune.method != "grpo" and chosen != rejected:
            rows.append(PreferenceRow(row.example, row.prompt_ids, chosen, rejected))
            truncated += 1
        else:
            dropped += 1
    return MadePreferences(rows, dropped, truncated)


def _encoded(examples: Sequence[Example], template: Template, tune: Tune) -> list[PreferenceRow]:
    rows = []
    prompts = template.prompt_ids_many([example.messages for example in examples])
    for example, prompt in zip(examples, prompts, strict=True):
        learned = template.answer_ids_many(example.references if tune.references == "all" else example.references[:1])
        if tune.method == "grpo":
            rows.append(PreferenceRow(example, prompt, learned[0]))
            continue
        if not example.rejected:
            raise UserError(
                f"example '{example.id}': has no rejected answer, which {tune.method} learns from; give rows with "
                "'chosen' and 'rejected'"
            )
        rejected = template.answer_ids_many(example.rejected)
        rows += [PreferenceRow(example, prompt, better, worse) for better in learned for worse in rejected]
    return rows


class _Graded:
    """A reward in the shape that TRL takes; answers are decoded as evaluation decodes them."""

    def __init__(self, name: str, score: Score, rows: Sequence[PreferenceRow], decode: Callable[[Any], str]) -> None:
        self.__name__ = name
        self._score, self._rows, self._decode = score, rows, decode

    def __call__(self, *, completion_ids: list[list[int]], index: list[int], **_: Any) -> list[float]:
        examples = [self._rows[place].example for place in index]
        with ThreadPoolExecutor(os.cpu_count()) as threads:
            return list(threads.map(self._score, examples, map(self._decode, completion_ids)))


class _FrozenPolicy(FrozenAdapter):
    """Names one more cause, which the methods that learn from given answers cannot have."""

    def check(self, step: int, *, last: bool = False) -> None:
        """As the class above.

        Raises:
            TrainingStopped: The logits are those of the start.
        """
        try:
            super().check(step, last=last)
        except TrainingStopped as error:
            raise TrainingStopped(
                f"{error}; or all answers to a prompt were rewarded alike in every step, which teaches nothing "
                "(tune.rewards; tune.guard.frozen_steps waits longer)"
            ) from None


def fit_preferences(model: PeftModel, experiment: Experiment, checked: Checked, session: Session) -> TrainingResult:
    """Trains the adapter of ``model``, in place; everything else of it is left as it was.

    Args:
        model: On its device, with a fresh adapter; the base under it is the reference.
        experiment: How; ``tune.method`` is ``dpo``, ``orpo`` or ``grpo``.
        checked: What to learn, and what to measure the loss on.
        session: Where, and who is told.

    Raises:
        TrainingStopped: Training went wrong (a UserError; see :mod:`whetstone.train.guard`).
        UserError: The settings do not fit the method, an example lacks what the method needs, there is nothing to
            learn, memory is out, or a checkpoint cannot be used.
    """
    tune, splits = experiment.tune, checked.splits
    limits = checked.template, experiment.data, tune, checked.context_tokens
    learned = make_preference_rows(splits.train, *limits)
    # The mean reward of the validation prompts would have to be generated.
    watched = make_preference_rows(() if tune.method == "grpo" else splits.validation, *limits)
    if not learned.rows:
        raise UserError("data.max_tokens: every training row is longer than allowed; raise it, or shorten the rows")
    with _base_restored(model.get_base_model()):
        trainer = preference_trainer(model, learned.rows, checked.template, tune, session)
        try:
            pairs = _pairs(watched.rows)
            measure = partial(trainer.mean_loss, pairs) if isinstance(trainer, OnPairs) and pairs else None
            kind = _FrozenPolicy if isinstance(trainer, GRPO) else FrozenAdapter
            frozen = kind(model, probe_ids(trainer.order), tune.guard.frozen_steps)
            result = supervise(trainer, frozen, measure, tune, session)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            raise UserError(
                f"step {trainer.state.global_step + 1}: out of memory with tune.batch_size {tune.batch_size}; lower it "
                "and raise tune.accumulation by as much, set tune.activation_checkpointing, or lower data.max_tokens"
            ) from error
    notes = (*_length_notes("training", learned, tune), *_length_notes("validation", watched, tune))
    return replace(result, notes=(*notes, *_unapplied(experiment, watched), *result.notes))


@contextmanager
def _base_restored(base: PreTrainedModel) -> Iterator[None]:
    """The Trainers change a model's special tokens and its use of the cache, and TRL its forward; all go back."""
    config, generation, forward = base.config.get_text_config(), base.generation_config, vars(base).get("forward")
    values = vars(config).copy()
    base.generation_config = copy.deepcopy(generation)
    try:
        yield
    finally:
        base.generation_config = generation
        vars(config).update(values)
        vars(base).pop("forward", None)
        if forward is not None:
            base.forward = forward


def _length_notes(part: str, made: MadePreferences, tune: Tune) -> Iterator[str]:
    """What the length policy did."""
    rows = "prompts" if tune.method == "grpo" else "pairs"
    for count, fate in ((made.dropped, "were dropped"), (made.truncated, "lost the end of an answer")):
        if count:
            yield f"{count} {part} {rows} were longer than allowed and {fate} (data.too_long)."


def _unapplied(experiment: Experiment, watched: MadePreferences) -> Iterator[str]:
    """Settings other than the default that these methods have no use for."""
    method = experiment.tune.method
    if experiment.data.replay is not None:
        yield f"data.replay is not applied: {method} learns from no single answers."
    if not watched.rows:
        reason = (
            "grpo draws its answers, and none are drawn to validation prompts"
            if method == "grpo"
            else "there are no validation pairs"
        )
        yield from unwatched(experiment.tune, reason)


def preference_trainer(
    model: PeftModel, rows: Sequence[PreferenceRow], template: Template, tune: Tune, session: Session
) -> DPO | ORPO | GRPO:
    """The trainer that :func:`fit_preferences` guards and runs.

    Raises:
        UserError: The settings do not fit the method, or an example lacks what a reward needs.
    """
    if tune.dropout:
        raise UserError(f"tune.dropout: {tune.method} compares probabilities and trains without dropout; delete it")
    order = _order(rows, tune)
    arguments = partial(_arguments, model, tune, tune.steps or order.steps(tune.epochs), session)
    common = {"model": model, "order": order, "processing_class": _padding_tokenizer(template)}
    if tune.method == "grpo":
        return _grpo(rows, template, tune, arguments, common)
    pairs = datasets.Dataset.from_list(_pairs(rows))
    if tune.method == "dpo":
        settings = arguments(DPOConfig, beta=tune.preference.beta, max_length=None)
        return DPO(args=settings, train_dataset=pairs, **common)
    settings = arguments(ORPOConfig, beta=tune.preference.beta, max_length=_longest(rows))
    return ORPO(args=settings, train_dataset=pairs, **common)


def _pairs(rows: Sequence[PreferenceRow]) -> list[Pair]:
    columns = ("prompt_ids", "chosen_ids", "rejected_ids")
    return [{name: list(getattr(row, name)) for name in columns} for row in rows]


def _grpo(
    rows: Sequence[PreferenceRow], template: Template, tune: Tune, arguments: Any, common: dict[str, Any]
) -> GRPO:
    rewards = tune.rewards
    end_ids = common["model"].generation_config.eos_token_id
    stop_ids = sorted(template.stop_ids([end_ids] if isinstance(end_ids, int) else end_ids or ()))
    graded = [
        _Graded(name, score, rows, template.decode)
        for name, score in scores(rewards, [row.example for row in rows]).items()
    ]
    settings = arguments(
        GRPOConfig,
        beta=rewards.beta,
        num_generations=rewards.generations,
        steps_per_generation=tune.accumulation,
        max_completion_length=rewards.max_new_tokens,
        temperature=rewards.temperature,
        generation_kwargs={"eos_token_id": stop_ids},
        # Summed over tokens and divided by those of the whole step (Yu et al. 2025, arXiv:2503.14476).
        loss_type="dapo",
    )
    prompts = {"prompt": [list(row.prompt_ids) for row in rows], "index": list(range(len(rows)))}
    return GRPO(
        stop_ids=stop_ids,
        args=settings,
        reward_funcs=graded,
        train_dataset=datasets.Dataset.from_dict(prompts),
        **common,
    )


def _longest(rows: Sequence[PreferenceRow]) -> int:
    return max(len(row.prompt_ids) + max(len(row.chosen_ids), len(row.rejected_ids)) for row in rows)


def _order(rows: Sequence[PreferenceRow], tune: Tune) -> RowOrder:
    """The order of the pairs, or of the prompts; a step of GRPO has an answer a row."""
    step_rows = tune.batch_size * tune.accumulation
    if tune.method == "grpo":
        step_rows, rest = divmod(step_rows, tune.rewards.generations)
        if rest:
            raise UserError(
                f"tune.batch_size: {tune.batch_size} rows times tune.accumulation {tune.accumulation} are no multiple "
                f"of the {tune.rewards.generations} answers to a prompt (tune.rewards.generations); make them one"
            )
    learned = [Row(row.example.id, array("i", [*row.prompt_ids, *row.chosen_ids]), len(row.prompt_ids)) for row in rows]
    return RowOrder(learned, step_rows, tune.seed)


def _padding_tokenizer(template: Template) -> PreTrainedTokenizerBase:
    """A copy for TRL, which sets the padding token; the template's own is saved with the adapter as it is."""
    tokenizer = copy.deepcopy(template.tokenizer)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.convert_ids_to_tokens(template.end_of_turn_id)
    return tokenizer


def _arguments(model: PeftModel, tune: Tune, steps: int, session: Session, kind: Any, **method: Any) -> Any:
    options: dict[str, Any] = {
        **training_options(model, tune, steps, session),
        # TRL cuts no step itself, so the Trainer accumulates.
        "per_device_train_batch_size": tune.batch_size,
        "gradient_accumulation_steps": tune.accumulation,
        # TRL would compute in bfloat16 wherever float16 is not asked for.
        "bf16": session.settings.autocast is torch.bfloat16,
        # The model is prepared; TRL switches checkpoints off for the reference, and on again with these settings.
        "gradient_checkpointing": False,
        "gradient_checkpointing_kwargs": {"use_reentrant": False},
        "disable_dropout": True,
    }
    arguments = kind(**options, **method)
    # On several GPUs the Trainer would wrap the model in DataParallel, which TRL refuses.
    arguments._n_gpu = min(arguments.n_gpu, 1)
    return arguments
