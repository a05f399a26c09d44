"""What to change when training does not fit into memory: values that fit by the same estimate."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from whetstone.train.estimate import MemoryEstimate, Plan, estimate_memory

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
    what is learned stays the same), bfloat16, shorter rows, LoRA in place of full training. Where none of them
    suffices, they are changed together.

    Returns:
        The mildest first; empty where even all together do not fit.
    """
    half = replace(plan, dtype="bfloat16")
    tune = plan.tune.model_copy(update={"method": "lora"}) if plan.tune.method == "full" else plan.tune
    ways = [_smaller_batches(plan), [half], _shorter_rows(plan), [replace(plan, tune=tune)]]
    found = [_first_fitting(plan, way) for way in ways if way != [plan]]
    single = [alternative for alternative in found if alternative is not None]
    if single:
        return single
    everything = replace(half, tune=tune)
    batches = [everything, *_smaller_batches(everything)]
    together = _first_fitting(plan, [*batches, *_shorter_rows(batches[-1])])
    return [] if together is None else [together]


def _smaller_batches(plan: Plan) -> list[Plan]:
    """The plan with ever fewer rows at once and as many in an optimiser step."""
    rows = plan.tune.batch_size * plan.tune.accumulation
    sizes = [size for size in range(plan.tune.batch_size - 1, 0, -1) if rows % size == 0]
    return [
        replace(
            plan,
            tune=plan.tune.model_copy(update={"batch_size": size, "accumulation": rows // size}),
            batch=replace(plan.batch, rows=min(size, plan.batch.rows)),
        )
        for size in sizes
    ]


def _shorter_rows(plan: Plan) -> list[Plan]:
    """The plan with ever shorter rows, by an eighth of their length; a row may consist of an answer alone."""
    lengths = [plan.batch.tokens * part // _PARTS for part in range(_PARTS - 1, 0, -1)]
    return [
        replace(plan, batch=replace(plan.batch, tokens=tokens, loss_columns=min(plan.batch.loss_columns, tokens)))
        for tokens in lengths
        if tokens
    ]


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
    if changed.dtype != plan.dtype:
        settings.append(f"model.dtype: {changed.dtype}")
    if changed.tune.batch_size != plan.tune.batch_size:
        settings.append(f"tune.batch_size: {changed.tune.batch_size}, tune.accumulation: {changed.tune.accumulation}")
    if changed.batch.tokens != plan.batch.tokens:
        settings.append(f"data.max_tokens: {changed.batch.tokens} and data.too_long: drop (or truncate)")
    return f"{', '.join(settings)} (needs {estimate.peak_bytes / 1e9:.2f} GB)"
