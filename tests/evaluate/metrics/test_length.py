"""Lengths in words and in tokens."""

from collections.abc import Callable

from whetstone.data.example import Example
from whetstone.evaluate.metrics.length import LENGTH_TOKENS, LENGTH_WORDS
from whetstone.evaluate.sample import Sample


def test_words(example: Callable[..., Example], answer: Callable[..., Sample]) -> None:
    assert [LENGTH_WORDS.score(example(), answer(text)) for text in ("", " \n", "He", " He\tgoes \u2003home ")] == [
        0,
        0,
        1,
        3,
    ]


def test_tokens_are_those_that_were_generated_or_that_a_server_counted(
    example: Callable[..., Example], answer: Callable[..., Sample]
) -> None:
    assert LENGTH_TOKENS.score(example(), answer("He", token_ids=(5, 6, 7))) == 3
    assert LENGTH_TOKENS.score(example(), answer("He", token_ids=(), counted_tokens=2)) == 2
    assert LENGTH_TOKENS.score(example(), answer("He", token_ids=())) is None
