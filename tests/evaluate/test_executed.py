"""Answers that are code, run: what each became, whatever the others did."""

import json
from collections import Counter
from pathlib import Path

import pytest

from whetstone import sandbox
from whetstone.data import tests as data_tests
from whetstone.data.example import Example, Message
from whetstone.errors import UserError
from whetstone.evaluate.executed import Executed, run_answers
from whetstone.evaluate.sample import Sample
from whetstone.sandbox import Limits, Outcome, run_python

isolated = pytest.mark.usefixtures("isolated")
LIMITS = Limits(time_s=1, memory_bytes=128 << 20)


def example(tests: str | None, reference: str = "x") -> Example:
    return Example("e", (Message("user", "q"),), (reference,), "q", "g", tests=tests)


DOUBLE = example("assert double(2) == 4\nassert double(0) == 0")
RIGHT = "def double(x):\n    return 2 * x"
ANSWERS = [
    (RIGHT, "passed"),
    (f"Of course.\n```python\n{RIGHT}\n```\n", "passed"),
    ("def double(x):\n    return x + 2", "failed"),
    ("I cannot write code.", "failed"),
    ("", "failed"),
    ("\0\ud800", "failed"),
    ("def double(x):\n    while True: pass", "timeout"),
    ("def double(x):\n    return [0] * (1 << 40)", "memory"),
    ("import os\nos.abort()", "failed"),
    ("class Same:\n    __eq__ = lambda *_: True\ndef double(x): return Same()", "failed"),
]


@isolated
def test_every_answer_has_its_own_result() -> None:
    answers = [answer for answer, _ in ANSWERS]
    found = run_answers([DOUBLE] * len(answers), answers, limits=LIMITS, workers=4)
    assert [one.status for one in found] == [status for _, status in ANSWERS]
    assert [one.measured for one in found] == [{"tests_passed": float(status == "passed")} for _, status in ANSWERS]
    assert {one.proof for one in found} == {"apart"}
    assert found[2].output.endswith("AssertionError\n")
    assert run_answers([DOUBLE] * 4, answers[:4], limits=LIMITS, workers=1) == found[:4]


def test_answers_without_tests_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "_NAMESPACES_ON", "nowhere")
    assert run_answers([example(None)] * 2, ["a", "b"]) == [Executed(), Executed()]
    assert Executed().measured == {}
    assert run_answers([], []) == []


def test_the_same_code_under_the_same_tests_is_run_once(monkeypatch: pytest.MonkeyPatch) -> None:
    runs: Counter[tuple[str, str]] = Counter()

    def counted(code: str, checks: str = "", **_: object) -> Outcome:
        runs[code, checks] += 1
        return Outcome("failed" if code == "x" else "passed", f"ran {code}", "apart")

    monkeypatch.setattr(data_tests, "run_python", counted)
    monkeypatch.setattr(sandbox, "run_python", counted)
    other = example("assert double(1) == 2")
    examples = [DOUBLE, DOUBLE, other, DOUBLE, example(None)]
    found = run_answers(examples, [RIGHT, f"```\n{RIGHT}\n```", RIGHT, "x", RIGHT])
    assert [one.status for one in found] == ["passed", "passed", "passed", "failed", None]
    # The code of a fenced block ends with its line, so the first two differ in that.
    assert set(runs.values()) == {1} and len(runs) == 5  # and the empty program, to see that anything runs


def test_nothing_is_run_where_code_cannot_be_isolated(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sandbox, "_NAMESPACES_ON", "nowhere")
    touched = tmp_path / "touched"
    answer = f"open({str(touched)!r}, 'w')\n{RIGHT}"
    with pytest.raises(UserError, match="cannot be run safely here"):
        run_answers([DOUBLE], [answer])
    assert not touched.exists()
    (found,) = run_answers([DOUBLE], [answer], allow_unisolated=True)
    assert (found.status, found.proof) == ("passed", "apart")
    assert touched.exists()


def test_lengths_must_agree() -> None:
    with pytest.raises(ValueError, match="shorter"):
        run_answers([DOUBLE], [])


@isolated
def test_what_was_measured_survives_the_row() -> None:
    (found,) = run_answers([DOUBLE], [RIGHT], limits=LIMITS)
    sample = Sample("e", "tuned", "j", "h", 3, RIGHT, (1,), "stop", measured=found.measured)
    assert Sample.from_row(json.loads(json.dumps(sample.as_row()))).measured == {"tests_passed": 1.0}


@isolated
def test_order_in_sets_does_not_depend_on_the_run() -> None:
    code = "print(list({'a', 'b', 'c', 'd', 'e', 'f'}), hash('x'))"
    assert len({run_python(code).output for _ in range(3)}) == 1
