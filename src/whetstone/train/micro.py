"""How many rows of an optimiser step are computed at once, and what happens when memory does not hold them."""

import gc
from collections.abc import Callable, Sequence
from typing import Any

import torch

from whetstone.errors import UserError
from whetstone.train.batch import Row

__all__ = ["MicroBatches", "is_out_of_memory"]


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether an allocator said so: CUDA and MPS have a type or a text of their own, a CPU only a text."""
    text = str(error)
    return isinstance(error, torch.OutOfMemoryError) or "out of memory" in text or "can't allocate memory" in text


class MicroBatches:
    """Cuts a step into micro-batches; each time memory is out it halves them, and the step stays what it was.

    Attributes:
        rows: Computed at once.
        notes: What was halved, a sentence each.
    """

    def __init__(self, rows: int, say: Callable[[str], None]) -> None:
        self.rows = rows
        self.notes: list[str] = []
        self._say = say

    def cut(self, step_rows: Sequence[Row]) -> list[Sequence[Row]]:
        """The micro-batches of a step."""
        return [step_rows[start : start + self.rows] for start in range(0, len(step_rows), self.rows)]

    def halve(self, step: int, step_rows: Sequence[Row]) -> None:
        """Makes them smaller and says so; the caller computes the step again from its start.

        Raises:
            UserError: A micro-batch has one row already.
        """
        at_once = min(self.rows, len(step_rows))
        if at_once == 1:
            longest = max(step_rows, key=lambda row: len(row.input_ids))
            raise UserError(
                f"step {step}: out of memory with one row at a time (longest: example '{longest.example}', "
                f"{len(longest.input_ids)} tokens); set tune.activation_checkpointing, lower data.max_tokens, or take "
                "a smaller base"
            )
        self.rows = -(-at_once // 2)
        self.notes.append(
            f"Out of memory at step {step}: {self.rows} rows are computed at once instead of {at_once}; an optimiser "
            f"step still learns {len(step_rows)}."
        )
        self._say(self.notes[-1])
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps: the size decides in which order sums are rounded."""
        return {"rows": self.rows, "notes": self.notes}

    def restore(self, state: dict[str, Any]) -> None:
        """Goes on with the size that fitted."""
        self.rows, self.notes = state["rows"], list(state["notes"])
