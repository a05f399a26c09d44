"""Numbers as a line of blocks, for terminals."""

import math
from collections.abc import Sequence

__all__ = ["sparkline"]

_BLOCKS = "▁▂▃▄▅▆▇█"


def sparkline(values: Sequence[float], width: int) -> str:
    """Draws numbers as blocks between their least and their greatest.

    Args:
        values: In their order; what is not finite leaves a gap.
        width: At most so many columns; of more values, neighbours are averaged.
    """
    columns = min(width, len(values))
    means = []
    for column in range(columns):
        part = values[column * len(values) // columns : (column + 1) * len(values) // columns]
        finite = [value for value in part if math.isfinite(value)]
        means.append(sum(finite) / len(finite) if finite else None)
    known = [mean for mean in means if mean is not None]
    if not known:
        return " " * columns
    least, extent = min(known), max(known) - min(known)
    top = len(_BLOCKS) - 1
    return "".join(
        " " if mean is None else _BLOCKS[round((mean - least) / extent * top) if extent else 0] for mean in means
    )
