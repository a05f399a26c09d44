"""Tables and intervals in Markdown."""

from collections.abc import Sequence

from whetstone.report import format as written
from whetstone.report.claims import Claims

__all__ = ["span", "table"]


def span(claims: Claims, path: str, write: written.Write) -> str:
    """An interval in words."""
    if claims.value(path) is None:
        return written.UNMEASURED
    return f"{claims.text(f'{path}.low', write)} to {claims.text(f'{path}.high', write)}"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table; whatever its texts hold, it stays one."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines)


def _cell(text: str) -> str:
    """Keeps names and notes from breaking the table or becoming HTML."""
    return written.one_line(text).replace("&", "&amp;").replace("<", "&lt;").replace("|", "\\|")
