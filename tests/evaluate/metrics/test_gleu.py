"""GLEU against numbers of its authors' own script.

The script is eval/gleu.py of the JFLEG corpus (4 November 2016); it was run on the sentences that stand here. The GLEU
of nltk is another measure and gives other numbers.
"""

import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from whetstone.data.example import Example
from whetstone.evaluate.metrics.gleu import CORPUS_GLEU, GLEU
from whetstone.evaluate.sample import Sample

SOURCES = (
    "He go to school every days .",
    "I am agree with you about this problems .",
    "The weather was nice , so we walked home .",
    "She have two cat and a dogs .",
    "Yesterday I see him on the station .",
    "It depends of many thing .",
)
FIRST = (
    "He goes to school every day .",
    "I agree with you about this problem .",
    "The weather was nice , so we walked home .",
    "She has two cats and a dog .",
    "Yesterday I saw him at the station .",
    "It depends on many things .",
)
SECOND = (
    "He went to school every day .",
    "I agree with you on these problems .",
    "The weather was fine , so we went home on foot .",
    "She has two cats and one dog .",
    "I saw him at the station yesterday .",
    "That depends on many things .",
)
PARTLY = (
    "He goes to school every days .",
    "I am agree with you about these problems .",
    "The weather was nice , so we walked home .",
    "She has two cats and a dogs .",
    "Yesterday I saw him at the station .",
    "It depends on many thing .",
)
POOR = (
    "He go to the school .",
    "Agree",
    "",
    "She has two cats and one dog , I think .",
    "I saw him on the station yesterday .",
    "It depends on",
)

Pairs = list[tuple[Example, Sample]]
MakePairs = Callable[..., Pairs]


@pytest.fixture
def pairs(example: Callable[..., Example], answer: Callable[..., Sample]) -> MakePairs:
    def make(answers: Sequence[str], *references: Sequence[str], sources: Sequence[str] = SOURCES) -> Pairs:
        rows = zip(sources, answers, zip(*references, strict=True), strict=True)
        return [(example(*wanted, source=source), answer(text)) for source, text, wanted in rows]

    return make


@pytest.mark.parametrize(
    ("answers", "one_reference", "two_references"),
    [
        (SOURCES, 0.278530, 0.131849),
        (PARTLY, 0.563662, 0.372513),
        (POOR, 0.139432, 0.159818),
        (FIRST, 1.0, 0.689106),
    ],
    ids=["source", "partly", "poor", "reference"],
)
def test_of_a_test_set(answers: Sequence[str], one_reference: float, two_references: float, pairs: MakePairs) -> None:
    assert CORPUS_GLEU.score(pairs(answers, FIRST)) == pytest.approx(one_reference, abs=1e-6)
    assert CORPUS_GLEU.score(pairs(answers, FIRST, SECOND)) == pytest.approx(two_references, abs=1e-6)


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        (SOURCES, [0.244462, 0.189562, 0.576040, 0.170974, 0.203323, 0.251293]),
        (PARTLY, [0.296504, 0.196179, 0.576040, 0.337945, 0.778626, 0.298840]),
        (POOR, [0.255754, 0.000912, 0.000070, 0.485840, 0.277649, 0.301467]),
        (FIRST, [0.821729, 0.602783, 0.576040, 0.770541, 0.778626, 0.834370]),
    ],
    ids=["source", "partly", "poor", "reference"],
)
def test_of_one_answer(answers: Sequence[str], expected: list[float], pairs: MakePairs) -> None:
    found = [GLEU.score(*pair) for pair in pairs(answers, FIRST, SECOND)]
    assert found == pytest.approx(expected, abs=1e-6)


def test_by_hand(example: Callable[..., Example], answer: Callable[..., Sample]) -> None:
    # Of "a b c d e" four words are right and "e" is held against it, for the source has it and the reference has not;
    # then 3 - 1 of 4, 2 - 1 of 3 and 1 - 1 of 2, which counts as one.
    asked = example("a b c d f", source="x b c d e")
    expected = (3 / 5 * 2 / 4 * 1 / 3 * 1 / 2) ** (1 / 4)
    assert GLEU.score(asked, answer("a b c d e")) == pytest.approx(expected)
    # Three words for five, all of them right.
    assert GLEU.score(asked, answer("a b c")) == pytest.approx(math.exp(1 - 5 / 3))


def test_what_was_wrong_and_kept_costs_more_than_what_is_new(
    example: Callable[..., Example], answer: Callable[..., Sample]
) -> None:
    asked = example("She has two black cats .", source="She have two black cat .")
    kept, new = (GLEU.score(asked, answer(f"She has two black {word} .")) for word in ("cat", "dogs"))
    assert kept < new  # type: ignore[operator]


def test_examples_may_have_different_numbers_of_references(pairs: MakePairs) -> None:
    two, one = pairs(POOR, FIRST, SECOND), pairs(POOR, FIRST)
    found = CORPUS_GLEU.score([*two[:3], *one[3:]])
    assert found is not None and 0 < found < 1
    assert found not in (CORPUS_GLEU.score(two), CORPUS_GLEU.score(one))


def test_examples_without_references_are_left_out(
    pairs: MakePairs, example: Callable[..., Example], answer: Callable[..., Sample]
) -> None:
    without = (example(source="He go ."), answer("He goes ."))
    assert CORPUS_GLEU.score([without]) is None
    whole = pairs(PARTLY, FIRST, SECOND)
    assert CORPUS_GLEU.score([without, *whole]) == CORPUS_GLEU.score(whole)


@pytest.mark.skipif("WHETSTONE_JFLEG_DEV" not in os.environ, reason="WHETSTONE_JFLEG_DEV names no folder")
def test_on_jfleg(pairs: MakePairs) -> None:
    """The corpus is not free for every use, so it is no part of the project."""

    def lines(name: str) -> list[str]:
        return (Path(os.environ["WHETSTONE_JFLEG_DEV"]) / name).read_text(encoding="utf-8").splitlines()

    sources = lines("dev.src")
    references = [lines(f"dev.ref{number}") for number in range(4)]
    for answers, by_the_script in ((sources, 0.381965), (references[0], 0.672755)):
        found = CORPUS_GLEU.score(pairs(answers, *references, sources=sources))
        assert found == pytest.approx(by_the_script, abs=1e-6)
