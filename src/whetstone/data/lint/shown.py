"""How findings say numbers and show examples."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from operator import is_

from whetstone.data.example import Example, Message
from whetstone.data.finding import EXAMPLES_SHOWN, excerpt

__all__ = ["counted", "each_text", "percent", "ratio", "shown"]


def ratio(count: int, total: int) -> str:
    """``744 of 750``, with thousands separators."""
    return f"{count:,} of {total:,}"


def percent(count: int, total: int) -> str:
    """A share in per cent with one decimal; what is neither none nor all never reads as such."""
    share = 100 * count / total if total else 0.0
    if 0 < share < 0.05:
        return "< 0.1 %"
    return "> 99.9 %" if 99.95 <= share < 100 else f"{share:.1f} %"


def counted(count: int, total: int, noun: str = "examples") -> str:
    """``744 of 750 examples (99.2 %)``: how a message begins."""
    return f"{ratio(count, total)} {noun} ({percent(count, total)})"


def shown(pairs: Iterable[tuple[Example, str]]) -> tuple[str, ...]:
    """The first few examples as ``id: excerpt``; the rest of the iterable is not touched."""
    return tuple(f"{example.id}: {excerpt(text)}" for example, text in islice(pairs, EXAMPLES_SHOWN))


def each_text(examples: Sequence[Example]) -> Iterator[tuple[Example, str]]:
    """Every turn and every reference with its example.

    A conversation that gives an example for each answer shares its turns among them; each is yielded once, or the
    work would grow with the square of the conversation's length.
    """
    seen: set[int] = set()
    group: str | None = None
    earlier: tuple[Message, ...] = ()
    for example in examples:
        if example.group != group:
            seen, group, earlier = set(), example.group, ()
        continues = len(earlier) <= len(example.messages) and all(map(is_, earlier, example.messages))
        new = example.messages[len(earlier) if continues else 0 :]
        earlier = example.messages
        for text in (*(message.content for message in new), *example.references):
            if id(text) not in seen:
                seen.add(id(text))
                yield example, text
