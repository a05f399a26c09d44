"""Krippendorff's alpha against the published example and against its definition."""

import random

import pytest

from whetstone.stats.agreement import krippendorff_alpha


def test_the_published_example_of_several_observers_with_missing_ratings() -> None:
    """Krippendorff (2011), section C: four observers, twelve units, nominal: 0.743."""
    ratings = {
        "a": [1, 2, 3, 3, 2, 1, 4, 1, 2, None, None, None],
        "b": [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, None, 3],
        "c": [None, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, None],
        "d": [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, None],
    }
    units = [[row[u] for row in ratings.values() if row[u] is not None] for u in range(12)]
    assert krippendorff_alpha(units) == pytest.approx(0.743, abs=0.0005)


def test_the_ends() -> None:
    assert krippendorff_alpha([["x", "x"], ["y", "y"]]) == 1
    assert krippendorff_alpha([["x", "y"], ["y", "x"]]) == pytest.approx(-0.5)
    assert krippendorff_alpha([["x"], ["y"]]) is None
    assert krippendorff_alpha([["x", "x"]]) is None


def test_chance_agrees_no_more_than_chance() -> None:
    draw = random.Random(0)
    assert abs(krippendorff_alpha([draw.choices("abc", k=2) for _ in range(20_000)]) or 0) < 0.02
