"""From gates to SHIP, REJECT or INCONCLUSIVE."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from whetstone.evaluate.evidence import Evidence
from whetstone.evaluate.sanity import Sanity
from whetstone.judge_section import Judge
from whetstone.run import Manifest
from whetstone.verdict.gate import Gate
from whetstone.verdict.limits import limit_gates, retention_gates
from whetstone.verdict.proofs import proofs, sanity_proofs
from whetstone.verdict.rounds import round_gates
from whetstone.verdict.statistical import statistical_gates

__all__ = ["Verdict", "decide"]

Outcome = Literal["SHIP", "REJECT", "INCONCLUSIVE"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """SHIP, REJECT or INCONCLUSIVE, with the gates that led there."""

    outcome: Outcome
    gates: tuple[Gate, ...]

    @property
    def exit_code(self) -> int:
        """What the command ends with: 0 SHIP, 1 REJECT, 3 INCONCLUSIVE (2 is bad input)."""
        return {"SHIP": 0, "REJECT": 1, "INCONCLUSIVE": 3}[self.outcome]


def decide(
    evidence: Mapping[str, Evidence], manifest: Manifest, sanity: Sanity | None = None, later_rule: Judge | None = None
) -> Verdict:
    """Applies a rule to the rows of a run.

    Args:
        evidence: By suite; the held-out examples among them.
        manifest: Of the run.
        sanity: What was tried beside asking, if anything.
        later_rule: Applied instead of the rule that was frozen; the verdict says so.
    """
    judge = later_rule or manifest.experiment.judge
    gates = (
        *proofs(evidence, manifest, later_rule=later_rule is not None),
        *sanity_proofs(sanity),
        *(round_gates if judge.stop_early else statistical_gates)(evidence, judge),
        *limit_gates(evidence, judge),
        *retention_gates(manifest.retention, judge.retention),
    )
    return Verdict(_outcome(gates), gates)


def _outcome(gates: Sequence[Gate]) -> Outcome:
    states = {gate.state for gate in gates}
    if "failed" in states:
        return "REJECT"
    return "INCONCLUSIVE" if "open" in states else "SHIP"
