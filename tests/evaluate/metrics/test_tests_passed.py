"""Tests that were run, and the chance that one of k answers passes."""

from collections.abc import Callable
from itertools import combinations
from math import comb

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whetstone.data.example import Example
from whetstone.evaluate.metrics.tests_passed import PASS_AT_1, PASS_AT_5, PASS_AT_10, PASSES_TESTS, pass_at
from whetstone.evaluate.sample import Sample


def test_by_trying_every_choice() -> None:
    passed = (1, 0, 0, 1, 0, 0)
    for k in range(1, 7):
        choices = [any(choice) for choice in combinations(passed, k)]
        assert pass_at(k, 6, 2) == pytest.approx(sum(choices) / len(choices))


@given(st.data())
def test_it_is_the_estimator_of_the_paper(data: st.DataObject) -> None:
    answers = data.draw(st.integers(1, 300))
    passed, k = data.draw(st.integers(0, answers)), data.draw(st.integers(1, answers))
    assert pass_at(k, answers, passed) == pytest.approx(1 - comb(answers - passed, k) / comb(answers, k), abs=1e-9)


@pytest.fixture
def answers(answer: Callable[..., Sample]) -> Callable[[str], list[Sample]]:
    """One answer for each letter: passed, failed, or not run."""

    def make(letters: str) -> list[Sample]:
        measured = {"p": {"tests_passed": 1.0}, "f": {"tests_passed": 0.0}, "-": {}}
        return [answer(repeat=number, measured=measured[letter]) for number, letter in enumerate(letters)]

    return make


@pytest.mark.parametrize(
    ("letters", "at_1", "at_5", "at_10"),
    [
        ("p", 1, None, None),
        ("f", 0, None, None),
        ("-", None, None, None),
        ("pfff", 1 / 4, None, None),
        ("pffff", 1 / 5, 1, None),
        ("pfffff", 1 / 6, 5 / 6, None),
        ("pffff-----", 1 / 5, 1, None),
        ("ppffffffff", 1 / 5, 1 - 56 / 252, 1),
        ("ffffffffff", 0, 0, 0),
    ],
)
def test_of_several_answers(
    letters: str,
    at_1: float | None,
    at_5: float | None,
    at_10: float | None,
    example: Callable[..., Example],
    answers: Callable[[str], list[Sample]],
) -> None:
    found = [one.of(example(), answers(letters)) for one in (PASS_AT_1, PASS_AT_5, PASS_AT_10)]
    assert found == [None if one is None else pytest.approx(one) for one in (at_1, at_5, at_10)]


def test_of_one_answer(example: Callable[..., Example], answers: Callable[[str], list[Sample]]) -> None:
    passed, failed, not_run = answers("pf-")
    for one in (PASSES_TESTS, PASS_AT_1):
        assert [one.score(example(), sample) for sample in (passed, failed, not_run)] == [1, 0, None]
    assert PASS_AT_5.score(example(), passed) is None
