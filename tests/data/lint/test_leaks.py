"""What leaks from training into what is held out."""

import os
import random
from pathlib import Path

import pytest

from whetstone.data.example import Example, Message
from whetstone.data.lint.leaks import Overlap, held_out_pairs, held_out_sources
from whetstone.data.lint.questions import compared_text
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


def conversation(name: str, *contents: str, system: str = "", answer: str = "Gladly.") -> Example:
    front = (Message("system", system),) if system else ()
    turns = [Message("user" if place % 2 == 0 else "assistant", text) for place, text in enumerate(contents)]
    return Example(name, (*front, *turns), (answer,), contents[-1], name)


def test_several_user_turns_are_compared_whole() -> None:
    first, second = conversation("a", "Salt?", "Yes.", "Go on"), conversation("b", "Rain?", "No.", "Go on")
    assert held_out_sources(Overlap(parts([first], test=[second]))) is None
    again = conversation("c", "salt?", "Yes.", "Go on")
    assert held_out_sources(Overlap(parts([first], test=[again])))


def test_another_system_turn_does_not_hide_a_conversation() -> None:
    trained = conversation("a", "Salt?", "Yes.", "Pass it on to the others, please", system="Be brief.")
    asked = conversation("b", "Salt?", "Yes.", "Pass it on to the others, please", system="Be kind.")
    assert held_out_sources(Overlap(parts([trained], test=[asked])))


QUESTION = "Which river flows through the city of Vienna?"


@pytest.mark.parametrize("flipped", [False, True])
def test_a_pair_is_found_whatever_came_before(flipped: bool) -> None:
    alone, later = conversation("a", QUESTION), conversation("b", "Hi 17", "Hello.", QUESTION)
    train, test = (alone, later) if flipped else (later, alone)
    overlap = Overlap(parts([train], test=[test, *distinct(3)]))
    found = held_out_pairs(overlap)
    assert held_out_sources(overlap) is None
    assert found
    assert (found.count, found.total, found.severity) == (1, 4, "error")
    assert found.examples == (f"{test.id}: {QUESTION[:39]}… -> Gladly.",)


def test_a_question_asked_again_with_another_answer_is_no_pair() -> None:
    train = conversation("b", "Hi 17", "Hello.", QUESTION, answer="The Danube.")
    assert held_out_pairs(Overlap(parts([train], test=[conversation("a", QUESTION)]))) is None


@pytest.mark.parametrize("before", [(), ("Hello.", "Hello to you.")])
def test_replayed_examples_hold_the_question_as_it_is_asked(before: tuple[str, ...]) -> None:
    test = distinct(10)
    replay = [conversation("r", *before, test[3].messages[-1].content)]
    found = held_out_sources(Overlap(parts(distinct(10, start=10), test=test), replay))
    assert found
    assert (found.count, found.severity) == (1, "error")
    assert found.examples[0].startswith("e3: ")


def test_a_replayed_conversation_with_another_beginning_is_another_one() -> None:
    test = [conversation("a", "Tell me of salt.", "It is white.", "Say more about where it comes from")]
    replay = [conversation("r", "Tell me of rain.", "It is wet.", "Say more about where it comes from")]
    assert held_out_sources(Overlap(parts(distinct(10), test=test), replay)) is None


GREETINGS = ["Hi", "Hello there!", "Good morning", "How are you today?"]


def chats(count: int, greetings: list[str]) -> list[Example]:
    return [*distinct(count - len(greetings), start=100), *(conversation(f"c-{text}", text) for text in greetings)]


def test_a_few_greetings_are_a_warning() -> None:
    overlap = Overlap(parts(chats(200, GREETINGS), test=chats(80, GREETINGS)[76:] + distinct(76)))
    for found in (held_out_sources(overlap), held_out_pairs(overlap)):
        assert found
        assert (found.count, found.total, found.severity) == (4, 80, "warning")
        assert "All of them are short, with fewer than 20 characters" in found.message


@pytest.mark.parametrize(
    ("greetings", "others"),
    [(GREETINGS, 75), ([*GREETINGS[:3], "Good day to you, all!"], 76)],
    ids=["more than a twentieth", "one is longer"],
)
def test_many_short_questions_or_a_longer_one_are_an_error(greetings: list[str], others: int) -> None:
    test = [conversation(f"t-{text}", text) for text in greetings] + distinct(others)
    overlap = Overlap(parts(chats(200, greetings), test=test))
    for found in (held_out_sources(overlap), held_out_pairs(overlap)):
        assert found
        assert (found.count, found.severity) == (4, "error")
        assert "short" not in found.message
