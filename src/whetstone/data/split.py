"""Which examples train, which watch, and which judge: whole groups, by hash, never rows by position."""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from whetstone.data.example import Example
from whetstone.data_section import Split
from whetstone.errors import UserError
from whetstone.section import stable_hash

__all__ = ["Splits", "split_by_group"]


@dataclass(frozen=True, slots=True)
class Splits:
    """The three parts of a data set; no group is in two of them, unless they were fixed by someone else."""

    train: tuple[Example, ...]
    validation: tuple[Example, ...]
    test: tuple[Example, ...]

    def parts(self) -> dict[str, tuple[Example, ...]]:
        """The parts by name."""
        return {"train": self.train, "validation": self.validation, "test": self.test}

    def counts(self) -> dict[str, int]:
        """Examples in each part."""
        return {name: len(part) for name, part in self.parts().items()}

    def hashes(self) -> dict[str, str]:
        """Hash of each part's content, in order."""
        return {name: stable_hash([example.as_row() for example in part]) for name, part in self.parts().items()}


def split_by_group(examples: Sequence[Example], split: Split) -> Splits:
    """Divides examples so that all of one group land together and every part has its share of every category.

    A group belongs to the category that most of its examples have. Within a category groups are ordered by a hash of
    seed and name, so the order of the file does not matter and adding rows moves few. Test takes its share of every
    category first, validation the next, training the rest (or as many as ``split.train`` says); shares that are no
    whole numbers are rounded by largest remainder, so that the totals are what was asked.

    Raises:
        UserError: There are not enough groups for what was asked.
    """
    groups: dict[str, list[Example]] = {}
    for example in examples:
        groups.setdefault(example.group, []).append(example)
    order = sorted(groups, key=lambda group: _rank(split.seed, group))
    test, validation, train = _sizes(split, len(order), len(examples))
    strata: dict[str, list[str]] = {}
    for group in order:
        strata.setdefault(_category(groups[group]), []).append(group)
    taken = {name: _take(strata, size, split.seed) for name, size in (("test", test), ("validation", validation))}
    rest = set(order) if split.train is None else _take(strata, train, split.seed)
    rest -= taken["test"] | taken["validation"]
    return Splits(
        train=_members(groups, order, rest),
        validation=_members(groups, order, taken["validation"]),
        test=_members(groups, order, taken["test"]),
    )


def _rank(seed: int, name: str) -> bytes:
    return hashlib.sha256(f"{seed}:{name}".encode(errors="surrogatepass")).digest()


def _sizes(split: Split, total: int, examples: int) -> tuple[int, int, int]:
    """Groups for test, validation and training, of ``total``."""
    test = _count(split.test, total, "test")
    validation = _count(split.validation, total, "validation")
    train = total - test - validation if split.train is None else split.train
    if train < 1 or test + validation + train > total:
        if total == 1 < examples:
            raise UserError(
                f"data.split: all {examples:,} examples are one group, and a group is never divided; name another "
                "field with data.group"
            )
        raise UserError(
            f"data.split: asks for {test} test, {validation} validation and {max(train, 1)} training groups, but the "
            f"source holds {total}; lower one of them"
        )
    return test, validation, train


def _count(asked: float, total: int, name: str) -> int:
    if asked < 1:
        return max(round(asked * total), 1 if asked > 0 else 0)
    # Infinity is no integer either.
    if not float(asked).is_integer():
        raise UserError(f"data.split.{name}: {asked} is neither a share below 1 nor a whole number of groups")
    return int(asked)


def _category(members: Sequence[Example]) -> str:
    counts = Counter(example.category for example in members)
    return min(counts, key=lambda category: (-counts[category], category))


def _take(strata: dict[str, list[str]], size: int, seed: int) -> set[str]:
    """Takes ``size`` groups off the fronts of the strata, from each in proportion to what it still holds."""
    quotas = _apportion({name: len(groups) for name, groups in strata.items()}, size, seed)
    taken = {group for name, quota in quotas.items() for group in strata[name][:quota]}
    for name, quota in quotas.items():
        del strata[name][:quota]
    return taken


def _apportion(weights: Mapping[str, int], size: int, seed: int) -> dict[str, int]:
    """Whole numbers that sum to ``size``, in proportion to the weights, by largest remainder (Hamilton's method)."""
    total = sum(weights.values())
    quotas = {name: size * weight // total for name, weight in weights.items()}
    by_remainder = sorted(weights, key=lambda name: (-(size * weights[name] % total), _rank(seed, name)))
    for name in by_remainder[: size - sum(quotas.values())]:
        quotas[name] += 1
    return quotas


def _members(groups: Mapping[str, Sequence[Example]], order: Sequence[str], names: set[str]) -> tuple[Example, ...]:
    """The examples of some groups, ordered within a group by id, since file order must not matter."""
    return tuple(
        example for name in order if name in names for example in sorted(groups[name], key=lambda example: example.id)
    )
