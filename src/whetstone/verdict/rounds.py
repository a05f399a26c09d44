"""Gates that are decided in rounds: after any number of answers, with an error rate that holds however often one looks.

A fifth of alpha is for looks before the end, divided among the statistical gates (Bonferroni), because Holm's steps
need all p values at one moment, and there is none. Where the looks decide nothing, all answers are tested as usual with
the four fifths that are left; docs/calibration.md has what that costs and saves.
"""

from collections.abc import Mapping

from whetstone.errors import UserError
from whetstone.evaluate.evidence import Evidence, load_evidence
from whetstone.evaluate.metrics.catalogue import metric
from whetstone.evaluate.sample import ARMS, TUNED
from whetstone.judge_section import Judge, MustImprove, MustNotRegress
from whetstone.run import Run, SuiteRecord
from whetstone.stats.comparison import compare_arms
from whetstone.stats.sequential import EARLY_SHARE, SequentialDecision, sequential_decision
from whetstone.verdict.gate import Gate, State, amount, bounds, difference
from whetstone.verdict.statistical import gate_name, statistical_gates, without_evidence

__all__ = ["is_certain", "refuse_unbounded", "round_gates"]

Rule = MustImprove | MustNotRegress


def refuse_unbounded(judge: Judge) -> None:
    """Refuses early stopping for scores without bounds.

    Raises:
        UserError: It names the metric.
    """
    for rule in judge.rules():
        if metric(rule.metric).unit not in ("share", "score"):
            raise UserError(
                f"judge.stop_early: '{rule.metric}' has no bounds, so it cannot be decided in rounds; leave stop_early "
                "out, or gate on a metric between 0 and 1"
            )


def is_certain(run: Run, judge: Judge, suite: str) -> bool:
    """Whether the answers so far decide every gate of a suite; never where no gate looks at it.

    Args:
        run: Being judged.
        judge: The frozen rule.
        suite: Its name.
    """
    rules = [rule for rule in judge.rules() if rule.suite == suite]
    if not rules:
        return False
    metrics = [metric(name) for name in judge.gated(suite)]
    repeats = next((one.repeats for one in _records(run) if one.name == suite), judge.generation.repeats)
    evidence = load_evidence(run.suite_samples(suite), ARMS, metrics, repeats=repeats, unfinished=True)
    decisions = [_decision(evidence, rule, judge) for rule in rules]
    return all(found is not None and found.state != "open" for found in decisions)


def round_gates(evidence: Mapping[str, Evidence], judge: Judge) -> list[Gate]:
    """Applies every gate that compares two arms to the answers that there are.

    Args:
        evidence: By suite.
        judge: The frozen rule.
    """
    left = judge.model_copy(update={"confidence": 1 - (1 - judge.confidence) * (1 - EARLY_SHARE)})
    at_the_end = statistical_gates(evidence, left)
    return [_gate(evidence, rule, judge, last) for rule, last in zip(judge.rules(), at_the_end, strict=True)]


def _records(run: Run) -> tuple[SuiteRecord, ...]:
    judgement = run.manifest().judgement
    return judgement.suites if judgement is not None else ()


def _decision(evidence: Evidence, rule: Rule, judge: Judge) -> SequentialDecision | None:
    if not {rule.over, TUNED} <= evidence.arms.keys():
        return None
    judged = metric(rule.metric)
    sign = -1.0 if judged.direction == "lower" else 1.0
    return sequential_decision(
        sign * evidence.scores(rule.over, judged),
        sign * evidence.scores(TUNED, judged),
        evidence.planned_groups,
        alpha=_alpha(judge),
        margin=rule.margin if isinstance(rule, MustNotRegress) else None,
    )


def _alpha(judge: Judge) -> float:
    """What one gate may spend on looks before the end."""
    return (1 - judge.confidence) * EARLY_SHARE / len(judge.rules())


def _gate(evidence: Mapping[str, Evidence], rule: Rule, judge: Judge, at_the_end: Gate) -> Gate:
    suite = evidence.get(rule.suite)
    found = None if suite is None else _decision(suite, rule, judge)
    if suite is None or found is None:
        return without_evidence(rule, evidence)
    if found.state == "open" and suite.count == len(suite.planned_groups):
        return at_the_end
    judged = metric(rule.metric)
    comparison = compare_arms(suite, judged, rule.over, TUNED, confidence=judge.confidence, tests=len(judge.rules()))
    if comparison is None:
        return without_evidence(rule, evidence)
    paired, unit = comparison.paired, judged.unit
    low, high = (found.low, found.high) if comparison.sign > 0 else (-found.high, -found.low)
    reason = (
        f"{amount(paired.candidate_mean, unit)} against {amount(paired.baseline_mean, unit)} on n = {paired.n} of "
        f"{len(suite.planned_groups)}: difference {difference(paired.difference, unit, sign='+')}; after any number of "
        f"answers {bounds(low, high, unit)} at {1 - _alpha(judge):.1%}."
    )
    states: dict[str, State] = {"better": "passed", "worse": "failed", "open": "open"}
    remedies = {
        "better": "",
        "worse": "More examples will not help: change the data or the recipe.",
        "open": "Not all examples are answered; call 'whet compare' to go on.",
    }
    return Gate(gate_name(rule), states[found.state], reason, comparison, None, remedies[found.state])
