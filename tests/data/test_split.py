"""Splitting by group."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whetstone.data.example import Example, Message
from whetstone.data.split import split_by_group
from whetstone.data_section import Split
from whetstone.errors import UserError


def example(number: int, group: str) -> Example:
    return Example(f"e{number}", (Message("user", "x"),), ("y",), "x", group)


def many(groups: int, size: int = 2) -> list[Example]:
    return [example(n, f"g{n % groups}") for n in range(groups * size)]


@given(order=st.permutations(range(30)), seed=st.integers(0, 5))
def test_no_group_straddles_and_file_order_does_not_matter(order: list[int], seed: int) -> None:
    examples = many(10, 3)
    split = Split(test=3, validation=2, seed=seed)
    splits = split_by_group([examples[i] for i in order], split)
    assert splits == split_by_group(examples, split)
    parts = [{e.group for e in part} for part in (splits.train, splits.validation, splits.test)]
    assert [len(part) for part in parts] == [5, 2, 3]
    assert not parts[0] & parts[1]
    assert not parts[0] & parts[2]
    assert not parts[1] & parts[2]
    assert sum(splits.counts().values()) == 30


def test_shares_and_counts() -> None:
    assert split_by_group(many(40), Split(test=0.25, validation=0)).counts() == {
        "train": 60,
        "validation": 0,
        "test": 20,
    }
    assert split_by_group(many(40), Split(train=7, test=5, validation=1)).counts()["train"] == 14


def test_another_seed_gives_another_split() -> None:
    first, second = (split_by_group(many(40), Split(test=10, seed=seed)).test for seed in (0, 1))
    assert first != second


@pytest.mark.parametrize("split", [Split(test=39), Split(train=30, test=12), Split(test=39, validation=1)])
def test_too_few_groups(split: Split) -> None:
    with pytest.raises(UserError, match="but the source holds 40"):
        split_by_group(many(40), split)


def test_a_count_must_be_whole() -> None:
    with pytest.raises(UserError, match=r"data\.split\.test"):
        split_by_group(many(40), Split(test=2.5))


def of_category(number: int, group: str, category: str) -> Example:
    return Example(f"e{number}", (Message("user", "x"),), ("y",), "x", group, category)


@given(
    sizes=st.dictionaries(st.sampled_from("abcdefgh"), st.integers(1, 40), min_size=1),
    test=st.floats(0.05, 0.4),
    validation=st.floats(0, 0.3),
    seed=st.integers(0, 5),
)
def test_every_part_has_its_share_of_every_category(
    sizes: dict[str, int], test: float, validation: float, seed: int
) -> None:
    examples = [of_category(n, f"{kind}{n}", kind) for kind, size in sizes.items() for n in range(size)]
    total = len(examples)
    try:
        splits = split_by_group(examples, Split(test=test, validation=validation, seed=seed))
    except UserError:
        assert total < 4
        return
    asked = {"test": max(1, round(test * total)), "validation": max(round(validation * total), int(validation > 0))}
    assert {name: splits.counts()[name] for name in asked} == asked
    for kind, size in sizes.items():
        held_out = sum(example.category == kind for example in splits.test)
        assert abs(held_out - size * asked["test"] / total) < 1
        watched = sum(example.category == kind for example in splits.validation)
        assert abs(watched - (size - held_out) * asked["validation"] / (total - asked["test"])) < 1


def test_rare_categories_do_not_go_to_the_test_part_by_their_names() -> None:
    examples = [of_category(n, f"g{n}", f"kind {n:03d}") for n in range(100)]
    tested = {example.category for example in split_by_group(examples, Split(test=20)).test}
    assert len(tested) == 20
    assert tested != {f"kind {n:03d}" for n in range(20)}


def test_a_group_of_mixed_categories_stays_whole() -> None:
    examples = [of_category(n, f"g{n % 10}", "rare" if n < 10 else "common") for n in range(30)]
    splits = split_by_group(examples, Split(test=3, validation=0))
    assert {len([e for e in splits.test if e.group == group]) for group in {e.group for e in splits.test}} == {3}


def test_a_count_must_be_finite() -> None:
    for share in (float("inf"), float("nan")):
        with pytest.raises(UserError, match=r"data\.split\.test"):
            split_by_group(many(40), Split().model_copy(update={"test": share}))


def test_one_group_is_said_to_be_one() -> None:
    with pytest.raises(UserError, match=r"all 7 examples are one group, .* with data\.group"):
        split_by_group(many(1, 7), Split())
    with pytest.raises(UserError, match="but the source holds 1; lower one"):
        split_by_group(many(1, 1), Split())
