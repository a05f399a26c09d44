"""What an example asks of an answer's form."""

from collections.abc import Callable

import pytest

from whetstone.data.example import Example
from whetstone.data.requirements import Requirements
from whetstone.evaluate.metrics.form import JSON_VALID, MEETS_REQUIREMENTS, PATTERN
from whetstone.evaluate.sample import Sample

SCHEMA = {"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}}}


@pytest.mark.parametrize(
    ("requirements", "text", "json", "whole", "pattern"),
    [
        (None, "{}", None, None, None),
        (Requirements(max_words=2), "one two", None, 1, None),
        (Requirements(max_words=2), "one two three", None, 0, None),
        (Requirements(pattern="^[a-z]+$"), "one", None, 1, 1),
        (Requirements(pattern="^[a-z]+$", max_words=1), "one two", None, 0, 0),
        (Requirements(pattern="two", max_words=1), "one two", None, 0, 1),
        (Requirements(json_schema=SCHEMA), '{"name": "Ada"}', 1, 1, None),
        (Requirements(json_schema=SCHEMA), '{"name": 3}', 0, 0, None),
        (Requirements(json_schema=SCHEMA), 'Sure: {"name": "Ada"}', 0, 0, None),
        (Requirements(json_schema=SCHEMA), '{"name": "Ada"', 0, 0, None),
        (Requirements(json_schema=SCHEMA, max_chars=5), '{"name": "Ada"}', 1, 0, None),
        (Requirements(json_schema={}), "3", 1, 1, None),
    ],
)
def test_form(
    requirements: Requirements | None,
    text: str,
    json: float | None,
    whole: float | None,
    pattern: float | None,
    example: Callable[..., Example],
    answer: Callable[..., Sample],
) -> None:
    asked, said = example(requirements=requirements), answer(text)
    assert [one.score(asked, said) for one in (JSON_VALID, MEETS_REQUIREMENTS, PATTERN)] == [json, whole, pattern]
