"""What an answer must be, and how it is asked for again."""

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whetstone.data.example import Message
from whetstone.engine.api import Sampling
from whetstone.serve.question import Question
from whetstone.serve.validation import check, retried
from whetstone.serve_section import Validate

SCHEMA = {
    "type": "object",
    "properties": {"word": {"type": "string", "pattern": "^(a+)+$"}, "count": {"type": "integer", "maximum": 9}},
    "required": ["word"],
    "additionalProperties": False,
}


def fault(text: str, asked: str = "a question", **validation: Any) -> str | None:
    return check(Validate(**validation), asked, text)


def test_nothing_is_asked_by_default() -> None:
    assert fault("") is None


def test_too_long() -> None:
    assert fault("abc", max_characters=3) is None
    assert fault("abcd", max_characters=3) == "it has 4 characters, more than 3"


@pytest.mark.parametrize(("text", "repeats"), [("He  GO\n", True), ("he go", True), ("He goes", False), ("", False)])
def test_repeating_what_was_asked(text: str, repeats: bool) -> None:
    assert (fault(text, "He go", not_prompt=True) == "it repeats what was asked") is repeats


@pytest.mark.parametrize(("text", "matches"), [("yes", True), ("no", True), ("yes ", False), ("oh yes", False)])
def test_the_whole_answer_matches_the_pattern(text: str, matches: bool) -> None:
    assert (fault(text, regex="yes|no") is None) is matches


def test_a_pattern_that_never_ends_is_given_up() -> None:
    begun = time.monotonic()
    assert "could not be checked" in (fault("a" * 60 + "!", regex=r"(a|a|aa|\w)+?(b|c)+$") or "")
    assert time.monotonic() - begun < 5


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"word": "aa"}', None),
        (' {"word": "aa", "count": 3}\n', None),
        ('{"word": "aa", "count": 10}', "it is not JSON of the schema (at properties/count/maximum: maximum)"),
        ('{"word": "ab"}', "it is not JSON of the schema (at properties/word/pattern: pattern)"),
        ('{"count": 1}', "it is not JSON of the schema (at required: required)"),
        ('{"word": "a", "secret": 1}', "it is not JSON of the schema (at additionalProperties: additionalProperties)"),
        ("word", "it is not JSON (Expecting value, character 1)"),
        ('```json\n{"word": "a"}\n```', "it is not JSON (Expecting value, character 1)"),
        ('{"word": "a"} and more', "it is not JSON (Extra data, character 15)"),
        ('{"word": "a", "word": "b"}', "it is not strict JSON (an object has a key twice)"),
        ('{"word": "a", "count": NaN}', "it is not strict JSON (NaN is no number of JSON)"),
        ('{"word": "a", "count": -Infinity}', "it is not strict JSON (-Infinity is no number of JSON)"),
        (r'{"word": "\ud800"}', "it is not strict JSON (half of a surrogate pair)"),
        ("[" * 100_000, "it is not strict JSON (nested too deep)"),
        ("9" * 10_000, "it is not strict JSON"),
        ("", "it is not JSON"),
    ],
)
def test_json_of_a_schema(text: str, said: str | None) -> None:
    found = fault(text, json_schema=json.dumps(SCHEMA))
    assert found == said if said is None or said.endswith(")") else (found or "").startswith(said)


def test_a_pattern_of_the_schema_that_never_ends_is_given_up() -> None:
    schema = json.dumps({"items": {"type": "string", "pattern": r"^(a|a|aa|\w)+?(b|c)+$"}})
    begun = time.monotonic()
    assert "could not be checked" in (fault(json.dumps(["a" * 60 + "!"] * 1000), json_schema=schema) or "")
    assert time.monotonic() - begun < 5
    assert fault('["ab", 5]', json_schema='{"items": {"pattern": "b"}}') is None


@pytest.mark.parametrize("schema", [{"$ref": "http://localhost/none"}, {"$ref": "#"}, {"$ref": "#/$defs/none"}])
def test_a_schema_that_leads_nowhere(schema: dict[str, str]) -> None:
    assert "could not be checked" in (fault("1", json_schema=json.dumps(schema)) or "")


@given(st.text(min_size=8, max_size=20, alphabet="0123456789xyz"))
def test_faults_do_not_repeat_the_answer(text: str) -> None:
    for said in (
        fault(json.dumps({text: text}), json_schema=json.dumps(SCHEMA)),
        fault(json.dumps({"word": text}), json_schema=json.dumps(SCHEMA)),
        fault(text, regex="a"),
    ):
        assert said is not None and text not in said


def test_asking_again() -> None:
    validation = Validate(retry_temperature=0.5)
    greedy = Question("demo", (Message("user", "Hello"),), 20, Sampling(repetition_penalty=1.3), seed=7)
    again = [retried(greedy, attempt, validation) for attempt in (1, 2)]
    assert [one.sampling for one in again] == [Sampling(temperature=0.5, repetition_penalty=1.3)] * 2
    assert len({greedy.seed, *(one.seed for one in again)}) == 3
    assert again[0] == retried(greedy, 1, validation)
    drawn = Question("demo", "Hello", 20, Sampling(temperature=1.5, top_p=0.9), seed=2**32 - 1)
    assert retried(drawn, 1, validation).sampling == drawn.sampling


@given(st.integers(0, 2**32 - 1), st.integers(1, 16))
def test_no_two_choices_meet_a_seed_twice(seed: int, choices: int) -> None:
    questions = [Question("demo", "Hello", 20, Sampling(), (seed + choice) % 2**32) for choice in range(choices)]
    seeds = {retried(one, attempt, Validate()).seed for one in questions for attempt in range(1, 11)}
    assert len(seeds | {one.seed for one in questions}) == choices * 11
    assert all(0 <= one < 2**32 for one in seeds)
