"""Best of n by a metric."""

from collections.abc import Sequence

import pytest

from whetstone.data.example import Example, Message
from whetstone.engine.api import Completion, FinishReason, Request, Timing, Usage
from whetstone.engine.several import best_of, best_of_n
from whetstone.errors import UserError
from whetstone.evaluate.metrics.catalogue import METRICS
from whetstone.evaluate.verifier import verifier

EXAMPLE = Example("e", (Message("user", "he go"),), ("he goes",), "he go", "g")
BY_NAME = {metric.name: metric for metric in METRICS}


def said(text: str, reason: FinishReason = "stop") -> Completion:
    return Completion((5, 6), text, reason, Timing(0.0, (0.1, 0.2), 0.2), Usage(4, 2))


class Says:
    """Answers the first request with the first text, and so on."""

    def __init__(self, *texts: str) -> None:
        self._texts = texts

    def generate(self, requests: Sequence[Request]) -> list[Completion]:
        return [said(text) for text, _ in zip(self._texts, requests, strict=True)]


def test_the_answer_with_the_best_score_is_given() -> None:
    engine = Says("he go", " he goes\n", "she goes")
    best = best_of_n(engine, Request((4,), 8), 3, verifier(BY_NAME["exact_match"], EXAMPLE))  # type: ignore[arg-type]
    assert best.text == " he goes\n"


def test_of_a_metric_that_should_be_low_the_lowest_is_best() -> None:
    best = best_of([said(""), said("he goes")], verifier(BY_NAME["empty"], EXAMPLE))
    assert best.text == "he goes"


def test_a_failed_answer_comes_last() -> None:
    score = verifier(BY_NAME["exact_match"], EXAMPLE)
    assert score(said("he goes", "error")) < score(said("no"))


def test_a_metric_that_only_describes_is_refused() -> None:
    neutral = next(metric for metric in METRICS if metric.direction == "neutral")
    with pytest.raises(UserError, match="no better direction"):
        verifier(neutral, EXAMPLE)
