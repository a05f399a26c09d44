"""Does the code of an answer pass the example's tests, in one try or in several?"""

import math
from collections.abc import Callable, Sequence

from whetstone.data.example import Example
from whetstone.evaluate.metrics.metric import Metric
from whetstone.evaluate.sample import Sample

__all__ = ["PASSES_TESTS", "PASS_AT_1", "PASS_AT_5", "PASS_AT_10", "pass_at"]


def pass_at(k: int, answers: int, passed: int) -> float:
    """The chance that at least one of ``k`` answers passes, drawn without return from those that were run.

    It is ``1 - C(answers - passed, k) / C(answers, k)``, as a product so that no binomial coefficient overflows:
    unbiased for every ``k`` up to ``answers`` (Chen et al. 2021, equation 1).

    Args:
        k: How many are drawn.
        answers: How many were run, ``k`` at least.
        passed: How many of them passed.
    """
    if answers - passed < k:
        return 1.0
    return 1.0 - math.prod(1.0 - k / among for among in range(answers - passed + 1, answers + 1))


def _passes_tests(_: Example, sample: Sample) -> float | None:
    return sample.measured.get("tests_passed")


def _over_repeats(k: int) -> Callable[[Example, Sequence[Sample]], float | None]:
    def score(_: Example, samples: Sequence[Sample]) -> float | None:
        found = [sample.measured["tests_passed"] for sample in samples if "tests_passed" in sample.measured]
        return None if len(found) < k else pass_at(k, len(found), round(sum(found)))

    return score


def _metric(k: int) -> Metric:
    over_repeats = _over_repeats(k)
    tries = "one answer passes" if k == 1 else f"at least one of {k} answers passes"
    return Metric(
        name=f"pass_at_{k}",
        title=f"Pass@{k}",
        unit="share",
        direction="higher",
        definition=f"The chance that {tries} the tests, estimated without bias from all answers to the example.",
        score=lambda example, sample: over_repeats(example, [sample]),
        over_repeats=over_repeats,
        source="Chen et al., 'Evaluating Large Language Models Trained on Code', 2021, equation 1.",
    )


PASSES_TESTS = Metric(
    name="passes_tests",
    title="Passes tests",
    unit="share",
    direction="higher",
    definition="The answer's code ran through the example's tests without a fault.",
    score=_passes_tests,
)
PASS_AT_1 = _metric(1)
PASS_AT_5 = _metric(5)
PASS_AT_10 = _metric(10)
