"""What an answer is rewarded for when the model learns from its own answers."""

import re
from collections.abc import Callable, Sequence

from whetstone.data.answer import matches
from whetstone.data.example import Example
from whetstone.data.tests import code_of, run_tests
from whetstone.errors import UserError
from whetstone.sandbox import DEFAULT_LIMITS, Limits, require_sandbox
from whetstone.tune_section import Reward, Rewards

__all__ = ["Score", "scores"]

Score = Callable[[Example, str], float]
"""The reward of one answer, from 0 to 1; called from several threads at once."""


def scores(rewards: Rewards, examples: Sequence[Example], limits: Limits = DEFAULT_LIMITS) -> dict[Reward, Score]:
    """The rewards that an experiment names.

    Args:
        rewards: Which.
        examples: All that will be answered.
        limits: What the code of an answer may use.

    Raises:
        UserError: An example has no tests, the pattern is no regular expression, or code cannot be run safely here.
    """
    return {name: _score(name, rewards, examples, limits) for name in rewards.functions}


def _score(name: Reward, rewards: Rewards, examples: Sequence[Example], limits: Limits) -> Score:
    match name:
        case "exact_match":
            return lambda example, answer: float(matches(answer, example.references))
        case "format":
            pattern = _pattern(rewards)
            return lambda _, answer: float(pattern.fullmatch(answer) is not None)
        case "tests":
            for example in examples:
                if example.tests is None:
                    raise UserError(
                        f"example '{example.id}': has no tests for the reward 'tests'; give rows with 'tests', or "
                        "with the fields of MBPP or HumanEval"
                    )
            require_sandbox(limits=limits)
            return lambda example, answer: float(_passes(example, answer, limits))


def _pattern(rewards: Rewards) -> re.Pattern[str]:
    try:
        return re.compile(rewards.pattern or "")
    except re.error as error:
        raise UserError(f"tune.rewards.pattern: no regular expression ({error}); mend it") from None


def _passes(example: Example, answer: str, limits: Limits) -> bool:
    """Whether all tests pass: a share of them would reward an answer that knows one case by heart."""
    return run_tests(example.tests or "", code_of(answer), example.references, limits=limits).status == "passed"
