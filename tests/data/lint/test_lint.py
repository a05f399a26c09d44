"""All checks together: their order, what they obey, and silence on sound data."""

import json
import random
import time
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


PLANTED = {
    "held-out-source-in-training",
    "held-out-pair-in-training",
    "near-duplicate-across-splits",
    "exact-duplicate",
    "near-duplicate",
    "identity-pair",
    "empty-turn",
    "role-order",
    "mojibake",
    "control-character",
    "contradictory-references",
    "label-imbalance",
    "length-outlier",
    "personal-data",
    "secret",
    "small-test",
}


def with_every_fault() -> Splits:
    first, second, third, fourth, fifth = SOUND.train[:5]
    train = (
        *SOUND.train,
        replace(first, id="copy"),
        replace(second, id="near", group="near", source=f"{second.source} too"),
        replace(third, id="same", references=(third.source,)),
        replace(fourth, id="blank", references=(" ",)),
        replace(fifth, id="roles", messages=(Message("user", "a"), Message("user", "b"))),
        replace(example(900), references=("L\u00c3\u00a9gende d\u00c3\u00a9j\u00c3\u00a0 vu\x00",), category="rare"),
        replace(example(901), references=("Write to anna.smith" + "@" + "mail.co.uk, AKIA" + "IOSFODNN7QWERTYU",)),
        replace(example(902), references=("x" * 20_000,)),
        *(example(number) for number in range(2000, 2100)),
        *(replace(first, id=f"p{n}", group=f"p{n}", source=f"{first.source} {n}") for n in range(1000, 1100)),
    )
    near = replace(SOUND.train[7], id="leak", group="leak", source=f"{SOUND.train[7].source} too")
    return Splits(train, (), (first, near, *SOUND.test[:20]))


def test_every_finding_can_be_printed_as_json() -> None:
    splits = with_every_fault()
    findings = [*lint(splits, DATA), *lint(replace(splits, train=SOUND.train), DATA, replay=splits.test)]
    assert {finding.code for finding in findings} == PLANTED
    for finding in findings:
        assert json.loads(json.dumps(finding.as_row())) == finding.as_row()
        assert {type(finding.count), type(finding.total)} == {int}


def test_labels_that_outweigh_others_can_be_printed_as_json() -> None:
    labelled = [replace(one, references=("no" if n % 30 else "yes",)) for n, one in enumerate(SOUND.train)]
    findings = lint(replace(SOUND, train=tuple(labelled)), DATA)
    assert [json.loads(json.dumps(finding.as_row()))["code"] for finding in findings] == ["label-imbalance"]


def test_a_giant_conversation_takes_little_time() -> None:
    turns = [Message("user" if place % 2 == 0 else "assistant", example(place).source) for place in range(2000)]
    talk = [
        Example(f"e{end}", tuple(turns[:end]), (turns[end].content,), turns[end - 1].content, "talk")
        for end in range(1, 2000, 2)
    ]
    started = time.process_time()
    assert codes(replace(SOUND, train=tuple(talk))) == []
    assert time.process_time() - started < 4


def test_giant_texts_take_little_time() -> None:
    words = random.Random(0).choices(WORDS, k=400_000)
    texts = [" ".join(words[3000 * number : 3000 * number + 25_000]) for number in range(120)]
    train = tuple(Example(f"e{n}", (Message("user", text),), (f"a{n}",), text, f"g{n}") for n, text in enumerate(texts))
    started = time.process_time()
    codes(replace(SOUND, train=train))
    assert time.process_time() - started < 4
