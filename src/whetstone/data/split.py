"""Which examples train, which watch, and which judge: whole groups, by hash, never rows by position."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from whetstone.data.example import Example
from whetstone.data_section import Split
from whetstone.errors import UserError
from whetstone.section import stable_hash

__all__ = ["Splits", "split_by_group"]


@dataclass(frozen=True, slots=True)
class Splits:
    """The three parts of a data set; no group is in two of them."""

    train: tuple[Example, ...]
    validation: tuple[Example, ...]
    test: tuple[Example, ...]

    def counts(self) -> dict[str, int]:
        """Examples in each part."""
        return {"train": len(self.train), "validation": len(self.validation), "test": len(self.test)}

    def hashes(self) -> dict[str, str]:
        """Hash of each part's content, in order."""
        parts = {"train": self.train, "validation": self.validation, "test": self.test}
        return {name: stable_hash([example.as_row() for example in part]) for name, part in parts.items()}


def split_by_group(examples: Sequence[Example], split: Split) -> Splits:
    """Divides examples so that all of one group land together.

    Groups are ordered by a hash of seed and name: the order of the file does not matter, and adding rows moves few.
    Test takes the first groups, validation the next, training the rest (or as many as ``split.train`` says).

    Raises:
        UserError: There are not enough groups for what was asked.
    """
    groups: dict[str, list[Example]] = {}
    for example in examples:
        groups.setdefault(example.group, []).append(example)
    order = sorted(groups, key=lambda group: hashlib.sha256(f"{split.seed}:{group}".encode()).digest())
    test = _count(split.test, len(order), "test")
    validation = _count(split.validation, len(order), "validation")
    train = len(order) - test - validation if split.train is None else split.train
    if train < 1 or test + validation + train > len(order):
        raise UserError(
            f"data.split: asks for {test} test, {validation} validation and {max(train, 1)} training groups, but the "
            f"source holds {len(order)}; lower one of them"
        )
    ends = (test, test + validation, test + validation + train)
    return Splits(
        train=_members(groups, order[ends[1] : ends[2]]),
        validation=_members(groups, order[ends[0] : ends[1]]),
        test=_members(groups, order[: ends[0]]),
    )


def _count(asked: float, total: int, name: str) -> int:
    if asked < 1:
        return max(round(asked * total), 1 if asked > 0 else 0)
    if asked != int(asked):
        raise UserError(f"data.split.{name}: {asked} is neither a share below 1 nor a whole number of groups")
    return int(asked)


def _members(groups: dict[str, list[Example]], names: Sequence[str]) -> tuple[Example, ...]:
    """The examples of some groups, ordered within a group by id, since file order must not matter."""
    return tuple(example for name in names for example in sorted(groups[name], key=lambda example: example.id))
