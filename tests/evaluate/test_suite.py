"""Suites: what a file may say, what is refused, and how the cases become examples."""

from pathlib import Path

import pytest

from whetstone.data.example import Example, Message
from whetstone.errors import UserError
from whetstone.evaluate.few_shot import choose_shots, with_shots
from whetstone.evaluate.suite import load_suite
from whetstone.judge_section import Generation, Judge, MustImprove
from whetstone.suites import suite_names

HEAD = "about: A try.\nmetrics: [exact_match]\n"


def written(folder: Path, text: str, name: str = "mine.yaml") -> str:
    (folder / name).write_text(text)
    return str(folder / name)


def test_a_case_becomes_an_example(tmp_path: Path) -> None:
    text = HEAD + (
        "system: Be brief.\nprompt: 'Correct: {source}'\nmax_new_tokens: 7\n"
        "cases:\n"
        "- {source: He go ., references: [He goes .], category: verb, group: g}\n"
        "- {id: own, prompt: Say yes, requirements: {max_words: 1}}\n"
    )
    suite = load_suite(written(tmp_path, text), Judge(generation=Generation(max_new_tokens=99)))
    first, second = suite.examples
    assert (suite.name, suite.generation.max_new_tokens, suite.is_text) == ("mine", 7, False)
    assert first.messages == (Message("system", "Be brief."), Message("user", "Correct: He go ."))
    assert (first.id, first.source, first.references, first.group) == ("mine-001", "He go .", ("He goes .",), "g")
    assert (second.id, second.source, second.messages[-1].content) == ("own", "Say yes", "Say yes")
    assert second.requirements is not None
    assert second.requirements.unmet("yes, sure") == ["max_words"]


def test_metrics_of_gates_are_scored_too(tmp_path: Path) -> None:
    path = written(tmp_path, HEAD + "cases: [{prompt: a}]\n")
    judge = Judge(suites=(path,), must_improve=(MustImprove(metric="empty", suite="mine"),))
    assert load_suite(path, judge).metrics == ("exact_match", "empty")


def test_a_suite_is_asked_whole_whatever_the_limit_of_held_out_examples(tmp_path: Path) -> None:
    path = written(tmp_path, HEAD + "cases: [{prompt: a}, {prompt: b}, {prompt: c}]\n")
    assert len(load_suite(path, Judge(max_examples=1)).examples) == 3


def test_texts_are_predicted(tmp_path: Path) -> None:
    suite = load_suite(written(tmp_path, HEAD + "cases: [{text: Some words., category: prose}]\n"), Judge())
    assert suite.is_text
    assert suite.examples[0].references == ("Some words.",)


def test_cases_may_stand_in_a_file_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text(
        '{"prompt": "2 + 2", "references": ["4"], "category": "sum"}\n{"prompt": "3 + 3", "references": ["6"]}\n'
    )
    path = written(tmp_path, HEAD + "prompt: 'What is {source}?'\nrows: {file: rows.jsonl}\n")
    suite = load_suite(path, Judge())
    assert [example.messages[0].content for example in suite.examples] == ["What is 2 + 2?", "What is 3 + 3?"]
    assert suite.examples[0].category == "sum"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("about: x\nmetrics: [exact_mach]\ncases: [{prompt: a}]\n", "mine.yaml:2: .*did you mean 'exact_match'"),
        (HEAD, "mine.yaml:1: cases: give cases"),
        (HEAD + "cases:\n- {prompt: a}\n- {category: b}\n", "mine.yaml:5: .*asks nothing"),
        (HEAD + "cases:\n- {prompt: a, id: x}\n- {prompt: b, id: x}\n", "mine.yaml:5: .*'x' is given twice"),
        (HEAD + "cases:\n- {text: a, prompt: b}\n", "mine.yaml:4: .*only predicted"),
        (HEAD + "cases:\n- {text: a}\n- {prompt: b}\n", "mine.yaml:3: cases: some are texts"),
        (HEAD + "prompt: hello\ncases: [{prompt: a}]\n", "mine.yaml:3: prompt: has no {source}"),
        (HEAD + "cases:\n- {prompt: a, requirements: {pattern: '('}}\n", "mine.yaml:4: .*no regular expression"),
        (HEAD + "cases:\n- {prompt: a, requirements: {}}\n", "mine.yaml:4: .*asks nothing"),
        (HEAD + "repeats: 3\ncases: [{prompt: a}]\n", "mine.yaml:3: repeats: 3 greedy answers are all the same"),
        (HEAD + "cases: [{promt: a}]\n", "mine.yaml:3: .*did you mean 'prompt'"),
    ],
)
def test_a_wrong_file_is_one_line(tmp_path: Path, text: str, problem: str) -> None:
    with pytest.raises(UserError, match=problem):
        load_suite(written(tmp_path, text), Judge())


@pytest.mark.parametrize("name", suite_names())
def test_the_suites_of_the_package_can_be_read(name: str) -> None:
    suite = load_suite(name, Judge())
    assert len(suite.examples) >= 40
    assert len({example.id for example in suite.examples}) == len(suite.examples)


def example(number: int, group: str) -> Example:
    return Example(f"e{number}", (Message("user", f"q{number}"),), (f"a{number}",), f"q{number}", group)


def test_shots_are_of_different_groups_and_do_not_depend_on_order() -> None:
    training = [example(number, f"g{number // 3}") for number in range(30)]
    chosen = choose_shots(training, 4)
    assert len({shot.group for shot in chosen}) == 4
    assert choose_shots(training[::-1], 4) == chosen
    assert len(choose_shots(training[:6], 5)) == 2
    assert choose_shots([Example("t", (), ("text",), "text", "t")], 2) == ()


def test_shots_stand_between_the_system_turn_and_the_question() -> None:
    asked = (Message("system", "s"), Message("user", "q"))
    shot = Example("e", (Message("system", "other"), Message("user", "q1")), ("a1", "b1"), "q1", "g")
    assert with_shots(asked, [shot]) == (
        Message("system", "s"),
        Message("user", "q1"),
        Message("assistant", "a1"),
        Message("user", "q"),
    )
