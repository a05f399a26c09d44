"""All checks together: their order, what they obey, and silence on sound data."""

import random
from dataclasses import replace

import pytest

from whetstone.data.example import Example, Message
from whetstone.data.grammar.examples import correction_splits
from whetstone.data.lint.lint import lint
from whetstone.data.split import Splits
from whetstone.data_section import Data, GrammarSource, Lint

WORDS = ["".join(random.Random(seed).choices("etaoinshrdlucmfwyp", k=3 + seed % 7)) for seed in range(400)]
DATA = Data(source="rows.jsonl")


def example(number: int) -> Example:
    text = " ".join(random.Random(number).choices(WORDS, k=15))
    return Example(f"e{number}", (Message("user", text),), (f"{text} indeed",), text, f"g{number}")


SOUND = Splits(*(tuple(map(example, numbers)) for numbers in (range(300), range(300, 350), range(350, 470))))


def codes(splits: Splits, data: Data = DATA, replay: tuple[Example, ...] = ()) -> list[tuple[str, str]]:
    return [(finding.severity, finding.code) for finding in lint(splits, data, replay)]


def test_sound_data() -> None:
    assert codes(SOUND) == []


def test_errors_come_first_then_warnings_then_notes() -> None:
    first = SOUND.train[0]
    faulty = replace(
        SOUND,
        train=(
            *SOUND.train,
            replace(first, id="copy"),
            replace(example(900), source=example(900).references[0]),
            replace(example(901), messages=(Message("system", " "), Message("user", "Begin."))),
            replace(example(902), references=(f"{example(903).source}\x00",)),
        ),
        test=(replace(first, id="leak"), *SOUND.test),
    )
    assert codes(faulty) == [
        ("error", "held-out-source-in-training"),
        ("error", "held-out-pair-in-training"),
        ("error", "empty-turn"),
        ("warning", "exact-duplicate"),
        ("warning", "control-character"),
        ("note", "identity-pair"),
    ]
    allowed = DATA.model_copy(update={"lint": Lint(allow=("empty-turn",))})
    assert codes(faulty, allowed) == codes(faulty)


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        (Lint(), [("warning", "near-duplicate-across-splits"), ("note", "near-duplicate")]),
        (Lint(near_duplicates=False), []),
        (Lint(jaccard=0.99), []),
    ],
)
def test_near_duplicates_obey_the_experiment(rules: Lint, expected: list[tuple[str, str]]) -> None:
    one, two = example(0), example(1)
    within = replace(one, id="near", group="near", source=f"{one.source} too", messages=(Message("user", "a"),))
    across = replace(two, id="leak", group="leak", source=f"{two.source} too", messages=(Message("user", "b"),))
    splits = replace(SOUND, train=(*SOUND.train, within), test=(*SOUND.test, across))
    assert codes(splits, DATA.model_copy(update={"lint": rules})) == expected


def test_replayed_examples_are_checked_for_leaks_and_texts() -> None:
    replay = (replace(SOUND.test[0], id="r"), replace(example(999), references=("", "fine")), *map(example, range(5)))
    assert codes(SOUND, replay=replay) == [("error", "held-out-source-in-training"), ("error", "empty-turn")]


def test_the_embedded_corrections_are_sound() -> None:
    data = Data(source=GrammarSource(grammar="corrections", train=600, validation=50, test=200))
    assert codes(correction_splits(data, GrammarSource(grammar="corrections", train=600, validation=50, test=200))) == [
        ("note", "identity-pair")
    ]
