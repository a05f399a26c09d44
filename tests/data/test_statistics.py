"""The numbers of a data set, against counts by hand and against numpy."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from whetstone.data.example import Example, Message
from whetstone.data.statistics import Bin, Spread, describe, histogram, percentile, spread

VALUES = st.lists(st.integers(0, 500), min_size=1, max_size=60)


def example(name: str, source: str, *references: str, group: str = "g", category: str = "all") -> Example:
    return Example(name, (Message("system", "S"), Message("user", source)), references, source, group, category)


def test_everything_is_counted() -> None:
    statistics = describe(
        [
            example("1", "a b", "a c", "a d", group="x", category="article"),
            example("2", "a b c", " a b c ", group="x", category="plural"),
            example("3", "a", "b b b b b", group="y", category="article"),
        ]
    )
    assert (statistics.examples, statistics.groups) == (3, 2)
    assert statistics.group_sizes == Spread(1, 1.5, 1.95, 2)
    assert list(statistics.categories.items()) == [("article", 2), ("plural", 1)]
    assert statistics.references == Spread(1, 1, 1.9, 2)
    assert statistics.turns == Spread(2, 2, 2, 2)
    assert statistics.identity_share == pytest.approx(1 / 3)
    assert statistics.prompt is not None
    assert (statistics.prompt.words.minimum, statistics.prompt.words.maximum) == (2, 4)
    assert statistics.prompt.characters.maximum == len("S\na b c")
    assert statistics.answer.words == Spread(2, 3, 4.8, 5)


def test_plain_text_has_no_prompt_to_measure() -> None:
    statistics = describe([Example("1", (), ("a b",), "a b", "g")])
    assert statistics.prompt is None
    assert statistics.identity_share is None
    assert statistics.answer.words.maximum == 2


@given(VALUES, st.floats(0, 1))
def test_percentiles_are_those_of_numpy(values: list[int], share: float) -> None:
    assert percentile(sorted(values), share) == pytest.approx(np.quantile(values, share), abs=1e-9)


@given(VALUES)
def test_a_spread_lies_in_order(values: list[int]) -> None:
    found = spread(values)
    assert found.minimum <= found.median <= found.p95 <= found.maximum


@given(VALUES, st.integers(1, 12))
def test_a_histogram_holds_every_value_once(values: list[int], bins: int) -> None:
    bars = histogram(values, bins)
    assert len(bars) <= bins
    assert sum(bar.count for bar in bars) == len(values)
    for bar in bars:
        assert bar.count == sum(bar.start <= value <= bar.end for value in values)
    assert all(one.end + 1 == other.start for one, other in itertools.pairwise(bars))


def test_long_texts_share_the_last_bin() -> None:
    bars = histogram([1] * 50 + [2] * 49 + [900], bins=10)
    assert bars == (Bin(1, 1, 50), Bin(2, 900, 50))
