"""Tests of examples: the code they run on, and where they run."""

import pytest

from whetstone.data.tests import code_of, run_tests
from whetstone.sandbox import Limits

isolated = pytest.mark.usefixtures("isolated")
LIMITS = Limits(time_s=10)
COUNTER = """
class Tally:
    def __init__(self):
        self.items = []
    def append(self, item):
        self.items.append(item)
        return self
    def count(self, item):
        return self.items.count(item)
"""
TALLY_TESTS = "assert Tally().append(3).append(3).count(3) == 2\nassert Tally().append(3).count(4) == 0"
HEAD = '''def halve(x):
    return x / 2

def quarter(x):
    """A quarter of x."""
'''


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        ("x = 1", "x = 1"),
        ("Here it is:\n```python\nx = 1\n```\nand\n```\ny = 2\n```", "x = 1\n"),
        ("```\nx = '``'\n```", "x = '``'\n"),
        ("```py\nx = 1", "x = 1"),
        ("```python\n```", ""),
    ],
)
def test_code_is_the_first_fenced_block_or_all(answer: str, code: str) -> None:
    assert code_of(answer) == code


@isolated
def test_tests_that_ask_for_objects_run_beside_them_where_a_right_answer_gives_objects() -> None:
    outcome = run_tests(TALLY_TESTS, COUNTER, (f"```python\n{COUNTER}```",), limits=LIMITS)
    assert (outcome.status, outcome.proof) == ("passed", "in-process")
    wrong = COUNTER.replace("self.items.append(item)", "self.items.extend([item, item])")
    assert run_tests(TALLY_TESTS, wrong, (COUNTER,), limits=LIMITS).status == "failed"
    assert run_tests(TALLY_TESTS, COUNTER, limits=LIMITS).status == "failed"


@isolated
def test_an_object_where_a_right_answer_gives_a_value_fails() -> None:
    forged = "class Same:\n    def __eq__(self, other):\n        return True\ndef f(x):\n    return Same()"
    outcome = run_tests("assert f(1) == 2", forged, ("def f(x): return x + 1",), limits=LIMITS)
    assert (outcome.status, outcome.proof, outcome.gave_object) == ("failed", "apart", True)


@isolated
def test_helpers_before_the_code_belong_to_the_tests() -> None:
    tests = f"{HEAD}\n# {{answer}}\nassert halve(halve(8)) == quarter(8)\nassert quarter(4) == 1"
    for code in ("    return halve(halve(x))", f"{HEAD}    return x / 4"):
        outcome = run_tests(tests, code, limits=LIMITS)
        assert (outcome.status, outcome.proof) == ("passed", "apart"), outcome.output
    assert run_tests(tests, "    return x", limits=LIMITS).status == "failed"
    forged = "    return 1\nclass Any:\n    __eq__ = lambda *_: True\ndef halve(x):\n    return Any()"
    assert run_tests(tests, forged, limits=LIMITS).status == "failed"
