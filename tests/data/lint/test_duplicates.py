"""Duplicates within a part, and what leaks from training into what is held out."""

import hashlib
import os
import random
from pathlib import Path

import pytest

from whetstone.data.example import Example, Message
from whetstone.data.finding import Finding
from whetstone.data.lint.duplicates import (
    Overlap,
    compared_text,
    digests,
    exact_duplicates,
    held_out_pairs,
    held_out_sources,
    near_duplicates,
)
from whetstone.data.split import Splits, split_by_group
from whetstone.data_section import Split

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


def expanded(sources: list[str], references: list[list[str]]) -> list[Example]:
    """One row for each pair of a sentence and one of its corrections, as they are often published."""
    return [
        example(f"{number}-{k}", source, reference, group=f"sentence {number}")
        for number, (source, answers) in enumerate(zip(sources, references, strict=True))
        for k, reference in enumerate(answers)
    ]


def shuffled(pairs: list[Example]) -> Splits:
    rows = random.Random(0).sample(pairs, len(pairs))
    ends = len(rows) * 8 // 10, len(rows) * 9 // 10
    return parts(rows[: ends[0]], rows[ends[0] : ends[1]], rows[ends[1] :])


def test_shuffled_pairs_leak_and_groups_do_not() -> None:
    sources = [sentence(number) for number in range(300)]
    # The third and fourth corrector agree: that pair is there twice.
    references = [[f"{source} {k}" for k in (1, 2, 3, 3)] for source in sources]
    pairs = expanded(sources, references)
    overlap = Overlap(shuffled(pairs))
    found, exact = held_out_sources(overlap), held_out_pairs(overlap)
    assert found
    assert exact
    held_out = {compared_text(one) for one in overlap.splits.train}
    truth = sum(one.source in held_out for one in overlap.held_out)
    assert (found.count, found.total, found.severity) == (truth, 240, "error")
    assert found.share >= 0.98
    rows = {(one.source, one.references[0]) for one in overlap.splits.train}
    assert exact.count == sum((one.source, one.references[0]) in rows for one in overlap.held_out) > 60
    assert f"{truth} of 240 held-out examples" in found.message
    assert ": validation " in found.message
    assert len(found.examples) == 3

    by_group = Overlap(split_by_group(pairs, Split(test=0.1, validation=0.1)))
    assert held_out_sources(by_group) is None
    assert held_out_pairs(by_group) is None


@pytest.mark.skipif("WHETSTONE_JFLEG_DEV" not in os.environ, reason="WHETSTONE_JFLEG_DEV names no folder")
def test_shuffled_jfleg_leaks_and_groups_do_not() -> None:
    folder = Path(os.environ["WHETSTONE_JFLEG_DEV"])
    sources = (folder / "dev.src").read_text(encoding="utf-8").splitlines()
    columns = [(folder / f"dev.ref{k}").read_text(encoding="utf-8").splitlines() for k in range(4)]
    pairs = expanded(sources, [list(answers) for answers in zip(*columns, strict=True)])
    found = held_out_sources(Overlap(shuffled(pairs)))
    assert found
    assert found.share >= 0.99
    assert held_out_sources(Overlap(split_by_group(pairs, Split(test=0.1, validation=0.1)))) is None


def test_case_and_white_space_do_not_hide_a_leak() -> None:
    train = [example("a", "The cat  sat on it.")]
    found = held_out_sources(Overlap(parts(train, test=[example("b", "the cat sat\non it. "), *distinct(3)])))
    assert found
    assert (found.count, found.total) == (1, 4)
    assert found.message == "1 of 4 held-out examples (25.0 %) have their source in training: test 1 of 4."
    assert found.examples == ("b: the cat sat on it.",)


def test_a_source_with_other_answers_is_no_pair() -> None:
    splits = parts([example("a", "one", "two", "three")], test=[example("b", "one", "four")])
    assert held_out_sources(Overlap(splits))
    assert held_out_pairs(Overlap(splits)) is None
    same = parts([example("a", "one", "two", "three")], test=[example("b", "one", "four", "three ")])
    pair = held_out_pairs(Overlap(same))
    assert pair
    assert (pair.count, pair.total) == (1, 1)


def test_blank_sources_are_no_leak() -> None:
    assert held_out_sources(Overlap(parts([example("a", " ")], test=[example("b", "")]))) is None


def test_replayed_examples_leak_too() -> None:
    train, test = distinct(10), distinct(10, start=10)
    replay = [example("r", test[3].source), example("other", sentence(99))]
    found = held_out_sources(Overlap(parts(train, test=test), replay))
    assert found
    assert found.count == 1
    assert "(1 of them only among the replayed examples)" in found.message
    assert "data.replay.source" in found.mend
    assert held_out_pairs(Overlap(parts(train, test=test), replay)) is None


def conversation(name: str, *contents: str) -> Example:
    turns = [Message("user" if place % 2 == 0 else "assistant", text) for place, text in enumerate(contents)]
    return Example(name, tuple(turns), ("Gladly.",), contents[-1], name)


def test_several_user_turns_are_compared_whole() -> None:
    first, second = conversation("a", "Salt?", "Yes.", "Go on"), conversation("b", "Rain?", "No.", "Go on")
    assert held_out_sources(Overlap(parts([first], test=[second]))) is None
    again = conversation("c", "salt?", "Yes.", "Go on")
    assert held_out_sources(Overlap(parts([first], test=[again])))


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


def test_digests_are_stable_and_tell_texts_apart() -> None:
    first, second, again, broken = digests(["one", "two", "one", "\ud800"]).tolist()
    assert first == again == int.from_bytes(hashlib.blake2b(b"one", digest_size=8).digest(), "little")
    assert len({first, second, broken}) == 3
