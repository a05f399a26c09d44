"""A fault in the data, said so that it can be mended."""

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    # The schema brings pydantic with it, which a command line that prints help can do without.
    from whetstone.data_section import FindingCode

__all__ = ["EXAMPLES_SHOWN", "Finding", "Severity", "excerpt"]

Severity = Literal["error", "warning", "note"]
"""An error stops training unless the experiment allows its code; a warning is printed; a note is worth knowing."""

EXAMPLES_SHOWN = 3
"""How many examples a finding shows."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One kind of fault, with everything that was found of it.

    Attributes:
        code: Which kind.
        severity: What it does to a run.
        count: How many rows, pairs or turns are concerned.
        total: Of how many.
        message: One sentence: what was found.
        mend: One sentence: what to do.
        examples: Up to three, each with the example's id.
    """

    code: "FindingCode"
    severity: Severity
    count: int
    total: int
    message: str
    mend: str
    examples: tuple[str, ...] = ()

    @property
    def share(self) -> float:
        """``count / total``; 0 where there is nothing to count."""
        return self.count / self.total if self.total else 0.0

    def as_row(self) -> dict[str, Any]:
        """The JSON object that ``--json`` prints."""
        return {**asdict(self), "examples": list(self.examples), "share": self.share}


def excerpt(text: str, width: int = 60) -> str:
    """A text on one line, cut to ``width`` characters, with control characters shown as escapes."""
    line = " ".join(text.split())
    shown = "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in line[: width + 1]
    )
    return shown if len(shown) <= width else shown[: width - 1] + "…"
