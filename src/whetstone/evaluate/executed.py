"""What becomes of answers that are code: the tests of their examples run."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from whetstone.cores import usable_cores
from whetstone.data.example import Example
from whetstone.data.tests import code_of, run_tests
from whetstone.sandbox import DEFAULT_LIMITS, Limits, Outcome, Proof, Status, require_sandbox

__all__ = ["TESTS_PASSED", "Executed", "run_answers"]

TESTS_PASSED = "tests_passed"
"""The key of :attr:`whetstone.evaluate.sample.Sample.measured`."""

_Case = tuple[str, str, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Executed:
    """What the tests said of one answer.

    Attributes:
        status: How it ended; None where the example has no tests.
        proof: Where the tests ran (:data:`whetstone.sandbox.Proof`); None where there are none.
        output: The end of what code and tests printed.
    """

    status: Status | None = None
    proof: Proof | None = None
    output: str = ""

    @property
    def measured(self) -> dict[str, float]:
        """What the sample of the answer carries."""
        return {} if self.status is None else {TESTS_PASSED: float(self.status == "passed")}


def run_answers(
    examples: Sequence[Example],
    answers: Sequence[str],
    *,
    limits: Limits = DEFAULT_LIMITS,
    allow_unisolated: bool = False,
    workers: int | None = None,
) -> list[Executed]:
    """Runs the tests of each example on its answer.

    Whatever an answer does is a result of it: code that crashes, takes too long or is no code has failed, and the
    others are run. The same code under the same tests is run once.

    Args:
        examples: One for each answer; the same one may stand several times.
        answers: Whole texts; their code is taken out of them.
        limits: What each run may use.
        allow_unisolated: Run where code cannot be isolated, too.
        workers: Runs at a time; by default one for each core that this process may use, as more would let the clock
            run out on code that only waits for its turn.

    Returns:
        One for each answer, in their order.

    Raises:
        UserError: There are tests, and code cannot be isolated here. Nothing was run then.
    """
    cases = [_case(example, answer) for example, answer in zip(examples, answers, strict=True)]
    distinct = list(dict.fromkeys(case for case in cases if case is not None))
    if not distinct:
        return [Executed() for _ in cases]
    require_sandbox(limits=limits, allow_unisolated=allow_unisolated)

    def outcome(case: _Case) -> Outcome:
        tests, code, references = case
        return run_tests(tests, code, references, limits=limits, allow_unisolated=allow_unisolated)

    with ThreadPoolExecutor(workers or usable_cores()) as pool:
        outcomes = dict(zip(distinct, pool.map(outcome, distinct), strict=True))
    return [Executed() if case is None else _executed(outcomes[case]) for case in cases]


def _case(example: Example, answer: str) -> _Case | None:
    return None if example.tests is None else (example.tests, code_of(answer), example.references)


def _executed(outcome: Outcome) -> Executed:
    return Executed(outcome.status, outcome.proof, outcome.output)
