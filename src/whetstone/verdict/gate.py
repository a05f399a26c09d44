"""One condition of the rule, and how numbers stand in its sentences."""

from dataclasses import dataclass
from typing import Literal

from whetstone.evaluate.metrics.metric import Unit
from whetstone.stats.comparison import Comparison

__all__ = ["Gate", "State", "amount", "bounds", "difference", "p_text", "proof"]

State = Literal["passed", "failed", "open"]


@dataclass(frozen=True, slots=True)
class Gate:
    """One condition of the rule and how it ended.

    Attributes:
        name: The condition in words.
        state: ``passed``, ``failed`` or ``open``.
        reason: One sentence with the numbers that decided.
        comparison: The evidence; None for proofs, limits and retention.
        p_adjusted: Holm-adjusted p; None where there is no comparison, or it was decided by rounds.
        remedy: What would change the state; empty when passed.
    """

    name: str
    state: State
    reason: str
    comparison: Comparison | None = None
    p_adjusted: float | None = None
    remedy: str = ""


def proof(name: str, *, holds: bool, reasons: tuple[str, str], remedy: str) -> Gate:
    """A condition that is simply true or false; ``reasons`` are the sentences for either."""
    if holds:
        return Gate(name, "passed", reasons[0])
    return Gate(name, "failed", reasons[1], remedy=remedy)


def amount(value: float, unit: Unit) -> str:
    """A mean score as it stands in a sentence; scores from 0 to 1 are written from 0 to 100, as they are published."""
    if unit in ("share", "score"):
        return f"{100 * value:.1f}{'%' if unit == 'share' else ''}"
    return f"{value:.3f} {unit}"


def difference(value: float, unit: Unit, *, sign: str = "-") -> str:
    """A difference of means: shares are compared in percentage points."""
    if unit in ("share", "score"):
        return f"{100 * value:{sign}.1f} points"
    return f"{value:{sign}.3f} {unit}"


def bounds(low: float, high: float, unit: Unit) -> str:
    """The interval of a difference."""
    return f"[{100 * low:+.1f}, {100 * high:+.1f}]" if unit in ("share", "score") else f"[{low:+.3f}, {high:+.3f}]"


def p_text(p: float) -> str:
    """A p value, where it has four decimals."""
    return "< 0.0001" if p < 0.0001 else f"= {p:.4f}"
