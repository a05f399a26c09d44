"""Turns and answers: each fault is found and counted, and sound examples are left alone."""

import random
from dataclasses import replace

import pytest

from whetstone.data.example import Example, Message, Role
from whetstone.data.lint.turns import (
    category_imbalance,
    contradictory_references,
    empty_turns,
    identity_pairs,
    label_imbalance,
    length_outliers,
    role_order,
    small_test,
)
from whetstone.data.split import Splits


def example(
    number: int, *references: str, source: str = "", group: str = "", category: str = "all", ask: str = ""
) -> Example:
    text = source or f"source {number}"
    messages = (Message("user", ask or f"Correct: {text}"),)
    return Example(f"e{number}", messages, references or (f"answer {number}",), text, group or f"g{number}", category)


def roles(*names: Role) -> Example:
    return Example("r", tuple(Message(name, "text") for name in names), ("answer",), "text", "r")


def parts(train: list[Example], test: list[Example] | None = None) -> Splits:
    return Splits(tuple(train), (), tuple(test or ()))


SOUND = [example(number) for number in range(200)]


def test_sound_examples() -> None:
    assert empty_turns(SOUND) is None
    assert role_order(SOUND) is None
    assert identity_pairs(parts(SOUND)) is None
    assert contradictory_references(SOUND) is None
    assert label_imbalance(SOUND) is None
    assert category_imbalance(parts(SOUND, SOUND)) is None
    assert length_outliers(SOUND) is None
    assert small_test(SOUND) is None


def test_no_examples() -> None:
    assert empty_turns([]) is None
    assert identity_pairs(parts([])) is None
    assert contradictory_references([]) is None
    assert label_imbalance([]) is None
    assert category_imbalance(parts([])) is None
    assert length_outliers([]) is None
    assert small_test([]) is None


def test_empty_turns() -> None:
    blank_user = replace(SOUND[0], id="user", messages=(Message("system", "Be kind."), Message("user", " \n")))
    blank_answer = replace(SOUND[0], id="answer", references=("fine", "\t"))
    found = empty_turns([*SOUND, blank_user, blank_answer])
    assert found
    assert (found.count, found.total, found.severity) == (2, 202, "error")
    assert found.examples == ("user: turn 2 (user) is empty", "answer: the answer is empty")


@pytest.mark.parametrize(
    "names", [("user",), ("system", "user"), ("user", "assistant", "user"), ("system", "user", "assistant", "user")]
)
def test_sound_order(names: tuple[Role, ...]) -> None:
    assert role_order([roles(*names)]) is None


@pytest.mark.parametrize(
    "names",
    [
        ("system",),
        ("assistant", "user"),
        ("user", "user"),
        ("user", "assistant"),
        ("user", "system", "user"),
        ("system", "system", "user"),
        ("user", "assistant", "assistant", "user"),
    ],
)
def test_turns_out_of_order(names: tuple[Role, ...]) -> None:
    found = role_order([*SOUND, roles(*names)])
    assert found
    assert (found.code, found.count, found.total, found.severity) == ("role-order", 1, 201, "error")
    assert found.examples == (f"r: {', '.join(names)}",)


def test_plain_text_has_no_order_and_is_no_identity() -> None:
    text = Example("t", (), ("a text",), "a text", "t")
    assert role_order([text]) is None
    assert identity_pairs(parts([text], [text])) is None


def test_identity_pairs() -> None:
    same = [example(number, "other", f"source {number} ") for number in range(30)]
    found = identity_pairs(parts(SOUND, [*same, *SOUND[:10]]))
    assert found
    assert (found.count, found.total, found.severity) == (30, 240, "note")
    assert "copying it is right for 75.0 % of the test examples" in found.message
    mostly = identity_pairs(parts([*same, *SOUND[:29]]))
    assert mostly
    assert mostly.severity == "warning"


