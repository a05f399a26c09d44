"""The gates on what the tuned arm takes, and on what it forgot.

A quantile has the interval of its order statistics (David and Nagaraja 2003, Order Statistics, section 7.1): it needs
no distribution, and where there are too few answers for the quantile it has no bound, so the gate stays open.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy import stats

from whetstone.evaluate.evidence import Evidence
from whetstone.evaluate.sample import BASE, TUNED
from whetstone.judge_section import HELD_OUT, Judge, Limit, RetentionGate
from whetstone.run import RetentionRecord
from whetstone.verdict.gate import Gate, State

__all__ = ["Quantile", "limit_gates", "quantile_of", "retention_gates"]

_WORDS = {
    "latency_p50_s": "Median time to the end of an answer",
    "latency_p95_s": "95th percentile of the time to the end of an answer",
    "first_token_p50_s": "Median time to the first token",
    "first_token_p95_s": "95th percentile of the time to the first token",
    "memory_bytes": "Peak memory",
}


@dataclass(frozen=True, slots=True)
class Quantile:
    """A quantile of what was measured, with the bounds that its order statistics give.

    Attributes:
        value: The quantile.
        low: None where there are too few values for a bound.
        high: As ``low``.
        n: How many values there are.
    """

    value: float
    low: float | None
    high: float | None
    n: int


def quantile_of(values: np.ndarray, share: float, confidence: float) -> Quantile:
    """The quantile of a sample with a distribution-free interval.

    Args:
        values: At least one.
        share: From 0 to 1; 0.95 is the 95th percentile.
        confidence: Of the interval, both ends together.
    """
    ordered, n = np.sort(values), len(values)
    tail = (1 - confidence) / 2
    low = int(stats.binom.ppf(tail, n, share))
    high = int(stats.binom.isf(tail, n, share)) + 1
    return Quantile(
        value=float(np.quantile(ordered, share)),
        low=float(ordered[low - 1]) if low >= 1 else None,
        high=float(ordered[high - 1]) if high <= n else None,
        n=n,
    )


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
    # Of two uncertain numbers the worse end of one is held against the better end of the other.
    bound_low = bound_high = limit.at_most
    against = ""
    if times is not None and base is not None:
        bound_low, bound_high = (None if end is None else times * end for end in (base.low, base.high))
        against = f", the base {_written(base.value, limit)} {_ends(base, limit)}"
    reason = f"{_written(tuned.value, limit)} {_ends(tuned, limit)} over n = {tuned.n}{against}."
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


def _measured(evidence: Evidence, arm: str, limit: Limit, confidence: float) -> Quantile | None:
    found = evidence.arms.get(arm)
    if found is None:
        return None
    if limit.measure == "memory_bytes":
        most = float(found.memory_bytes.max(initial=0))
        return Quantile(most, most, most, len(found.memory_bytes)) if most else None
    values = found.end_s if limit.measure.startswith("latency") else found.first_token_s
    values = values[np.isfinite(values)]
    if not len(values):
        return None
    return quantile_of(values, 0.95 if "p95" in limit.measure else 0.5, confidence)


def _written(value: float, limit: Limit) -> str:
    return f"{value / 2**30:.2f} GiB" if limit.measure == "memory_bytes" else f"{value:.3f} s"


def _ends(found: Quantile, limit: Limit) -> str:
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
