"""Duplicates within a part, and near duplicates within training and across the parts."""

import random

from whetstone.data.example import Example, Message
from whetstone.data.finding import Finding
from whetstone.data.lint.duplicates import exact_duplicates, near_duplicates
from whetstone.data.lint.leaks import Overlap
from whetstone.data.split import Splits

WORDS = ["".join(random.Random(seed).choices("etaoinshrdlucmfwyp", k=3 + seed % 7)) for seed in range(400)]


def sentence(seed: int, words: int = 15) -> str:
    return " ".join(random.Random(f"sentence {seed}").choices(WORDS, k=words))


def example(name: str, source: str, *references: str, group: str = "") -> Example:
    messages = (Message("user", f"Correct: {source}"),)
    return Example(name, messages, references or (f"{source} corrected",), source, group or name)


def parts(train: list[Example], validation: list[Example] | None = None, test: list[Example] | None = None) -> Splits:
    return Splits(tuple(train), tuple(validation or ()), tuple(test or ()))


def distinct(count: int, start: int = 0) -> list[Example]:
    return [example(f"e{number}", sentence(number)) for number in range(start, start + count)]


def test_exact_duplicates_are_counted_in_each_part() -> None:
    train, test = distinct(100), distinct(50, start=100)
    repeated = [*train, train[5], train[5], train[7]]
    found = exact_duplicates(parts(repeated, test=[*test, test[0]]))
    assert found
    assert (found.count, found.total) == (4, 154)
    assert "3 of 103 in train (2.9 %), 1 of 51 in test (2.0 %)" in found.message
    assert found.examples[0].startswith("e5: ")
    assert exact_duplicates(parts(train, test=test)) is None


def test_the_same_prompt_with_another_answer_is_no_duplicate() -> None:
    assert exact_duplicates(parts([example("a", "one", "two"), example("b", "one", "three")])) is None


def by_code(findings: list[Finding]) -> dict[str, Finding]:
    return {finding.code: finding for finding in findings}


def test_near_duplicates_within_training_and_across() -> None:
    train, test = distinct(60), distinct(40, start=60)
    train.append(example("near", f"{train[4].source} indeed"))
    test.append(example("leak", f"{train[8].source} indeed"))
    found = by_code(near_duplicates(Overlap(parts(train, test=test)), 0.8))
    assert (found["near-duplicate"].count, found["near-duplicate"].total) == (2, 61)
    assert found["near-duplicate"].severity == "note"
    assert len(found["near-duplicate"].examples) == 1
    across = found["near-duplicate-across-splits"]
    assert (across.count, across.total, across.severity) == (1, 41, "warning")
    end = train[8].source[-15:]
    assert across.examples == (f"leak: …{end} indeed ~ e8: …{end} (0.94)",)
    assert near_duplicates(Overlap(parts(train, test=test)), 0.99) == []


def test_near_duplicates_of_one_group_are_meant() -> None:
    train = distinct(60)
    train.append(example("near", f"{train[4].source} indeed", group=train[4].group))
    assert near_duplicates(Overlap(parts(train)), 0.8) == []


def test_many_near_duplicates_are_a_warning() -> None:
    train = [example(f"{n}-{k}", f"{sentence(n)} {k}") for n in range(20) for k in range(2)]
    assert by_code(near_duplicates(Overlap(parts(train)), 0.8))["near-duplicate"].severity == "warning"


def test_a_source_that_leaks_exactly_is_not_told_again() -> None:
    train = distinct(30)
    test = [example("same", train[0].source)]
    assert near_duplicates(Overlap(parts(train, test=test)), 0.8) == []


PARCEL = "Dear customer, your parcel with the number {} will arrive tomorrow between nine and noon. Please be at home."


def test_what_is_there_over_and_over_is_told() -> None:
    train = [*distinct(300), *(example(f"p{n}", PARCEL.format(784512 + 7919 * n)) for n in range(100))]
    found = near_duplicates(Overlap(parts(train)), 0.8)
    assert [(one.code, one.severity, one.count, one.total) for one in found] == [("near-duplicate", "note", 100, 400)]
    assert "100 of 400 distinct sources (25.0 %) consist almost wholly (80% or more) of text" in found[0].message
    assert found[0].examples[0].startswith("p0: Dear customer, your parcel")


def test_an_instruction_before_a_text_as_long_is_no_template() -> None:
    instruction = "Correct the errors in this sentence, and answer with the corrected sentence alone: "
    train = [example(f"e{n}", instruction + sentence(n, words=12)) for n in range(400)]
    assert near_duplicates(Overlap(parts(train)), 0.8) == []