def test_contradictory_references() -> None:
    bad = [example(1, "yes", ask="Is it?"), example(2, "no", ask="Is it?"), example(3, "yes", ask="Is it?")]
    fine = [example(4, "a", "b", ask="Which?"), example(5, "b ", "c", ask="Which?"), example(6, "yes", ask="Is it so?")]
    found = contradictory_references([*SOUND, *bad, *fine])
    assert found
    assert (found.count, found.total) == (1, 203)
    assert found.examples == ("e1 and e2: Is it?",)
    assert contradictory_references([*SOUND, *fine]) is None


def test_the_system_turn_makes_another_prompt() -> None:
    asked = Message("user", "Is it?")
    one = replace(example(1, "yes"), messages=(Message("system", "Agree."), asked))
    two = replace(example(2, "no"), messages=(Message("system", "Disagree."), asked))
    assert contradictory_references([one, two]) is None


def labelled(**uses: int) -> list[Example]:
    return [example(number, label) for label, count in uses.items() for number in range(count)]


def test_label_imbalance() -> None:
    found = label_imbalance(labelled(good=300, bad=20))
    assert found
    assert (found.count, found.total) == (300, 320)
    assert "'good' is the answer of 300 of 320 training examples (93.8 %); 'bad' is the answer of 20" in found.message
    assert found.examples == ("good: 300", "bad: 20")
    always = label_imbalance(labelled(yes=40))
    assert always
    assert always.share == 1.0
    rare = label_imbalance(labelled(a=110, b=100, c=10))
    assert rare
    assert rare.count == 110


def test_balanced_labels_and_free_answers_are_fine() -> None:
    assert label_imbalance(labelled(good=300, bad=100)) is None
    assert label_imbalance(labelled(good=18, bad=1)) is None
    assert label_imbalance([*labelled(good=500), *SOUND]) is None


def test_category_imbalance() -> None:
    train = [example(n, category="tense") for n in range(100)] + [example(n, category="article") for n in range(4)]
    test = [example(n, category=category) for n, category in enumerate(("tense", "article", "number", "number"))]
    found = category_imbalance(parts(train, test))
    assert found
    assert (found.code, found.count, found.total) == ("label-imbalance", 2, 3)
    assert found.examples == ("number: 0 in training, 2 held out", "article: 4 in training, 1 held out")
    assert category_imbalance(parts([*train, train[-1]], test[:2])) is None


def prose(count: int) -> list[Example]:
    """Lengths as those of learner sentences: log-normal, median 84 characters, deviation 0.52."""
    draw = random.Random(0)
    return [example(n, "y" * round(draw.lognormvariate(4.43, 0.52)), source="x" * 84) for n in range(count)]


def test_length_outliers() -> None:
    assert length_outliers(prose(3000)) is None
    long = example(7, "z" * 20_000, source="x" * 84)
    short = example(8, "fine" * 20, source="x")
    found = length_outliers([*prose(300), long, short])
    assert found
    assert (found.count, found.total) == (2, 302)
    assert set(found.examples) == {
        "e8: source of 1 characters, the median is 84",
        f"e7: answer of 20,000 characters, the median is {len_median(prose(300))}",
    }


def len_median(examples: list[Example]) -> int:
    return sorted(len(one.references[0]) for one in examples)[len(examples) // 2]


def test_a_second_kind_of_answer_is_no_outlier() -> None:
    assert length_outliers([*prose(300), *(example(n, "yes") for n in range(30))]) is None


def test_small_test_says_what_ten_rows_can_tell() -> None:
    found = small_test(SOUND[:10])
    assert found
    assert (found.count, found.severity) == (10, "warning")
    assert "only 10 examples" in found.message
    assert "between 40 and 89 %" in found.message


def test_many_rows_of_few_groups_are_a_small_test() -> None:
    found = small_test([example(n, group=f"g{n % 12}") for n in range(400)])
    assert found
    assert "only 400 examples from 12 groups" in found.message
    assert "between 42 and 88 %" in found.message
    assert small_test([example(n, group=f"g{n % 30}") for n in range(100)]) is None
