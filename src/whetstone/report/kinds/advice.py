"""What a report recommends, with every number that it rests on beside it."""

import re
from collections.abc import Iterator
from typing import Literal

from pydantic import model_validator

from whetstone.report import format as written
from whetstone.report.kinds.part import Part

__all__ = ["Advice", "Number", "Tone", "Unit", "writer"]

Tone = Literal["bad", "open", "good"]
"""How it is coloured: something is wrong, something may be, or something is as it should be."""

Unit = Literal[
    "count",
    "loss",
    "loss_difference",
    "slope",
    "share",
    "points",
    "difference",
    "bytes",
    "duration",
    "rate",
    "temperature",
]

_PLACEHOLDER = re.compile(r"\{(\w+)\}")


class Number(Part):
    """A number that advice rests on."""

    value: float
    unit: Unit


class Advice(Part):
    """One recommendation.

    Attributes:
        rule: The function that gives it, so that it can be looked up.
        tone: How bad it is.
        title: What is the case, in few words and without numbers.
        evidence: Why, in one or two sentences; ``{name}`` stands for a number.
        action: What to do.
        numbers: All numbers of ``evidence``, by name.
    """

    rule: str
    tone: Tone
    title: str
    evidence: str
    action: str
    numbers: dict[str, Number]

    @model_validator(mode="after")
    def _numbers_are_named(self) -> "Advice":
        used = set(_PLACEHOLDER.findall(self.evidence))
        if used != self.numbers.keys():
            raise ValueError(f"{self.rule}: the evidence names {sorted(used)}, given are {sorted(self.numbers)}")
        return self

    def pieces(self) -> Iterator[tuple[str, str | None]]:
        """The evidence as runs of text, each with the name of the number that follows it."""
        texts = _PLACEHOLDER.split(self.evidence)
        yield from zip(texts[0::2], (*texts[1::2], None), strict=True)

    def text(self) -> str:
        """The evidence with its numbers written in."""
        return "".join(
            text + ("" if name is None else writer(self.numbers[name].unit)(self.numbers[name].value))
            for text, name in self.pieces()
        )


def writer(unit: Unit) -> written.Write:
    """How numbers of a unit are written."""
    writers: dict[Unit, written.Write] = {
        "count": written.count,
        "loss": written.decimal,
        "loss_difference": written.decimal_difference,
        "slope": lambda value: f"{value:+.3g}".replace("-", "\N{MINUS SIGN}"),
        "share": written.share,
        "points": written.points,
        "difference": lambda value: f"{value:+.3g}".replace("-", "\N{MINUS SIGN}"),
        "bytes": written.byte_size,
        "duration": written.duration,
        "rate": written.rate,
        "temperature": lambda value: f"{value:.0f}\N{NO-BREAK SPACE}°C",
    }
    return writers[unit]
