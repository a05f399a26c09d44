"""Pieces of GitHub Markdown that the reports share."""

import re
from collections.abc import Sequence

from whetstone.report import format as written
from whetstone.report.kinds.advice import Advice

__all__ = ["advice_list", "fenced", "prose", "table"]


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table; names and notes can neither break it nor become HTML."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(prose(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)


def prose(text: str) -> str:
    """A text on one line that cannot become HTML."""
    return written.one_line(text).replace("&", "&amp;").replace("<", "&lt;")


def fenced(text: str) -> str:
    """A block in which nothing is Markdown or HTML, whatever the text holds."""
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence}text\n{text}\n{fence}"


def advice_list(advice: Sequence[Advice]) -> str:
    """Recommendations with their evidence, an item each."""
    words = {"bad": "Mend", "open": "Consider", "good": "Fine"}
    return "\n".join(
        f"- **{words[one.tone]}: {prose(one.title)}.** {prose(one.text())} {prose(one.action)}" for one in advice
    )
