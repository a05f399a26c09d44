import numpy as np
import pytest

from whetstone.errors import UserError
from whetstone.stats.resample import IntArray
from whetstone.stats.scores import ArmScores, PairedScores


@pytest.mark.parametrize(
    ("baseline", "candidate", "groups", "message"),
    [
        ([], [], [], "no scores"),
        ([1.0, 0.0], [1.0], ["a", "b"], "candidate has 1 scores for 2 groups"),
        ([1.0, 0.0], [1.0, 0.0], ["a"], "baseline has 2 scores for 1 groups"),
        ([1.0, float("nan")], [1.0, 0.0], ["a", "b"], "baseline score of example 1 is nan"),
        ([1.0, 0.0], [float("inf"), 0.0], ["a", "b"], "candidate score of example 0 is inf"),
        ([1.0, 0.0, 1.0], [1.0, 0.0, 0.0], ["a", "a", "a"], "of group 'a'"),
    ],
)
def test_bad_input_is_named(baseline: list[float], candidate: list[float], groups: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        PairedScores.of(baseline, candidate, groups)


def test_groups_are_numbered_without_a_gap_whatever_their_names() -> None:
    arm = ArmScores.of("arm", [1, 2, 3, 4], ["b", 7, "b", None])
    assert arm.group_numbers.tolist() == [0, 1, 0, 2]
    assert not arm.is_ungrouped


def test_range_includes_zero_and_is_never_empty() -> None:
    assert ArmScores.of("arm", [3, 5], "ab").range == (0, 5)
    assert ArmScores.of("arm", [-3, -5], "ab").range == (-5, 0)
    assert ArmScores.of("arm", [0, 0], "ab").range == (0, 1)


def test_span_covers_both_arms() -> None:
    assert PairedScores.of([2, 3], [4, -1], "ab").span == 5


@pytest.mark.parametrize(
    ("baseline", "candidate", "groups", "expected"),
    [
        ([0, 1, 1], [1, 1, 0], "abc", True),
        ([0, -1, -1], [-1, -1, 0], "abc", True),
        ([0, 1, 1], [1, 1, 0], "aab", False),
        ([0, 1, 1], [0.5, 1, 0], "abc", False),
        ([4, 3, 5], [3, 3, 4], "abc", False),
    ],
)
def test_independent_flips(baseline: list[float], candidate: list[float], groups: str, expected: bool) -> None:
    assert PairedScores.of(baseline, candidate, groups).are_independent_flips is expected


def test_difference_is_candidate_minus_baseline() -> None:
    difference = PairedScores.of([1, 2, 3], [2, 2, 1], "aab").difference
    assert np.array_equal(difference.values, [1, 0, -2])
    assert difference.grouped.sums.tolist() == [-2, 1]
    assert difference.grouped.sizes.tolist() == [1, 2]


@pytest.mark.parametrize("dtype", [np.int64, np.uint8])
def test_numbers_in_an_array_group_as_their_names_do(dtype: type) -> None:
    groups: IntArray = np.random.default_rng(0).integers(0, 90, 200).astype(dtype)
    values = np.random.default_rng(1).normal(size=200)
    numbered, named = (
        ArmScores.of("arm", values, groups),
        ArmScores.of("arm", values, [f"g{group}" for group in groups]),
    )
    assert np.array_equal(numbered.grouped.sums, named.grouped.sums)
    assert np.array_equal(numbered.grouped.sizes, named.grouped.sizes)
    assert sorted(set(numbered.group_numbers.tolist())) == list(range(len(set(groups.tolist()))))
    with pytest.raises(UserError, match="one group says nothing"):
        ArmScores.of("arm", values, np.zeros(200, dtype=dtype))
