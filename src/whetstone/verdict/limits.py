"""The gates on what the tuned arm takes, and on what it forgot.

Answers of one batch are done at about the same time, so a quantile's interval counts batches, not answers
(:mod:`whetstone.stats.quantile`); where there are too few for it there is no interval, and the gate stays open.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from whetstone.evaluate.evidence import Evidence
from whetstone.evaluate.sample import BASE, TUNED
from whetstone.judge_section import HELD_OUT, Judge, Limit, RetentionGate
from whetstone.run import RetentionRecord
from whetstone.stats.quantile import grouped_quantile
from whetstone.verdict.gate import Gate, State

__all__ = ["limit_gates", "retention_gates"]

_WORDS = {
    "latency_p50_s": "Median time to the end of an answer",
    "latency_p95_s": "95th percentile of the time to the end of an answer",
    "first_token_p50_s": "Median time to the first token",
    "first_token_p95_s": "95th percentile of the time to the first token",
    "memory_bytes": "Peak memory",
}


@dataclass(frozen=True, slots=True)
class _Measured:
    """What an arm takes; no ends where there is too little for an interval."""

    value: float | None
    low: float | None
    high: float | None
    n: int
    needed: int = 1


def limit_gates(evidence: Mapping[str, Evidence], judge: Judge) -> list[Gate]:
    """Applies ``judge.limits`` to the answers to the held-out examples."""
    return [_limit(evidence[HELD_OUT], limit, judge.confidence) for limit in judge.limits]


def _limit(evidence: Evidence, limit: Limit, confidence: float) -> Gate:
    tuned, base = (_measured(evidence, arm, limit, confidence) for arm in (TUNED, BASE))
    times = limit.at_most_times_base
    name = f"{_WORDS[limit.measure]} at most " + (
        f"{times:g} times the base's" if times is not None else _written(limit.at_most or 0, limit)
    )
    if tuned is None or (times is not None and base is None):
        return Gate(name, "open", "Not measured.", remedy="Call 'whet compare' to generate what is missing.")
    for found in (tuned, base) if times is not None else (tuned,):
        if found is not None and found.value is None:
            reason = f"Not measured: {found.n} answers came in too few batches; it takes {found.needed} of them."
            return Gate(name, "open", reason, remedy="Judge more examples, or set judge.generation.batch_size to 1.")
    # Of two uncertain numbers the worse end of one is held against the better end of the other.
    bound_low = bound_high = limit.at_most
    against = ""
    if times is not None and base is not None:
        bound_low, bound_high = (None if end is None else times * end for end in (base.low, base.high))
        against = f", the base {_written(base.value or 0, limit)} {_ends(base, limit)}"
    reason = f"{_written(tuned.value or 0, limit)} {_ends(tuned, limit)} over n = {tuned.n}{against}."
    state: State = "open"
    if tuned.high is not None and bound_low is not None and tuned.high <= bound_low:
        state = "passed"
    elif tuned.low is not None and bound_high is not None and tuned.low > bound_high:
        state = "failed"
    remedies = {
        "passed": "",
        "failed": "Answer shorter, quantise, or take a faster machine; or raise the limit before judging anew.",
        "open": "The interval reaches past the limit: judge on more examples, on a machine that does nothing else.",
    }
    return Gate(name, state, reason, remedy=remedies[state])


def _measured(evidence: Evidence, arm: str, limit: Limit, confidence: float) -> _Measured | None:
    found = evidence.arms.get(arm)
    if found is None:
        return None
    if limit.measure == "memory_bytes":
        most = float(found.memory_bytes.max(initial=0))
        return _Measured(most, most, most, len(found.memory_bytes)) if most else None
    values = found.end_s if limit.measure.startswith("latency") else found.first_token_s
    known = np.isfinite(values)
    if not known.any():
        return None
    values, batches = values[known], found.batch[known]
    groups = [values[batches == batch].tolist() for batch in np.unique(batches)]
    share = 0.95 if "p95" in limit.measure else 0.5
    taken = grouped_quantile(groups, share, level=confidence)
    if taken.interval is None:
        return _Measured(None, None, None, len(values), max(taken.needed, len(groups) + 1))
    return _Measured(taken.estimate, taken.interval.low, taken.interval.high, len(values))


def _written(value: float, limit: Limit) -> str:
    return f"{value / 2**30:.2f} GiB" if limit.measure == "memory_bytes" else f"{value:.3f} s"


def _ends(found: _Measured, limit: Limit) -> str:
    if limit.measure == "memory_bytes":
        return "(the most that was seen)"
    low, high = ("no bound" if end is None else f"{end:.3f}" for end in (found.low, found.high))
    return f"[{low}, {high}]"


def retention_gates(retention: tuple[RetentionRecord, ...], gate: RetentionGate | None) -> list[Gate]:
    """Applies ``judge.retention`` to every kind of text that was measured before and after tuning."""
    if gate is None:
        return []
    if not retention:
        name = f"Retention: no more than {gate.margin:g} nats per token lost"
        return [Gate(name, "open", "Not measured.", remedy="Tune with tune.retention on, or leave the gate out.")]
    return [_retained(record, gate.margin) for record in retention]


def _retained(record: RetentionRecord, margin: float) -> Gate:
    name = f"Retention of {record.source}: no more than {margin:g} nats per token lost"
    low, high = record.low, record.high
    ends = "" if low is None or high is None else f" [{low:+.4f}, {high:+.4f}]"
    reason = (
        f"{record.nll_after:.4f} against {record.nll_before:.4f} nats per token on {record.texts} texts: "
        f"{record.difference:+.4f}{ends}."
    )
    state: State = "open"
    if high is not None and high < margin and math.isfinite(high):
        state = "passed"
    elif low is not None and low > margin:
        state = "failed"
    remedies = {
        "passed": "",
        "failed": "Mix more replay into training, or train less: lower the rate, the rank or the steps.",
        "open": "The interval reaches past the margin: measure more texts.",
    }
    return Gate(name, state, reason, remedy=remedies[state])
