"""Examples and answers of few words, as fixtures, because test modules cannot import from each other."""

from collections.abc import Callable
from typing import Any

import pytest

from whetstone.data.example import Example, Message
from whetstone.evaluate.sample import Sample


def _example(*references: str, source: str = "", **fields: Any) -> Example:
    return Example("e", (Message("user", f"Do this: {source}"),), references, source, "g", **fields)


def _answer(text: str = "", **fields: Any) -> Sample:
    known = {"prompt_hash": "h", "prompt_tokens": 3, "token_ids": (1, 2), "finish_reason": "stop"}
    return Sample(example="e", arm="tuned", judgement="j", text=text, **{**known, **fields})


@pytest.fixture(scope="session")
def example() -> Callable[..., Example]:
    """Makes an example of its references and, by name, its other fields."""
    return _example


@pytest.fixture(scope="session")
def answer() -> Callable[..., Sample]:
    """Makes an answer of its text and, by name, its other fields."""
    return _answer
