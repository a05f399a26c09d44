"""The verdict: a rule that was frozen before generation, applied to paired comparisons.

A gate *passes* when it is shown beyond chance, *fails* when the data exclude it, and is *open* when the data allow
both. All gates passed: SHIP. One failed: REJECT. Otherwise: INCONCLUSIVE. With alpha = 1 - confidence:

- must improve: passes when the Holm-adjusted two-sided p is below alpha and the whole interval is a gain; fails when
  the whole interval is a loss.
- must not regress: passes when twice the one-sided non-inferiority p, Holm-adjusted, is below alpha; fails when the
  whole interval is a loss larger than the margin. Twice, so that the test agrees with the two-sided interval shown.
- the proofs: rule, examples and rows are those of the judgement that was frozen, the candidate's weights differ from
  the base's, and all arms answered the same prompts.

Holm's step-down runs over the statistical gates together (Holm 1979, Scandinavian Journal of Statistics 6:65-70).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from whetstone.evaluate.evidence import Evidence
from whetstone.evaluate.metrics.catalogue import metric
from whetstone.evaluate.sample import ARMS, TUNED
from whetstone.judge_section import MustImprove, MustNotRegress
from whetstone.run import Judgement, Manifest
from whetstone.section import stable_hash
from whetstone.stats.comparison import Comparison, compare_arms, paired_scores
from whetstone.stats.multiplicity import holm
from whetstone.stats.paired import non_inferiority_p

__all__ = ["Gate", "Verdict", "decide"]

Outcome = Literal["SHIP", "REJECT", "INCONCLUSIVE"]
State = Literal["passed", "failed", "open"]


@dataclass(frozen=True, slots=True)
class Gate:
    """One condition of the rule and how it ended.

    Attributes:
        name: The condition in words.
        state: ``passed``, ``failed`` or ``open``.
        reason: One sentence with the numbers that decided.
        comparison: The evidence; None for proofs.
        p_adjusted: Holm-adjusted p; None for proofs and for gates without evidence.
        remedy: What would change the state; empty when passed.
    """

    name: str
    state: State
    reason: str
    comparison: Comparison | None = None
    p_adjusted: float | None = None
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """SHIP, REJECT or INCONCLUSIVE, with the gates that led there."""

    outcome: Outcome
    gates: tuple[Gate, ...]

    @property
    def exit_code(self) -> int:
        """What the command ends with: 0 SHIP, 1 REJECT, 3 INCONCLUSIVE (2 is bad input)."""
        return {"SHIP": 0, "REJECT": 1, "INCONCLUSIVE": 3}[self.outcome]


def decide(evidence: Evidence, manifest: Manifest) -> Verdict:
    """Applies the frozen rule to the rows of a run."""
    judge = manifest.experiment.judge
    alpha = 1 - judge.confidence
    rules = judge.rules()
    comparisons = [_compare(evidence, rule, judge.confidence, len(rules)) for rule in rules]
    p_values = [_p_value(evidence, rule, found) for rule, found in zip(rules, comparisons, strict=True)]
    adjusted = holm([1.0 if p is None else p for p in p_values])
    gates = [*_proofs(evidence, manifest)]
    for rule, found, p in zip(rules, comparisons, adjusted, strict=True):
        if found is None:
            gates.append(_without_evidence(rule, evidence))
        elif isinstance(rule, MustImprove):
            gates.append(_must_improve(rule, found, p, alpha))
        else:
            gates.append(_must_not_regress(rule, found, p, alpha))
    return Verdict(_outcome(gates), tuple(gates))


def _outcome(gates: Sequence[Gate]) -> Outcome:
    states = {gate.state for gate in gates}
    if "failed" in states:
        return "REJECT"
    return "INCONCLUSIVE" if "open" in states else "SHIP"


def _name(rule: MustImprove | MustNotRegress) -> str:
    title = metric(rule.metric).title
    if isinstance(rule, MustImprove):
        return f"{title} better than {rule.over}"
    return f"{title} not worse than {rule.over} by {_points(rule.margin)}"


def _compare(
    evidence: Evidence, rule: MustImprove | MustNotRegress, confidence: float, tests: int
) -> Comparison | None:
    if rule.over not in evidence.samples or TUNED not in evidence.samples:
        return None
    return compare_arms(evidence, metric(rule.metric), rule.over, TUNED, confidence=confidence, tests=tests)


def _p_value(evidence: Evidence, rule: MustImprove | MustNotRegress, found: Comparison | None) -> float | None:
    if found is None:
        return None
    if isinstance(rule, MustImprove):
        return found.paired.p_value
    before, after, groups = paired_scores(evidence, found.metric, rule.over, TUNED)
    sign = found.sign
    p = non_inferiority_p(sign * np.asarray(before), sign * np.asarray(after), groups, margin=rule.margin)
    return min(1.0, 2 * p)


def _proofs(evidence: Evidence, manifest: Manifest) -> list[Gate]:
    judgement, base = manifest.judgement, manifest.base
    if judgement is None or base is None:
        return [
            Gate(
                name="A judgement was frozen",
                state="open",
                reason="Not measured: the run holds no record of rule, data and weights from before generation.",
                remedy="Call 'whet compare'.",
            )
        ]
    mismatches, total = _prompt_mismatches(evidence), len(evidence.examples)
    return [
        _proof(
            "Rule, examples and rows are those that were frozen",
            holds=judgement.rule_hash == manifest.experiment.judge.fingerprint() and _rows_belong(evidence, judgement),
            reasons=("Their hashes are the ones in the run.", "A hash differs from the one in the run."),
            remedy="Restore run.json and samples/, or compare again with --fresh.",
        ),
        _proof(
            "The weights differ from the base",
            holds=judgement.candidate.sha256 != base.sha256,
            reasons=("The hashes of the weights differ.", "The candidate's weights are the base's own."),
            remedy="Tune the model: a base compared with itself has nothing to ship.",
        ),
        _proof(
            "All arms answered the same prompts",
            holds=mismatches == 0,
            reasons=(
                f"The prompt hashes agree on all {total} examples{_asked_otherwise(evidence, judgement)}.",
                f"{mismatches} of {total} examples were asked with different token ids.",
            ),
            remedy="Compare again with --fresh: template or tokenizer changed between arms.",
        ),
    ]


def _rows_belong(evidence: Evidence, judgement: Judgement) -> bool:
    """Whether the examples are the frozen ones and every row was generated for this judgement."""
    data_hash = stable_hash([example.as_row() for example in evidence.examples])
    rows = (sample.judgement for samples in evidence.samples.values() for sample in samples)
    return data_hash == judgement.data_hash and set(rows) <= {judgement.fingerprint()}


def _proof(name: str, *, holds: bool, reasons: tuple[str, str], remedy: str) -> Gate:
    """A condition that is simply true or false; ``reasons`` are the sentences for either."""
    if holds:
        return Gate(name, "passed", reasons[0])
    return Gate(name, "failed", reasons[1], remedy=remedy)


def _prompt_mismatches(evidence: Evidence) -> int:
    """On how many examples the arms of the rule were asked with different token ids."""
    arms = [evidence.samples[arm] for arm in ARMS if arm in evidence.samples]
    return sum(len({sample.prompt_hash for sample in answers}) > 1 for answers in zip(*arms, strict=True))


def _asked_otherwise(evidence: Evidence, judgement: Judgement) -> str:
    """Which arms beside the rule were asked with other token ids, and why."""
    first = next((evidence.samples[arm] for arm in ARMS if arm in evidence.samples), ())
    said = []
    for arm in judgement.arms:
        pairs = zip(evidence.samples.get(arm.name, ()), first, strict=False)
        if any(sample.prompt_hash != other.prompt_hash for sample, other in pairs):
            why = "rendered by the server" if arm.template_hash is None else "asked with its own template and tokenizer"
            said.append(f"; {arm.name}: {why}")
    return "".join(said)


def _without_evidence(rule: MustImprove | MustNotRegress, evidence: Evidence) -> Gate:
    missing = [arm for arm in (rule.over, TUNED) if arm not in evidence.samples]
    if missing:
        reason = f"Not measured: {' and '.join(missing)} did not answer every example."
        return Gate(_name(rule), "open", reason, remedy="Call 'whet compare' to generate what is missing.")
    return Gate(
        name=_name(rule),
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


def _gate(
    rule: MustImprove | MustNotRegress,
    found: Comparison,
    p: float,
    state: State,
    remedy: Callable[[Comparison], str],
) -> Gate:
    paired = found.paired
    reason = (
        f"{paired.candidate_mean:.1%} against {paired.baseline_mean:.1%} on n = {paired.n}: "
        f"difference {_points(paired.difference, sign='+')} "
        f"[{100 * paired.interval.low:+.1f}, {100 * paired.interval.high:+.1f}], adjusted p {_p_text(p)}."
    )
    advice = "" if state == "passed" else remedy(found)
    if state == "failed":
        advice = "More examples will not help: change the data or the recipe."
    return Gate(_name(rule), state, reason, found, p, advice)


def _more_examples(found: Comparison) -> str:
    detectable = (
        f"{found.paired.n} examples find a difference of {_points(found.minimum_detectable_effect)} 4 times in 5"
    )
    if found.gain <= 0 or found.examples_needed is None:
        return f"No gain was seen; {detectable}. Change the data or the recipe, or accept."
    return f"{detectable}; a true difference as large as the one seen needs about {found.examples_needed}."


def _narrower_interval(found: Comparison) -> str:
    return (
        f"The interval is {_points(found.gain_high - found.gain_low)} wide on n = {found.paired.n} and reaches past "
        "the margin; four times the examples halve it."
    )


def _points(value: float, *, sign: str = "-") -> str:
    """Shares are compared in percentage points."""
    return f"{100 * value:{sign}.1f} points"


def _p_text(p: float) -> str:
    return "< 0.0001" if p < 0.0001 else f"= {p:.4f}"
