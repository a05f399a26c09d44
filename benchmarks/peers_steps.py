"""What the workers of all training contestants have in common: the clock of a step, and whet's order of rows."""

from collections.abc import Sequence
from dataclasses import dataclass

from whetstone.train.batch import Row
from whetstone.train.order import RowOrder

__all__ = ["StepTime", "in_order"]


@dataclass(frozen=True, slots=True)
class StepTime:
    """The end of an optimiser step, on the wall's and on the processor's clock, and its loss."""

    wall_s: float
    processor_s: float
    loss: float


def in_order(rows: Sequence[Row], step_rows: int, seed: int) -> list[int]:
    """The rows of the first epoch, by index, in the order in which whet learns them."""
    return [int(index) for index in RowOrder(rows, step_rows, seed).epoch(0)]
