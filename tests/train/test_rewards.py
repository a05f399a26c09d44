"""Rewards: what earns one, and what must not."""

import pytest

from whetstone.data.example import Example, Message
from whetstone.errors import UserError
from whetstone.sandbox import Limits
from whetstone.train.rewards import scores
from whetstone.tune_section import Reward, Rewards

EXAMPLE = Example("e", (Message("user", "q"),), ("one two",), "q", "g", tests="assert double(2) == 4")
RIGHT = "def double(x):\n    return 2 * x"


def reward(name: Reward, answer: str, example: Example = EXAMPLE, pattern: str | None = None) -> float:
    settings = Rewards(functions=(name,), pattern=pattern)
    return scores(settings, [example], Limits(time_s=10))[name](example, answer)


def test_an_exact_match_is_what_the_metric_calls_one() -> None:
    assert [reward("exact_match", text) for text in (" one  two\n", "One two", "one two three")] == [1, 0, 0]


def test_the_whole_answer_must_have_the_format() -> None:
    texts = ("yes 12", "yes 12 or so", "oh yes 12", "yes")
    assert [reward("format", text, pattern=r"yes \d+") for text in texts] == [1, 0, 0, 0]
    with pytest.raises(UserError, match=r"tune.rewards.pattern: no regular expression \(unterminated"):
        reward("format", "x", pattern="[")


isolated = pytest.mark.usefixtures("isolated")


@isolated
@pytest.mark.parametrize(
    ("answer", "earned"),
    [
        (RIGHT, 1),
        (f"Sure!\n```python\n{RIGHT}\n```\nThat is all.", 1),
        (RIGHT.replace("2", "3"), 0),
        ("import sys\nprint('all tests passed')\nsys.exit(0)", 0),
        ("I cannot do that.", 0),
        ("", 0),
    ],
)
def test_tests_reward_code_that_passes_all_of_them(answer: str, earned: float) -> None:
    assert reward("tests", answer) == earned


@isolated
def test_an_answer_may_continue_what_stands_before_it() -> None:
    head = 'def double(x):\n    """Twice x."""\n'
    example = Example("h", EXAMPLE.messages, ("x",), "q", "g", tests=f"{head}\n# {{answer}}\nassert double(2) == 4")
    assert reward("tests", "    return 2 * x", example) == 1
    assert reward("tests", RIGHT, example) == 1
    assert reward("tests", "pass", example) == 0


def test_an_example_without_tests_is_named() -> None:
    with pytest.raises(UserError, match="example 'bare': has no tests"):
        scores(Rewards(functions=("tests",)), [Example("bare", EXAMPLE.messages, ("x",), "q", "g")])
