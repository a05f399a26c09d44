"""What to change when training does not fit into memory: values that fit by the same estimate."""

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, PreTrainedModel

from whetstone.train.estimate import BatchShape, MemoryEstimate, Plan, estimate_memory
from whetstone.train.settings import weights_dtype

__all__ = ["Alternative", "alternatives"]

_PARTS = 8


@dataclass(frozen=True, slots=True)
class Alternative:
    """Settings that fit.

    Attributes:
        text: What to set, and what is then needed; one line.
        plan: The plan with these settings.
        estimate: What that plan takes.
    """

    text: str
    plan: Plan
    estimate: MemoryEstimate


def alternatives(plan: Plan) -> list[Alternative]:
    """Settings that fit where a plan does not; each is estimated anew, and fits by that estimate.

    One thing is changed at a time, and as little as suffices: fewer rows at once (more of them are accumulated, so that
    what is learned stays the same), activation checkpointing (which learns the same, too), bfloat16, shorter rows,
    LoRA in place of full training, QLoRA in place of LoRA. Where none of them suffices, they are changed together.

    Returns:
        The mildest first; empty where even all together do not fit.
    """
    changed = [[other] for change in _CHANGES if (other := change(plan)) is not None]
    ways = [_smaller_batches(plan), *changed, _shorter_rows(plan)]
    single = [found for way in ways if (found := _first_fitting(plan, way)) is not None]
    if single:
        return single
    everything = plan
    for change in _CHANGES:
        everything = change(everything) or everything
    batches = [everything, *_smaller_batches(everything)]
    together = _first_fitting(plan, [*batches, *_shorter_rows(batches[-1])])
    return [] if together is None else [together]


def _checkpointed(plan: Plan) -> Plan | None:
    architecture = MODEL_FOR_CAUSAL_LM_MAPPING.get(type(plan.config), PreTrainedModel)
    if plan.settings.activation_checkpointing or not architecture.supports_gradient_checkpointing:
        return None
    return replace(plan, settings=replace(plan.settings, activation_checkpointing=True))


def _narrowed(plan: Plan) -> Plan | None:
    if plan.settings.precision != "float32" or plan.device.type == "mps":
        return None
    dtype = weights_dtype(plan.tune, "bfloat16")
    return replace(plan, settings=replace(plan.settings, precision="bfloat16", weights_dtype=dtype))


def _adapted(plan: Plan) -> Plan | None:
    return _with_method(plan, "lora") if plan.tune.method == "full" else None


def _quantised(plan: Plan) -> Plan | None:
    if plan.tune.method != "lora" or plan.device.type == "mps" or importlib.util.find_spec("bitsandbytes") is None:
        return None
    return _with_method(plan, "qlora")


_CHANGES = _checkpointed, _narrowed, _adapted, _quantised
"""Each gives the plan with one setting that takes less memory, or None where the plan has it or cannot have it."""


def _with_method(plan: Plan, method: Literal["lora", "qlora"]) -> Plan:
    tune = plan.tune.model_copy(update={"method": method})
    dtype = weights_dtype(tune, plan.settings.precision)
    return replace(plan, tune=tune, settings=replace(plan.settings, weights_dtype=dtype, quantised=method == "qlora"))


def _smaller_batches(plan: Plan) -> list[Plan]:
    """The plan with ever fewer rows at once and as many in an optimiser step."""
    rows, batch = plan.tune.batch_size * plan.tune.accumulation, plan.batch
    sizes = [size for size in range(plan.tune.batch_size - 1, 0, -1) if rows % size == 0]
    return [
        replace(
            plan,
            tune=plan.tune.model_copy(update={"batch_size": size, "accumulation": rows // size}),
            batch=BatchShape(batch.row_tokens[:size], batch.answer_tokens[:size]),
        )
        for size in sizes
    ]


def _shorter_rows(plan: Plan) -> list[Plan]:
    """The plan with ever shorter rows, by an eighth of the longest; a row may consist of an answer alone."""
    batch = plan.batch
    lengths = [batch.row_tokens[0] * part // _PARTS for part in range(_PARTS - 1, 0, -1)]
    return [
        replace(plan, batch=BatchShape(_cut(batch.row_tokens, tokens), _cut(batch.answer_tokens, tokens)))
        for tokens in lengths
        if tokens > 1
    ]


def _cut(lengths: Sequence[int], tokens: int) -> tuple[int, ...]:
    return tuple(min(length, tokens) for length in lengths)


def _first_fitting(plan: Plan, candidates: Sequence[Plan]) -> Alternative | None:
    """The first of candidates that need ever less which fits, found by bisection."""
    best = None
    low, high = 0, len(candidates)
    while low < high:
        middle = (low + high) // 2
        estimate = estimate_memory(candidates[middle])
        if estimate.fits:
            best, high = (
                Alternative(_described(plan, candidates[middle], estimate), candidates[middle], estimate),
                middle,
            )
        else:
            low = middle + 1
    return best


def _described(plan: Plan, changed: Plan, estimate: MemoryEstimate) -> str:
    settings = []
    if changed.tune.method != plan.tune.method:
        settings.append(f"tune.method: {changed.tune.method}")
    if changed.settings.activation_checkpointing != plan.settings.activation_checkpointing:
        settings.append("tune.activation_checkpointing: true")
    if changed.settings.precision != plan.settings.precision:
        settings.append(f"tune.precision: {changed.settings.precision}")
    if changed.tune.batch_size != plan.tune.batch_size:
        settings.append(f"tune.batch_size: {changed.tune.batch_size}, tune.accumulation: {changed.tune.accumulation}")
    if changed.batch.row_tokens[0] != plan.batch.row_tokens[0]:
        settings.append(f"data.max_tokens: {changed.batch.row_tokens[0]} and data.too_long: drop (or truncate)")
    return f"{', '.join(settings)} (needs {estimate.needed_bytes / 1e9:.2f} GB)"
