"""Secrets and long quoted texts are masked wherever they stand, and the rest is kept."""

import json
import string
import traceback
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whetstone.serve.observe.redaction import MASK, redact, redacted_traceback

TOKENS = st.text(string.ascii_letters + string.digits + "-._~+/", min_size=12)
"""What RFC 6750, section 2.1, allows a bearer token to be."""
KEYS = st.text(string.ascii_letters + string.digits + "-_", min_size=12)
HARD = "'\"`\\ ab:,=\n"
"""What quoting and matching are made of."""
AROUND = st.text(max_size=200) | st.text(HARD, max_size=200)
LONG = st.text(min_size=81, max_size=300) | st.text(HARD, min_size=81, max_size=300)


@given(AROUND, TOKENS, AROUND)
def test_bearer_tokens(before: str, token: str, after: str) -> None:
    for said in (
        f"Authorization: Bearer {token}",
        f"authorization=bearer  {token}",
        f"{ {'Authorization': f'Bearer {token}'} }",
        json.dumps({"authorization": f"Bearer {token}"}),
        f"{[(b'host', b'x'), (b'authorization', f'Bearer {token}'.encode())]}",
        f"got 'Bearer {token}' there",
        f"(bearer {token})",
    ):
        assert token in before + after or token not in redact(f"{before} {said}\n{after}"), said


@given(AROUND, st.sampled_from(("sk-", "whet-", "whet_")), KEYS, AROUND)
def test_keys(before: str, kind: str, key: str, after: str) -> None:
    for said in (f"{kind}{key}", f"key={kind}{key}&x", f"'{kind}{key}'", f"_{kind}{key}", f"({kind}{key})"):
        assert key in before + after or key not in redact(f"{before} {said} {after}"), said


@given(AROUND, LONG, AROUND)
def test_no_more_than_eighty_characters_of_what_was_said(before: str, text: str, after: str) -> None:
    for quoted in (
        repr(text),
        json.dumps(text),
        json.dumps(text, ensure_ascii=False),
        repr(text.encode(errors="replace")),
    ):
        inside = quoted.strip("b")[1:-1]
        shown = redact(f"{before} {quoted} {after}")
        left = [inside[at : at + 81] for at in range(len(inside) - 80) if inside[at : at + 81] in shown]
        # What was unquoted around it may say the same.
        assert all(one in before or one in after for one in left), quoted


@given(LONG, st.text("'\"`", max_size=3))
def test_a_quoted_text_that_was_cut_is_one(text: str, quotes: str) -> None:
    inside = repr(text)[1:-1]
    assert inside[:81] not in redact(f"{quotes} got {repr(text)[:-1]}")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Authorization: Basic dXNlcjpwYXNz", "Authorization: ***"),
        ("{'x-api-key': 'abc', 'host': 'here'}", "{'x-api-key': ***, 'host': 'here'}"),
        ("(b'cookie', b'a=b; c=d'), (b'host', b'x')", "(b'cookie', ***), (b'host', b'x')"),
        ("key sk-abcdefgh1234, next", "key sk-***, next"),
        ("ask-for-something-else and whet serve", "ask-for-something-else and whet serve"),
        ("'demo' isn't a run under runs (there: a, b)", "'demo' isn't a run under runs (there: a, b)"),
        (
            "don't mask what is between two of people's apostrophes, however long the sentence that they're in may be",
            "don't mask what is between two of people's apostrophes, however long the sentence that they're in may be",
        ),
        (f"bad 'it's {'long ' * 30}' there", f"bad '{MASK}' there"),
        (
            "Input should be a string [type=string_type, input_value={'said': 'hello'}, input_type=dict]",
            "Input should be a string [type=string_type, input_value=***, input_type=dict]",
        ),
        ("", ""),
    ],
)
def test_what_is_masked_and_what_is_not(text: str, shown: str) -> None:
    assert redact(text) == shown


def test_a_long_text_keeps_its_end() -> None:
    shown = redact("x" * 30_000 + " the error")
    assert shown.startswith(MASK) and shown.endswith("x the error") and len(shown) < 17_000
    assert len(redact("x " * 10**6)) < 17_000


def _caught(raising: Callable[[], None]) -> BaseException:
    try:
        raising()
    except BaseException as error:
        return error
    raise AssertionError


def _plain() -> None:
    raise ValueError("it is 'wrong'")


def _caused() -> None:
    try:
        _plain()
    except ValueError as error:
        error.add_note("a note")
        raise KeyError("another") from error


def _during() -> None:
    try:
        _caused()
    except KeyError:
        int("no number")


def _hidden() -> None:
    try:
        _plain()
    except ValueError:
        raise KeyError("alone") from None


@pytest.mark.parametrize("raising", [_plain, _caused, _during, _hidden])
def test_a_traceback_is_as_python_prints_it(raising: Callable[[], None]) -> None:
    error = _caught(raising)
    assert redacted_traceback(error) == "".join(traceback.format_exception(error)).rstrip("\n")


def test_what_exceptions_say_is_masked() -> None:
    said = "what somebody asked " * 10

    def fail() -> None:
        try:
            raise ExceptionGroup(f"all of {said!r}", [ValueError(f"one: {said!r}"), KeyError("sk-abcdefghijkl")])
        except ExceptionGroup as error:
            raise RuntimeError(f"key: {'whet-abcdefghijkl'!r}") from error

    shown = redacted_traceback(_caught(fail))
    assert said[:81] not in shown and "abcdefghijkl" not in shown
    for line in (
        "ExceptionGroup: all of '***' (2 sub-exceptions)",
        "  | ValueError: one: '***'",
        "  | KeyError: 'sk-***'",
        "RuntimeError: key: 'whet-***'",
    ):
        assert line in shown.splitlines()
    assert """    raise RuntimeError(f"key: {'whet-***'!r}") from error""" in shown


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "unit", ["'", ' "', "'a ", "\\'", "authorization' ", "input_value=", "bearer ", "b'", "a'b", "`"]
)
def test_no_text_takes_quadratic_time(unit: str) -> None:
    redact((unit * 65_000)[:65_000])
