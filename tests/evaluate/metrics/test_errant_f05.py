"""F0.5 over edits that a stand-in finds word by word; ERRANT itself is asked where it is installed."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import zip_longest

import pytest

from whetstone.data.example import Example
from whetstone.errors import UserError
from whetstone.evaluate.metrics import errant_f05
from whetstone.evaluate.metrics.errant_f05 import ERRANT_F05, errant_is_installed
from whetstone.evaluate.sample import Sample

SOURCE = "She have two cat and a dogs ."
RIGHT = "She has two cats and a dog ."


@dataclass(frozen=True)
class WordEdit:
    o_start: int
    o_end: int
    c_str: str
    type: str = "R:OTHER"


class WordByWord:
    """Compares the words at the same place; a question mark is an error that it cannot correct."""

    def parse(self, text: str) -> list[str]:
        return text.split()

    def annotate(self, orig: list[str], cor: list[str]) -> list[WordEdit]:
        words = enumerate(zip_longest(orig, cor, fillvalue=""))
        return [
            WordEdit(place, place + 1, new, "UNK" if new == "?" else "R:OTHER")
            for place, (old, new) in words
            if old != new
        ]


@pytest.fixture
def word_by_word(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(errant_f05, "_annotator", WordByWord)
    errant_f05._parsed.cache_clear()


@pytest.mark.usefixtures("word_by_word")
@pytest.mark.parametrize(
    ("source", "references", "text", "expected"),
    [
        (SOURCE, (RIGHT,), RIGHT, 1),
        # One of three edits, and nothing wrong: precision 1, recall 1/3.
        (SOURCE, (RIGHT,), "She has two cat and a dogs .", 1.25 / 3 / (0.25 + 1 / 3)),
        # Two of three edits are right, of three that were made.
        (SOURCE, (RIGHT,), "She has two cats and a cat .", 2 / 3),
        # Nothing was changed: precision 1 and recall 0.
        (SOURCE, (RIGHT,), SOURCE, 0),
        (SOURCE, (RIGHT, SOURCE), SOURCE, 1),
        (RIGHT, (RIGHT,), RIGHT, 1),
        (RIGHT, (RIGHT,), SOURCE, 0),
        (SOURCE, (RIGHT,), "She has two cats and ? dog .", 1),
    ],
)
def test_by_hand(
    source: str,
    references: tuple[str, ...],
    text: str,
    expected: float,
    example: Callable[..., Example],
    answer: Callable[..., Sample],
) -> None:
    assert ERRANT_F05.score(example(*references, source=source), answer(text)) == pytest.approx(expected)


@pytest.mark.usefixtures("word_by_word")
def test_without_references_it_does_not_apply(example: Callable[..., Example], answer: Callable[..., Sample]) -> None:
    assert ERRANT_F05.score(example(source=SOURCE), answer(RIGHT)) is None


@pytest.mark.skipif(errant_is_installed(), reason="ERRANT is installed")
def test_without_errant_it_says_what_to_install(example: Callable[..., Example], answer: Callable[..., Sample]) -> None:
    with pytest.raises(UserError, match=r"pip install 'whetstone\[errant\]' and python -m spacy download"):
        ERRANT_F05.score(example(RIGHT, source=SOURCE), answer(RIGHT))


@pytest.mark.skipif(not errant_is_installed(), reason="needs ERRANT and en_core_web_sm")
def test_errant_itself(example: Callable[..., Example], answer: Callable[..., Sample]) -> None:
    errant_f05._parsed.cache_clear()
    asked = example(RIGHT, source=SOURCE)
    assert ERRANT_F05.score(asked, answer(RIGHT)) == 1
    assert ERRANT_F05.score(asked, answer("She has two cats and a dogs .")) == pytest.approx(10 / 11)
    assert ERRANT_F05.score(asked, answer(SOURCE)) == 0
