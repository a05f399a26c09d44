"""Tests that come with an example: Python code that runs without a fault when an answer's code is right.

The code of an answer stands before the tests, or at the line ``# {answer}`` of them, so that what an answer continues
(imports, helpers, the head of a function) can stand before it.
"""

import ast
import re
from functools import lru_cache
from typing import Any

from whetstone.data.fields import list_of, optional_text, text_of
from whetstone.data.strict_json import RowError, kind
from whetstone.sandbox import DEFAULT_LIMITS, Limits, Outcome, run_python

__all__ = ["TEST_FIELDS", "around_answer", "code_of", "run_tests", "tests_of"]

_PLACE = "\n# {answer}\n"
_FENCED = re.compile(r"^[ \t]*```[^\n`]*\n(.*?)(?:^[ \t]*```|\Z)", re.DOTALL | re.MULTILINE)

TEST_FIELDS = ("tests", "test_list", "test_setup_code", "test", "entry_point")
"""The fields of a row that may hold tests: our own, those of MBPP, those of HumanEval."""


def around_answer(tests: str) -> tuple[str, str]:
    """What stands before the code of an answer, and the tests that come after it."""
    before, place, after = f"\n{tests}".partition(_PLACE)
    return (before.removeprefix("\n"), after) if place else ("", tests)


def code_of(answer: str) -> str:
    """The first fenced block of an answer, or all of it where there is none; a fence may lack its end."""
    fenced = _FENCED.search(answer)
    return fenced.group(1) if fenced else answer


def run_tests(
    tests: str,
    code: str,
    references: tuple[str, ...] = (),
    *,
    limits: Limits = DEFAULT_LIMITS,
    allow_unisolated: bool = False,
) -> Outcome:
    """Runs the tests of an example on the code of an answer.

    Where the code gives an object that tests in another process cannot compare, the references say whose doing that is:
    when one of them passes in the same process only, the tests ask for objects, and the code is tested there, too.

    Args:
        tests: As :func:`tests_of` gives them.
        code: As :func:`code_of` gives it.
        references: Answers that count as right.
        limits: What code and tests may use.
        allow_unisolated: Run where the code cannot be isolated, too.

    Raises:
        UserError: The code cannot be isolated here.
    """
    outcome = _run(tests, code, limits, allow_unisolated)
    if outcome.gave_object and _ask_for_objects(tests, references, limits, allow_unisolated):
        return _run(tests, code, limits, allow_unisolated, apart=False)
    return outcome


def _run(tests: str, code: str, limits: Limits, allow_unisolated: bool, *, apart: bool = True) -> Outcome:
    before, checks = around_answer(tests)
    return run_python(code, checks, before=before, limits=limits, apart=apart, allow_unisolated=allow_unisolated)


@lru_cache(maxsize=4096)
def _ask_for_objects(tests: str, references: tuple[str, ...], limits: Limits, allow_unisolated: bool) -> bool:
    for code in map(code_of, references):
        if _run(tests, code, limits, allow_unisolated).status == "passed":
            return False
        if _run(tests, code, limits, allow_unisolated, apart=False).status == "passed":
            return True
    return False


def tests_of(row: dict[str, Any]) -> str | None:
    """The tests that a row holds; None where it has none.

    ``tests`` is Python code; ``test_list`` (with ``test_setup_code``) holds asserts, as in MBPP (Austin et al. 2021,
    arXiv:2108.07732); ``test`` and ``entry_point`` belong to HumanEval (Chen et al. 2021, arXiv:2107.03374), where the
    prompt is the head of the function. A field ``tests`` that holds no text means something else and is left alone.

    Raises:
        RowError: A field has the wrong type, or the tests are not Python.
    """
    if row.get("test_list") is not None:
        asserts = list_of(row, "test_list")
        for number, one in enumerate(asserts):
            if not isinstance(one, str):
                raise RowError(f"test_list[{number}]: expected text, found {kind(one)}; give a text")
        return _checked("test_list", "\n".join(filter(None, (optional_text(row, "test_setup_code"), *asserts))))
    if row.get("test") is not None and row.get("entry_point") is not None:
        head = row.get("prompt")
        place = f"{head}{_PLACE}" if isinstance(head, str) else ""
        return _checked("test", f"{place}{text_of(row, 'test')}\ncheck({text_of(row, 'entry_point')})\n")
    return _checked("tests", row["tests"]) if isinstance(row.get("tests"), str) else None


def _checked(key: str, tests: str) -> str:
    after = around_answer(tests)[1]
    if not after.strip():
        raise RowError(f"{key}: expected tests, found none; leave the row out")
    try:
        ast.parse(after)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise RowError(f"{key}: expected Python code, found a fault ({error}); mend it") from None
    return tests
