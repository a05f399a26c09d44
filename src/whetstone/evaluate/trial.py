"""Tries base and tuned on a few prompts, without our engine, and looks for the questions in what training saw."""

import contextlib
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import PeftModel
from transformers import PreTrainedModel

from whetstone.data.example import Example
from whetstone.data.lint.leaks import Overlap
from whetstone.data.split import Splits
from whetstone.evaluate.collect import Prompt
from whetstone.evaluate.sample import BASE, TUNED, Sample
from whetstone.evaluate.sanity import SANITY_FILE, EngineCheck, Sanity
from whetstone.files import read_jsonl, write_json

__all__ = ["leaked", "try_models"]

_PROMPTS = 4
"""Prompts whose logits are compared, and answers that are generated again."""


def leaked(splits: Splits, replay: Sequence[Example]) -> tuple[str, ...]:
    """The test examples that training saw, by the same comparison as ``whet check``."""
    overlap = Overlap(splits, replay)
    found = overlap.leaked_to_training | overlap.leaked_to_replay | overlap.pairs_in_training
    return tuple(overlap.held_out[index].id for index in np.flatnonzero(found) if index >= len(splits.validation))


def try_models(
    base: PreTrainedModel,
    tuned: PreTrainedModel,
    prompts: Sequence[Prompt],
    stop_ids: Sequence[int],
    folder: Path,
    *,
    judgement: str,
    training_examples: int,
    leaked_ids: tuple[str, ...],
) -> None:
    """Tries base and tuned on a few prompts, and writes what came out beside the answers.

    Args:
        base: The base, its adapter disabled where it has one.
        tuned: The tuned model.
        prompts: The held-out examples, in the order of the rows.
        stop_ids: What ends an answer.
        folder: Where the answers are.
        judgement: Fingerprint of the frozen judgement.
        training_examples: How many examples were searched for leaks.
        leaked_ids: What was found.
    """
    tried = [prompt for prompt in prompts if prompt.repeat == 0][:_PROMPTS]
    models = {BASE: base, TUNED: tuned}
    logits = {arm: [_last_logits(model, arm, prompt) for prompt in tried] for arm, model in models.items()}
    changes = [float((after - before).abs().max()) for before, after in zip(logits[BASE], logits[TUNED], strict=True)]
    rows = {arm: read_jsonl(folder / f"{arm}.jsonl") for arm in models}
    checks = [_check_engine(model, arm, tried, rows[arm], stop_ids) for arm, model in models.items()]
    found = Sanity(
        judgement=judgement,
        prompts=len(tried),
        logit_change=max(changes),
        engine=tuple(check for check in checks if check.compared),
        training_examples=training_examples,
        leaked=leaked_ids,
    )
    write_json(folder / SANITY_FILE, asdict(found))


def _as_arm(model: PreTrainedModel, arm: str) -> Any:
    """An adapted model answers as its base inside the context that PEFT has for it."""
    return model.disable_adapter() if isinstance(model, PeftModel) and arm == BASE else contextlib.nullcontext()


@torch.no_grad()
def _last_logits(model: PreTrainedModel, arm: str, prompt: Prompt) -> torch.Tensor:
    ids = torch.tensor([prompt.token_ids], device=model.device)
    with _as_arm(model, arm):
        logits: torch.Tensor = model(input_ids=ids).logits[0, -1]
    return logits.float().cpu()


@torch.no_grad()
def _check_engine(
    model: PreTrainedModel,
    arm: str,
    prompts: Sequence[Prompt],
    rows: Sequence[dict[str, Any]],
    stop_ids: Sequence[int],
) -> EngineCheck:
    first = {row["example"]: Sample.from_row(row) for row in reversed(rows) if row.get("repeat", 0) == 0}
    equal = compared = 0
    for prompt in prompts:
        sample = first[prompt.example.id]
        if sample.seed is not None or not sample.token_ids:
            continue
        ids = torch.tensor([prompt.token_ids], device=model.device)
        with _as_arm(model, arm):
            answered = model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=len(sample.token_ids),
                do_sample=False,
                num_beams=1,
                repetition_penalty=1.0,
                eos_token_id=list(stop_ids),
                pad_token_id=stop_ids[0],
            )
        compared += 1
        equal += tuple(answered[0, ids.shape[1] :].tolist()) == sample.token_ids
    return EngineCheck(arm, compared, equal)
