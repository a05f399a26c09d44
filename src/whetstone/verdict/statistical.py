"""The gates that compare two arms on a metric.

With alpha = 1 - confidence:

- must improve: passes when the Holm-adjusted two-sided p is below alpha and the whole interval is a gain; fails when
  the whole interval is a loss.
- must not regress: passes when twice the one-sided non-inferiority p, Holm-adjusted, is below alpha; fails when the
  whole interval is a loss larger than the margin. Twice, so that the test agrees with the two-sided interval shown.

Holm's step-down runs over the statistical gates together (Holm 1979, Scandinavian Journal of Statistics 6:65-70).
"""

from collections.abc import Callable, Mapping

from whetstone.evaluate.evidence import Evidence
from whetstone.evaluate.metrics.catalogue import metric
from whetstone.evaluate.sample import TUNED
from whetstone.judge_section import HELD_OUT, Judge, MustImprove, MustNotRegress
from whetstone.stats.comparison import Comparison, compare_arms, paired_scores
from whetstone.stats.multiplicity import holm
from whetstone.stats.paired import non_inferiority_p
from whetstone.verdict.gate import Gate, State, amount, bounds, difference, p_text

__all__ = ["gate_name", "statistical_gates", "without_evidence"]

Rule = MustImprove | MustNotRegress


def statistical_gates(evidence: Mapping[str, Evidence], judge: Judge) -> list[Gate]:
    """Applies every gate that compares two arms.

    Args:
        evidence: By suite.
        judge: The frozen rule.
    """
    rules = judge.rules()
    comparisons = [_compare(evidence, rule, judge.confidence, len(rules)) for rule in rules]
    p_values = [_p_value(evidence, rule, found) for rule, found in zip(rules, comparisons, strict=True)]
    adjusted = holm([1.0 if p is None else p for p in p_values])
    gates = []
    for rule, found, p in zip(rules, comparisons, adjusted, strict=True):
        if found is None:
            gates.append(without_evidence(rule, evidence))
        elif isinstance(rule, MustImprove):
            gates.append(_must_improve(rule, found, p, 1 - judge.confidence))
        else:
            gates.append(_must_not_regress(rule, found, p, 1 - judge.confidence))
    return gates


def gate_name(rule: Rule) -> str:
    """The condition in words."""
    where = "" if rule.suite == HELD_OUT else f"{rule.suite}: "
    judged = metric(rule.metric)
    if isinstance(rule, MustImprove):
        return f"{where}{judged.title} better than {rule.over}"
    return f"{where}{judged.title} not worse than {rule.over} by {difference(rule.margin, judged.unit)}"


def _compare(evidence: Mapping[str, Evidence], rule: Rule, confidence: float, tests: int) -> Comparison | None:
    found = evidence.get(rule.suite)
    if found is None or not {rule.over, TUNED} <= found.arms.keys():
        return None
    return compare_arms(found, metric(rule.metric), rule.over, TUNED, confidence=confidence, tests=tests)


def _p_value(evidence: Mapping[str, Evidence], rule: Rule, found: Comparison | None) -> float | None:
    if found is None:
        return None
    if isinstance(rule, MustImprove):
        return found.paired.p_value
    before, after, groups = paired_scores(evidence[rule.suite], found.metric, rule.over, TUNED)
    p = non_inferiority_p(found.sign * before, found.sign * after, groups, margin=rule.margin)
    return min(1.0, 2 * p)


def without_evidence(rule: Rule, evidence: Mapping[str, Evidence]) -> Gate:
    """A gate whose arms have not answered, or whose metric applies to too little."""
    found = evidence.get(rule.suite)
    missing = [arm for arm in (rule.over, TUNED) if found is None or arm not in found.arms]
    if missing:
        reason = f"Not measured: {' and '.join(missing)} did not answer every example."
        return Gate(gate_name(rule), "open", reason, remedy="Call 'whet compare' to generate what is missing.")
    return Gate(
        name=gate_name(rule),
        state="open",
        reason="Not measured: fewer than two groups of examples have this score in both arms.",
        remedy="Judge on more held-out examples to which the metric applies.",
    )


def _must_improve(rule: MustImprove, found: Comparison, p: float, alpha: float) -> Gate:
    state: State = "open"
    if p < alpha and found.gain_low > 0:
        state = "passed"
    elif found.gain_high < 0:
        state = "failed"
    return _gate(rule, found, p, state, _more_examples)


def _must_not_regress(rule: MustNotRegress, found: Comparison, p: float, alpha: float) -> Gate:
    state: State = "open"
    if p < alpha:
        state = "passed"
    elif found.gain_high < -rule.margin:
        state = "failed"
    return _gate(rule, found, p, state, _narrower_interval)


def _gate(rule: Rule, found: Comparison, p: float, state: State, remedy: Callable[[Comparison], str]) -> Gate:
    paired, unit = found.paired, found.metric.unit
    reason = (
        f"{amount(paired.candidate_mean, unit)} against {amount(paired.baseline_mean, unit)} on n = {paired.n}: "
        f"difference {difference(paired.difference, unit, sign='+')} "
        f"{bounds(paired.interval.low, paired.interval.high, unit)}, adjusted p {p_text(p)}."
    )
    advice = "" if state == "passed" else remedy(found)
    if state == "failed":
        advice = "More examples will not help: change the data or the recipe."
    return Gate(gate_name(rule), state, reason, found, p, advice)


def _more_examples(found: Comparison) -> str:
    smallest = difference(found.minimum_detectable_effect, found.metric.unit)
    detectable = f"{found.paired.n} examples find a difference of {smallest} 4 times in 5"
    if found.gain <= 0 or found.examples_needed is None:
        return f"No gain was seen; {detectable}. Change the data or the recipe, or accept."
    return f"{detectable}; a true difference as large as the one seen needs about {found.examples_needed}."


def _narrower_interval(found: Comparison) -> str:
    width = difference(found.gain_high - found.gain_low, found.metric.unit)
    return (
        f"The interval is {width} wide on n = {found.paired.n} and reaches past the margin; four times the examples "
        "halve it."
    )
