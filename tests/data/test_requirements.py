"""Requirements: which answers meet them, and which requirements are none."""

from typing import Any

import pytest

from whetstone.data.requirements import Requirements

SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"], "additionalProperties": False}


@pytest.mark.parametrize(
    ("asked", "meets", "fails"),
    [
        ({"pattern": "(?i)yes"}, "Oh yes", "no"),
        ({"forbidden": "sorry"}, "fine", "I am sorry"),
        ({"json_schema": SCHEMA}, ' {"n": 3} ', '```json\n{"n": 3}\n```'),
        ({"json_schema": SCHEMA}, '{"n": 3}', '{"n": "3"}'),
        ({"json_schema": SCHEMA}, '{"n": 3}', "[" * 100_000),
        ({"min_words": 2}, "two words", "one"),
        ({"max_words": 2}, "two words", "three of them"),
        ({"list_items": 2}, "- a\n- b", "- a\nb"),
        ({"list_items": 2}, "1. a\n2) b\n", "1.a\n2. b"),
        ({"list_items": 0}, "no list", "- one"),
        ({"max_chars": 3}, " abc ", "abcd"),
    ],
)
def test_answers(asked: dict[str, Any], meets: str, fails: str) -> None:
    requirements = Requirements(**asked)
    assert requirements.problem() is None
    assert requirements.unmet(meets) == []
    assert requirements.unmet(fails) == list(asked)


@pytest.mark.parametrize(
    ("asked", "problem"),
    [
        ({}, "asks nothing"),
        ({"pattern": "("}, "pattern: no regular expression"),
        ({"forbidden": "[z-a]"}, "forbidden: no regular expression"),
        ({"json_schema": {"type": "objekt"}}, "json_schema: not a JSON schema"),
        ({"json_schema": {"$ref": "#/$defs/none"}}, "json_schema: not a JSON schema"),
        ({"json_schema": {"$ref": "http://127.0.0.1:9/x.json"}}, "json_schema: not a JSON schema"),
    ],
)
def test_requirements_that_are_none(asked: dict[str, Any], problem: str) -> None:
    assert str(Requirements(**asked).problem()).startswith(problem)
