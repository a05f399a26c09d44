"""BLEU and chrF are sacrebleu's own."""

from collections.abc import Callable

import pytest
import sacrebleu
from hypothesis import given, settings
from hypothesis import strategies as st

from whetstone.data.example import Example
from whetstone.evaluate.metrics.sacre import BLEU, CHRF, CORPUS_BLEU, CORPUS_CHRF
from whetstone.evaluate.sample import Sample

TEXTS = st.lists(
    st.sampled_from(["the", "The", "cat", "cats", "sat", "on", "mat", ",", ".", "3.5", "it's"]), max_size=12
).map(" ".join)
REFERENCES = st.lists(TEXTS, min_size=1, max_size=3)


@settings(max_examples=50)
@given(text=TEXTS, references=REFERENCES)
def test_of_one_answer(
    example: Callable[..., Example], answer: Callable[..., Sample], text: str, references: list[str]
) -> None:
    asked = example(*references)
    bleu, chrf = sacrebleu.sentence_bleu(text, references), sacrebleu.sentence_chrf(text, references)
    assert BLEU.score(asked, answer(text)) == min(bleu.score / 100, 1)
    assert CHRF.score(asked, answer(text)) == min(chrf.score / 100, 1)


@settings(max_examples=50)
@given(rows=st.lists(st.tuples(TEXTS, REFERENCES), min_size=1, max_size=5))
def test_of_a_test_set_with_different_numbers_of_references(
    example: Callable[..., Example], answer: Callable[..., Sample], rows: list[tuple[str, list[str]]]
) -> None:
    pairs = [(example(*references), answer(text)) for text, references in rows]
    texts = [text for text, _ in rows]
    streams = [
        [references[number] if number < len(references) else None for _, references in rows]
        for number in range(max(len(references) for _, references in rows))
    ]
    assert CORPUS_BLEU.score(pairs) == min(sacrebleu.corpus_bleu(texts, streams).score / 100, 1)
    assert CORPUS_CHRF.score(pairs) == min(sacrebleu.corpus_chrf(texts, streams).score / 100, 1)


@pytest.mark.parametrize("one", [CORPUS_BLEU, CORPUS_CHRF])
def test_examples_without_references_are_left_out(
    one: Callable[..., float], example: Callable[..., Example], answer: Callable[..., Sample]
) -> None:
    pair = (example("The cat sat on the mat ."), answer("The cats sat on the mat ."))
    assert one.score([(example(), answer("The"))]) is None  # type: ignore[attr-defined]
    assert one.score([(example(), answer("The")), pair]) == one.score([pair])  # type: ignore[attr-defined]


def test_the_signatures_that_are_documented() -> None:
    from sacrebleu.metrics import BLEU as BLEU_SCORER
    from sacrebleu.metrics import CHRF as CHRF_SCORER

    for scorer, expected in (
        (BLEU_SCORER(), "nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp"),
        (BLEU_SCORER(effective_order=True), "nrefs:1|case:mixed|eff:yes|tok:13a|smooth:exp"),
        (CHRF_SCORER(), "nrefs:1|case:mixed|eff:yes|nc:6|nw:0|space:no"),
    ):
        scorer.corpus_score(["a"], [["a"]])
        assert str(scorer.get_signature()).startswith(expected)
