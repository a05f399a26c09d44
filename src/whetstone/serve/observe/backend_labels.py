"""Labels that tell backends apart, also where two are called alike: a fallback may be of the same engine."""

from collections import Counter
from collections.abc import Iterator, Sequence

from whetstone.serve.backend import Backend

__all__ = ["labelled"]


def labelled(backends: Sequence[Backend]) -> Iterator[tuple[str, Backend]]:
    """Each backend with its name; the second of a name is ``NAME 2``."""
    seen: Counter[str] = Counter()
    for backend in backends:
        name = backend.name
        seen[name] += 1
        yield (name if seen[name] == 1 else f"{name} {seen[name]}"), backend
