"""Variety within an answer and between answers."""

from collections.abc import Callable

import pytest
import sacrebleu

from whetstone.data.example import Example
from whetstone.evaluate.metrics.diversity import DISTINCT_1, DISTINCT_2, SELF_BLEU
from whetstone.evaluate.sample import Sample


@pytest.mark.parametrize(
    ("text", "words", "pairs"),
    [
        ("the cat and the dog", 4 / 5, 1),
        ("no no no no", 1 / 4, 1 / 3),
        ("a b a b a", 2 / 5, 2 / 4),
        ("word", 1, None),
        (" \n", None, None),
    ],
)
def test_distinct(
    text: str,
    words: float | None,
    pairs: float | None,
    example: Callable[..., Example],
    answer: Callable[..., Sample],
) -> None:
    assert DISTINCT_1.score(example(), answer(text)) == words
    assert DISTINCT_2.score(example(), answer(text)) == pairs


def test_self_bleu_is_the_mean_over_pairs(example: Callable[..., Example], answer: Callable[..., Sample]) -> None:
    texts = ("He goes home every day .", "He walks home every day .", "She never does .")
    pairs = [(one, other) for one in texts for other in texts if one != other]
    expected = sum(sacrebleu.sentence_bleu(one, [other]).score for one, other in pairs) / 600
    answers = [answer(text) for text in texts]
    assert SELF_BLEU.of(example(), answers) == pytest.approx(expected)
    assert SELF_BLEU.of(example(), answers[::-1]) == pytest.approx(expected)


def test_self_bleu_of_equal_answers(example: Callable[..., Example], answer: Callable[..., Sample]) -> None:
    assert SELF_BLEU.of(example(), [answer("He goes ."), answer("He goes .")]) == 1
    assert SELF_BLEU.of(example(), [answer(), answer()]) == 1


def test_one_answer_has_no_self_bleu(example: Callable[..., Example], answer: Callable[..., Sample]) -> None:
    assert SELF_BLEU.of(example(), [answer("He goes .")]) is None
    assert SELF_BLEU.score(example(), answer("He goes .")) is None
