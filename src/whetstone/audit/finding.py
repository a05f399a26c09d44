"""A claim, and what is wrong with it."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

__all__ = ["SEVERITIES", "WIDEST_POINTS", "Check", "Claim", "Finding", "Rule", "Severity"]

Severity = Literal["impossible", "contradicted", "unsupported", "weak"]
"""What the arithmetic says of a claim, worst first.

No data can give it; other numbers of the report say otherwise; nothing in the report could give it; it may be true, and
the report shows too little to tell.
"""

WIDEST_POINTS = 20.0
"""Width in percentage points of the widest 95 % interval that a rate may have without showing it."""

SEVERITIES: tuple[Severity, ...] = ("impossible", "contradicted", "unsupported", "weak")

Rule = Literal[
    "impossible-rate",
    "rate-against-count",
    "wide-interval",
    "not-beyond-chance",
    "change-against-values",
    "wrong-direction",
    "change-of-nothing",
    "target-hides-regression",
    "parameters-against-shape",
    "parts-against-total",
    "equation",
    "steps-against-schedule",
    "two-values",
    "untested-significance",
]


@dataclass(frozen=True, slots=True)
class Claim:
    """A number that a report states.

    Attributes:
        line: Line of the file, from 1.
        said: The number as it was printed.
        quote: The words round it.
    """

    line: int
    said: str
    quote: str


@dataclass(frozen=True, slots=True)
class Finding:
    """What is wrong with one claim.

    Attributes:
        rule: Which rule found it.
        severity: How wrong it is.
        claim: The claim.
        arithmetic: The calculation that shows it.
        mend: What the author could write instead.
    """

    rule: Rule
    severity: Severity
    claim: Claim
    arithmetic: str
    mend: str

    def as_row(self) -> dict[str, Any]:
        """The JSON object that ``--json`` prints."""
        row = asdict(self)
        return {**row.pop("claim"), **row}


@dataclass(frozen=True, slots=True)
class Check:
    """What one rule says of one claim: that it is borne out, or a finding."""

    claim: Claim
    finding: Finding | None = None

    @classmethod
    def failed(cls, rule: Rule, severity: Severity, claim: Claim, arithmetic: str, mend: str) -> "Check":
        """A check that ends in a finding."""
        return cls(claim, Finding(rule, severity, claim, arithmetic, mend))
