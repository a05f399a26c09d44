"""What a data set consists of, in numbers: counted from the examples alone, without a tokenizer."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from whetstone.data.example import Example

__all__ = ["Bin", "Lengths", "Spread", "Statistics", "describe", "histogram", "percentile", "spread"]


@dataclass(frozen=True, slots=True)
class Spread:
    """How a whole number is distributed over examples or groups."""

    minimum: int
    median: float
    p95: float
    maximum: int


@dataclass(frozen=True, slots=True)
class Bin:
    """One bar of a histogram: how many values lie from ``start`` to ``end``, both included."""

    start: int
    end: int
    count: int


@dataclass(frozen=True, slots=True)
class Lengths:
    """How long the texts on one side are."""

    characters: Spread
    words: Spread
    histogram: tuple[Bin, ...]
    """Of the lengths in words."""


@dataclass(frozen=True, slots=True)
class Statistics:
    """A data set in numbers.

    Attributes:
        examples: How many.
        groups: How many different sources they were made from.
        group_sizes: Examples in a group.
        categories: Examples of every category, the most frequent first.
        prompt: All turns of a prompt together; None where no example has a prompt (plain text).
        answer: The first references.
        references: References of an example.
        turns: Turns of a prompt, the system turn among them.
        identity_share: The share of examples with a prompt whose first reference is the source itself; None where no
            example has a prompt.
    """

    examples: int
    groups: int
    group_sizes: Spread
    categories: Mapping[str, int]
    prompt: Lengths | None
    answer: Lengths
    references: Spread
    turns: Spread
    identity_share: float | None

    def as_row(self) -> dict[str, Any]:
        """The JSON object that ``--json`` prints."""
        return asdict(self)


def describe(examples: Sequence[Example]) -> Statistics:
    """Counts and measures examples.

    Args:
        examples: At least one.

    Returns:
        The numbers.
    """
    groups = Counter(example.group for example in examples)
    asked = [example for example in examples if example.messages]
    same = sum(example.references[0].strip() == example.source.strip() for example in asked)
    return Statistics(
        examples=len(examples),
        groups=len(groups),
        group_sizes=spread(groups.values()),
        categories=dict(Counter(example.category for example in examples).most_common()),
        prompt=_lengths(["\n".join(turn.content for turn in example.messages) for example in asked]) if asked else None,
        answer=_lengths([example.references[0] for example in examples]),
        references=spread(len(example.references) for example in examples),
        turns=spread(len(example.messages) for example in examples),
        identity_share=same / len(asked) if asked else None,
    )


def spread(values: Iterable[int]) -> Spread:
    """The least, the middle, the 95th percentile and the greatest of some numbers, of which there must be one."""
    ordered = sorted(values)
    return Spread(ordered[0], percentile(ordered, 0.5), percentile(ordered, 0.95), ordered[-1])


def percentile(ordered: Sequence[int], share: float) -> float:
    """The value below which a share of sorted numbers lies, between two neighbours in proportion (as numpy does).

    Source: Hyndman and Fan (1996), definition 7.
    """
    place = share * (len(ordered) - 1)
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])


def histogram(values: Sequence[int], bins: int = 10) -> tuple[Bin, ...]:
    """Counts whole numbers in bins of one width; what lies beyond the 95th percentile goes into the last bin.

    A few very long texts would otherwise squeeze all others into the first bin.

    Args:
        values: At least one.
        bins: At most so many.

    Returns:
        The bins from the least value to the greatest, empty ones too.
    """
    ordered = sorted(values)
    least, most = ordered[0], max(ordered[0], math.ceil(percentile(ordered, 0.95)))
    width = math.ceil((most - least + 1) / bins)
    count = math.ceil((most - least + 1) / width)
    places = Counter(min((value - least) // width, count - 1) for value in ordered)
    starts = [least + place * width for place in range(count)]
    ends = [start + width - 1 for start in starts]
    ends[-1] = max(ends[-1], ordered[-1])
    return tuple(Bin(start, end, places[place]) for place, (start, end) in enumerate(zip(starts, ends, strict=True)))


def _lengths(texts: Sequence[str]) -> Lengths:
    words = [len(text.split()) for text in texts]
    return Lengths(spread(len(text) for text in texts), spread(words), histogram(words))
