"""The score of several answers to one example."""

from collections.abc import Callable

from whetstone.data.example import Example
from whetstone.evaluate.metrics.catalogue import metric
from whetstone.evaluate.sample import Sample


def test_it_is_the_mean_over_the_answers(example: Callable[..., Example], answer: Callable[..., Sample]) -> None:
    answers = [answer(text) for text in ("yes", "no", "no", "no")]
    assert metric("exact_match").of(example("yes"), answers) == 0.25
    assert metric("exact_match").of(example(), answers) is None


def test_answers_that_it_does_not_apply_to_are_left_out(
    example: Callable[..., Example], answer: Callable[..., Sample]
) -> None:
    answers = [answer(measured={"tests_passed": 1.0}), answer(), answer(measured={"tests_passed": 0.0})]
    assert metric("passes_tests").of(example(), answers) == 0.5
