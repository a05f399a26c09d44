"""From the text of a report to its findings."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from whetstone.audit.finding import SEVERITIES, WIDEST_POINTS, Check, Claim, Finding
from whetstone.audit.markdown import read_markdown
from whetstone.audit.material import Material
from whetstone.audit.pairs import find_changes
from whetstone.audit.rules.bases import check_bases
from whetstone.audit.rules.chance import check_chance
from whetstone.audit.rules.changes import check_changes
from whetstone.audit.rules.parameters import check_parameters
from whetstone.audit.rules.rates import check_rates
from whetstone.audit.rules.schedule import check_schedule
from whetstone.audit.rules.significance import check_significance
from whetstone.audit.rules.targets import check_targets
from whetstone.audit.rules.totals import check_totals
from whetstone.audit.rules.values import check_values
from whetstone.audit.shares import find_rates

__all__ = ["Audit", "audit"]


@dataclass(frozen=True, slots=True)
class Audit:
    """What was found in a report.

    Attributes:
        findings: The worst first, then by line; at most one for each claim and rule.
        claims: How many claims there are.
        supported: How many of them agree with other numbers of the report.
    """

    findings: tuple[Finding, ...]
    claims: int
    supported: int

    @property
    def flagged(self) -> int:
        """How many claims have a finding."""
        return len({(finding.claim.line, finding.claim.said) for finding in self.findings})

    @property
    def unchecked(self) -> int:
        """How many claims no rule can say anything of; that is no praise."""
        return self.claims - self.supported - self.flagged

    def as_row(self) -> dict[str, Any]:
        """The JSON object that ``--json`` prints."""
        counts = {
            "claims": self.claims,
            "flagged": self.flagged,
            "supported": self.supported,
            "unchecked": self.unchecked,
        }
        return {**counts, "findings": [finding.as_row() for finding in self.findings]}


def audit(text: str, widest_points: float = WIDEST_POINTS) -> Audit:
    """Checks the claims of a Markdown report against each other.

    Args:
        text: The report.
        widest_points: Width in percentage points of the widest interval that a rate may have without showing it.

    Returns:
        The findings, and how many claims there are.
    """
    material = Material.of(read_markdown(text))
    rules: list[Callable[[Material], Iterator[Check]]] = [
        check_rates,
        partial(check_chance, widest=widest_points),
        check_changes,
        check_bases,
        check_targets,
        check_parameters,
        check_totals,
        check_schedule,
        check_values,
        check_significance,
    ]
    checks = [check for rule in rules for check in rule(material)]
    findings = _without_repeats([check.finding for check in checks if check.finding is not None])
    flagged = {_place(finding.claim) for finding in findings}
    supported = {_place(check.claim) for check in checks} - flagged
    claims = {_place(claim) for claim in _claims(material)} | flagged | supported
    return Audit(findings, len(claims), len(supported))


def _claims(material: Material) -> Iterator[Claim]:
    """Rates and changes, whether or not a rule can judge them."""
    for passage in material.passages:
        yield from (rate.claim for rate in find_rates(passage))
        yield from (passage.claim(change.number.start, change.end) for change in find_changes(passage))


def _without_repeats(findings: list[Finding]) -> tuple[Finding, ...]:
    """One finding a claim: the worst."""
    order = {severity: at for at, severity in enumerate(SEVERITIES)}
    kept: dict[tuple[int, str], Finding] = {}
    for finding in sorted(findings, key=lambda one: order[one.severity]):
        kept.setdefault(_place(finding.claim), finding)
    return tuple(sorted(kept.values(), key=lambda one: (order[one.severity], one.claim.line)))


def _place(claim: Claim) -> tuple[int, str]:
    return claim.line, claim.said
