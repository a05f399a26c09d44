"""Tests that come with an example: Python code that runs without a fault when an answer's code is right.

The code of an answer stands before the tests, or at the line ``# {answer}`` of them, so that what an answer continues
(imports, helpers, the head of a function) can stand before it.
"""

import ast
from typing import Any

from whetstone.data.fields import list_of, optional_text, text_of
from whetstone.data.strict_json import RowError, kind

__all__ = ["TEST_FIELDS", "around_answer", "tests_of"]

_PLACE = "\n# {answer}\n"

TEST_FIELDS = ("tests", "test_list", "test_setup_code", "test", "entry_point")
"""The fields of a row that may hold tests: our own, those of MBPP, those of HumanEval."""


def around_answer(tests: str) -> tuple[str, str]:
    """What stands before the code of an answer, and the tests that come after it."""
    before, place, after = f"\n{tests}".partition(_PLACE)
    return (before.removeprefix("\n"), after) if place else ("", tests)


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
