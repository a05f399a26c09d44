"""A file of JSON lines whose rows are read where they are needed: a million of them fit in memory as positions."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from whetstone.errors import UserError

__all__ = ["LineFile"]

_BLOCK_BYTES = 1 << 24


@dataclass(frozen=True, slots=True, eq=False)
class LineFile:
    """The whole lines of a file; a torn last line (no newline) is not one of them.

    Attributes:
        path: The file.
        ends: Where each line ends, in bytes, its newline included, ``(lines,)``.
    """

    path: Path
    ends: npt.NDArray[np.int64]

    @classmethod
    def open(cls, path: Path) -> "LineFile":
        """Finds the lines of a file."""
        found, position = [np.empty(0, np.int64)], 0
        with path.open("rb") as file:
            while block := file.read(_BLOCK_BYTES):
                found.append(np.flatnonzero(np.frombuffer(block, np.uint8) == ord("\n")) + position + 1)
                position += len(block)
        return cls(path, np.concatenate(found))

    def __len__(self) -> int:
        return len(self.ends)

    def rows(self, start: int, stop: int) -> Iterator[dict[str, Any]]:
        """The rows from ``start`` up to ``stop``, one after the other.

        Raises:
            UserError: A line is not a JSON object; the message names it.
        """
        if start >= stop:
            return
        with self.path.open("rb") as file:
            file.seek(0 if start == 0 else int(self.ends[start - 1]))
            for number in range(start, stop):
                yield self._parsed(file.readline(), number)

    def pick(self, indices: Sequence[int]) -> Iterator[dict[str, Any]]:
        """The rows at some places, in the order asked for; the file is opened once.

        Raises:
            UserError: A line is not a JSON object; the message names it.
        """
        with self.path.open("rb") as file:
            for index in indices:
                file.seek(0 if index == 0 else int(self.ends[index - 1]))
                yield self._parsed(file.readline(), index)

    def row(self, index: int) -> dict[str, Any]:
        """One row."""
        return next(self.rows(index, index + 1))

    def problem(self, index: int, message: str) -> UserError:
        """One line that names file and line."""
        return UserError(f"{self.path}:{index + 1}: {message}; delete the file to make it again")

    def _parsed(self, line: bytes, index: int) -> dict[str, Any]:
        try:
            row = json.loads(line)
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise self.problem(index, f"not JSON ({error})") from None
        if not isinstance(row, dict):
            raise self.problem(index, "expected a JSON object")
        return row
