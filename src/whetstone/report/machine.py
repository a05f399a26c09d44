"""The report for machines: every number unrounded, under the path by which the other renderers name it."""

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from whetstone.evaluate.metrics.metric import Metric
from whetstone.evaluate.sample import BASE
from whetstone.evaluate.sanity import Sanity
from whetstone.report.categories import CategoryRow
from whetstone.report.recommendations import recommend
from whetstone.report.suite_summary import BASELINES, ArmSummary, Speed, SuiteSummary
from whetstone.report.summary import Summary
from whetstone.report.tradeoff import TradeOff
from whetstone.stats.comparison import Comparison
from whetstone.stats.paired import Flips
from whetstone.verdict.gate import Gate

__all__ = ["SCHEMA_VERSION", "as_json"]

SCHEMA_VERSION = 2
_LISTED_AT_MOST = 30
"""How many fixed and how many broken samples a report lists; the rest is in ``samples/``."""
_LOGGED = ("loss", "validation_loss", "learning_rate", "gradient_norm", "tokens_per_s", "memory_bytes")
"""What a report keeps of a row of ``metrics.jsonl``, beside its step."""


def as_json(summary: Summary) -> dict[str, Any]:
    """The content of ``report.json``; what was not measured is null."""
    report = _evidence(summary)
    return {**report, "recommendations": [asdict(one) for one in recommend(report)]}


def _evidence(summary: Summary) -> dict[str, Any]:
    judge = summary.manifest.experiment.judge
    return {
        "schema_version": SCHEMA_VERSION,
        "verdict": {
            "outcome": summary.verdict.outcome,
            "exit_code": summary.verdict.exit_code,
            "confidence": judge.confidence,
        },
        "gates": [_gate(gate) for gate in summary.verdict.gates],
        "unguarded_losses": [
            {"suite": suite, "metric": found.metric.name} for suite, found in summary.unguarded_losses
        ],
        "forgotten": [found.source for found in summary.forgotten],
        **_suite(summary.held_out, summary.arm_names),
        "variants": {arm.name: _comparison(summary.variant(arm.name)) for arm in judge.arms},
        "suites": {suite.name: {"about": suite.about, **_suite(suite, summary.arm_names)} for suite in summary.suites},
        "tradeoff": _trade_off(summary.tradeoff),
        "listing": {"total": summary.listing.total, "listed": summary.listing.listed},
        "sanity": None if summary.sanity is None else _sanity(summary.sanity, summary.without_leaks),
        "training": [_logged_step(row) for row in summary.training],
        "manifest": summary.manifest.model_dump(mode="json"),
    }


def _suite(suite: SuiteSummary, arm_names: Sequence[str]) -> dict[str, Any]:
    """What is said of every suite."""
    arms = {measured.arm: measured for measured in suite.arms}
    exact = suite.comparison("exact_match", BASE)
    return {
        "primary": suite.primary.name,
        "examples": {
            "n": suite.evidence.count,
            "planned": len(suite.evidence.planned_groups),
            "groups": suite.evidence.group_count,
            "repeats": suite.evidence.repeats,
        },
        "metrics": {one.name: _metric(one) for one in suite.metrics},
        "arms": {arm: _scores(arms.get(arm)) for arm in arm_names},
        "comparisons": {
            one.name: {over: _comparison(suite.comparison(one.name, over)) for over in BASELINES}
            for one in suite.metrics
            if one.direction != "neutral"
        },
        "corpus": {name: {arm: scores.get(arm) for arm in arm_names} for name, scores in suite.corpus.items()},
        "graders_agreement": suite.agreement,
        "flips": None if exact is None else _flips(exact),
        "noise_floor": _comparison(suite.noise),
        "changes": {"fixed": _changes(suite, suite.fixed), "broken": _changes(suite, suite.broken)},
        "speed": {arm: _speed(arms[arm].speed) if arm in arms else None for arm in arm_names},
        "categories": {
            "total": suite.categories.total,
            "listed": len(suite.categories.rows),
            "rows": [_category(row, arm_names) for row in suite.categories.rows],
        },
    }


def _category(row: CategoryRow, arm_names: Sequence[str]) -> dict[str, Any]:
    """A category stands by its place in the table, for its name may hold anything."""
    means = {arm: row.arms.get(arm) for arm in arm_names}
    compared = row.compared
    found = None
    if compared is not None and compared.paired is not None:
        found = {**asdict(compared.paired), "gain": row.gain, "side": row.side, "q_value": compared.q_value}
        del found["flips"]
    return {
        "category": row.name,
        "n": row.n,
        "groups": row.groups,
        "arms": {arm: None if mean is None else asdict(mean) for arm, mean in means.items()},
        "comparison": found,
    }


def _trade_off(found: TradeOff) -> dict[str, Any]:
    return {
        "metric": found.metric.name,
        "points": {
            point.arm: {key: value for key, value in asdict(point).items() if key != "arm"} for point in found.points
        },
        "front": [point.arm for point in found.front],
        "unmeasured": list(found.unmeasured),
    }


def _sanity(sanity: Sanity, without_leaks: Comparison | None) -> dict[str, Any]:
    return {
        "prompts": sanity.prompts,
        "logit_change": sanity.logit_change,
        "engine": {check.arm: {"compared": check.compared, "equal": check.equal} for check in sanity.engine},
        "training_examples": sanity.training_examples,
        "leaked": len(sanity.leaked),
        "without_leaks": _comparison(without_leaks),
    }


def _metric(one: Metric) -> dict[str, Any]:
    return {
        "title": one.title,
        "unit": one.unit,
        "direction": one.direction,
        "definition": one.definition,
        "source": one.source,
    }


def _gate(gate: Gate) -> dict[str, Any]:
    return {
        "name": gate.name,
        "state": gate.state,
        "reason": gate.reason,
        "remedy": gate.remedy,
        "p_adjusted": gate.p_adjusted,
        "comparison": _comparison(gate.comparison),
    }


def _scores(arm: ArmSummary | None) -> dict[str, Any] | None:
    if arm is None:
        return None
    return {name: None if estimate is None else asdict(estimate) for name, estimate in arm.scores.items()}


def _comparison(found: Comparison | None) -> dict[str, Any] | None:
    if found is None:
        return None
    return {
        "metric": found.metric.name,
        "baseline": found.baseline,
        "candidate": found.candidate,
        **asdict(found.paired),
        "flips": _flips(found),
        "gain": found.gain,
        "gain_low": found.gain_low,
        "gain_high": found.gain_high,
        "minimum_detectable_effect": found.minimum_detectable_effect,
        "examples_needed": found.examples_needed,
    }


def _flips(found: Comparison) -> dict[str, int] | None:
    """The flips, right meaning the better score: of metrics that are better when lower, a score of zero."""
    flips = found.paired.flips
    if flips is None:
        return None
    if found.metric.direction == "lower":
        flips = Flips(both_right=flips.both_wrong, fixed=flips.broken, broken=flips.fixed, both_wrong=flips.both_right)
    return asdict(flips)


def _changes(suite: SuiteSummary, changes: Sequence[int]) -> dict[str, Any]:
    listed = changes[:_LISTED_AT_MOST]
    return {
        "total": len(changes),
        "listed": len(listed),
        "examples": [suite.evidence.example(index).id for index in listed],
    }


def _speed(speed: Speed | None) -> dict[str, Any] | None:
    if speed is None:
        return None
    return {**asdict(speed), "memory_bytes": speed.memory_bytes or None}


def _logged_step(row: dict[str, Any]) -> dict[str, Any]:
    return {name: _finite(row.get(name)) for name in ("step", *_LOGGED)}


def _finite(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else value
