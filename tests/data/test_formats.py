"""Rows to drafts: each shape, what it says of source and group, and what counts as malformed."""

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whetstone.data.example import Example, Message
from whetstone.data.formats import LAYOUTS, Draft, Parser, format_of
from whetstone.data.sources import read_parts
from whetstone.data.strict_json import RowError
from whetstone.data.tests import around_answer
from whetstone.data_section import Data, RowFormat
from whetstone.errors import UserError

PLAIN = Data(source="unused.jsonl")
PROMPT = Data(source="unused.jsonl", prompt="Correct: {source}", system="Be brief.")


def parse(row: dict[str, Any], data: Data = PLAIN) -> Draft:
    """Reads a row in the format that it is seen to have."""
    shape = format_of(row)
    assert shape is not None
    return Parser(data, LAYOUTS[shape])(row)


def turns(*texts: str, role: str = "role", content: str = "content") -> list[dict[str, str]]:
    """A conversation from texts such as "user: hi"."""
    return [dict(zip((role, content), text.split(": ", 1), strict=True)) for text in texts]


def shared(*texts: str) -> list[dict[str, str]]:
    """The same with ShareGPT's tags."""
    return turns(*texts, role="from", content="value")


def said(messages: tuple[Message, ...]) -> list[str]:
    return [f"{turn.role}: {turn.content}" for turn in messages]


SAME = ["system: s", "user: q", "assistant: a", "user: r", "assistant: b"]


@pytest.mark.parametrize(
    ("shape", "row"),
    [
        ("messages", {"messages": turns(*SAME)}),
        ("messages", {"messages": turns("developer: s", *SAME[1:])}),
        ("messages", {"messages": turns(*SAME[1:]), "system": "s"}),
        ("messages", {"messages": json.dumps(turns(*SAME))}),
        ("sharegpt", {"conversations": shared("human: q", "gpt: a", "human: r", "bing: b"), "system": "s"}),
        ("sharegpt", {"conversations": shared("system: s", "user: q", "model: a", "human: r", "bard: b")}),
        ("alpaca", {"instruction": "r", "input": " ", "output": "b", "system": "s", "history": [["q", "a"]]}),
    ],
)
def test_a_conversation_in_every_shape(shape: RowFormat, row: dict[str, Any]) -> None:
    assert format_of(row) == shape
    first, second = parse(row).answers
    assert (said(first.messages), first.references, first.source) == (SAME[:2], ("a",), "q")
    assert (said(second.messages), second.references, second.source) == (SAME[:4], ("b",), "r")
    (only,) = parse(row, Data(source="x", turns="last")).answers
    assert only == second


@pytest.mark.parametrize(
    ("shape", "row"),
    [
        ("prompt-completion", {"prompt": "q", "completion": "a"}),
        ("prompt-response", {"prompt": "q", "response": "a"}),
        ("prompt-references", {"prompt": "q", "references": ["a", "a"]}),
        ("prompt-references", {"prompt": "q", "references": '["a"]'}),
    ],
)
def test_prompts_are_put_in_their_place(shape: RowFormat, row: dict[str, Any]) -> None:
    assert format_of(row) == shape
    (answer,) = parse(row, PROMPT).answers
    assert said(answer.messages) == ["system: Be brief.", "user: Correct: q"]
    assert (answer.references, answer.source) == (("a",), "q")
    (bare,) = parse(row).answers
    assert said(bare.messages) == ["user: q"]
    assert bare.messages[0].content is bare.source


def test_a_conversational_prompt_is_given_and_only_its_completion_learned() -> None:
    row = {"prompt": turns(*SAME[:4]), "completion": turns(SAME[4])}
    (answer,) = parse(row, PROMPT).answers
    assert (said(answer.messages), answer.references) == (SAME[:4], ("b",))
    with pytest.raises(RowError, match="at the end, found no turn"):
        parse({"prompt": turns(*SAME), "completion": []})
    with pytest.raises(RowError, match="completion: expected text, found a list"):
        parse({"prompt": "q", "completion": turns(SAME[4])})


def test_plain_text_is_its_own_source() -> None:
    draft = parse({"text": " a text ", "source": "wikipedia"}, PROMPT)
    assert draft.answers == (((), (" a text ",), " a text "),)


def test_alpaca_joins_instruction_and_input_and_works_on_the_input() -> None:
    (answer,) = parse({"instruction": "Correct", "input": "he go", "output": "he goes"}, PROMPT).answers
    assert said(answer.messages) == ["system: Be brief.", "user: Correct\nhe go"]
    assert answer.source == "he go"


def test_the_source_of_a_conversation_is_what_stands_in_the_prompt() -> None:
    def source(row: dict[str, Any]) -> list[str]:
        return [answer.source for answer in parse(row, PROMPT).answers]

    chat = turns("user: Correct: he go", "assistant: x", "user: Fix", "assistant: y")
    assert source({"messages": chat}) == ["he go", "Fix"]
    assert source({"messages": chat, "source": "he"}) == ["he go", "Fix"]
    assert source({"messages": chat, "source": "e go"}) == ["e go", "Fix"]
    assert source({"messages": chat, "source": "where the row was taken from"}) == ["he go", "Fix"]
    assert source({"messages": chat, "source": None}) == ["he go", "Fix"]


def test_more_references_belong_to_the_last_answer() -> None:
    first, second = parse({"messages": turns(*SAME), "references": ["c", "b"]}).answers
    assert (first.references, second.references) == (("a",), ("b", "c"))


def test_a_group_is_the_source_whatever_its_case_and_one_for_a_whole_conversation() -> None:
    single = parse({"messages": turns("user: Correct:  He GO ", "assistant: x")}, PROMPT)
    assert single.group == parse({"prompt": "he go", "response": "x"}).group
    question = "Correct: he go to a place that is far away from his home"
    first = parse({"messages": turns(f"user: {question}", "assistant: x")}, PROMPT)
    longer = {"messages": turns(f"user: {question}", "assistant: x", "user: and now?", "assistant: z")}
    assert parse(longer, PROMPT).group == first.group != single.group
    assert parse(longer, PROMPT).content != first.content


def test_a_greeting_does_not_make_one_group_of_all_conversations() -> None:
    def group(*texts: str) -> str:
        return parse({"messages": turns("user: Hello", "assistant: Hi", *texts)}).group

    topics = {group(f"user: Tell me about {what}", "assistant: x") for what in ("cats", "dogs", "cats")}
    assert len(topics) == 2


@pytest.mark.parametrize(
    ("row", "source"),
    [
        ({"prompt": "Write code that sorts a list", "response": "x", "source": "code"}, "Write code that sorts a list"),
        ({"prompt": "code it", "response": "x", "source": "code"}, "code"),
        ({"instruction": "Write code", "output": "x", "source": "code"}, "Write code"),
        ({"prompt": "Mend what a learner wrote: he go", "response": "x", "source": "he go"}, "he go"),
    ],
)
def test_a_word_that_says_where_a_row_is_from_is_not_its_source(row: dict[str, Any], source: str) -> None:
    (answer,) = parse(row).answers
    assert answer.source == source


@pytest.mark.parametrize(
    "row",
    [
        {"messages": turns("system:  ", "user: q", "assistant: a")},
        {"conversations": shared("system: ", "human: q", "gpt: a")},
        {"prompt": turns("system: ", "user: q"), "completion": turns("assistant: a")},
        {"prompt": "q", "response": "a", "system": " "},
    ],
)
def test_a_blank_system_turn_is_none(row: dict[str, Any]) -> None:
    for system in (None, "", " "):
        (answer,) = parse(row, Data(source="x", system=system)).answers
        assert (said(answer.messages), answer.references) == (["user: q"], ("a",))
    (answer,) = parse(row, PROMPT).answers
    assert answer.messages[0] == Message("system", "Be brief.")


@pytest.mark.parametrize("value", [["a"], {"b": 1}])
def test_lists_and_objects_are_no_names_unless_the_experiment_says_so(value: object) -> None:
    row = {"prompt": "q", "response": "a", "id": value, "group": value, "category": value}
    draft, plain = parse(row), parse({"prompt": "q", "response": "a"})
    assert draft == plain
    for key in ("group", "category"):
        with pytest.raises(RowError, match="tags: expected text or a number, found a"):
            parse({**row, "tags": value}, Data.model_validate({"source": "x", key: "tags"}))


def test_true_and_false_are_names() -> None:
    draft = parse({"prompt": "q", "response": "a", "id": True, "group": False, "category": True})
    assert (draft.id, draft.group, draft.category) == ("true", "false", "true")


def test_what_the_experiment_adds_is_no_part_of_what_a_row_says() -> None:
    row = {"prompt": "q", "response": "a"}
    assert parse(row, PROMPT).content == parse(row).content


def test_a_giant_conversation_is_read_in_one_pass() -> None:
    talk = turns(*[f"{role}: x" for _ in range(8000) for role in ("user", "assistant")])
    start = time.process_time()
    (answer,) = parse({"messages": talk}, Data(source="x", turns="last")).answers
    assert len(answer.messages) == 15999
    assert len(parse({"messages": talk[:6000]}).answers) == 3000
    assert time.process_time() - start < 2


def test_names_may_be_numbers_and_blank_ones_are_absent() -> None:
    row = {"prompt": "q", "response": "a", "id": 7, "doc": 1.5, "kind": "", "group": "unused"}
    draft = parse(row, Data(source="x", group="doc", category="kind"))
    assert (draft.id, draft.group, draft.category) == ("7", "1.5", "all")


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": " ", "response": ""},
        {"prompt": "q", "references": [""]},
        {"messages": turns("user: a", "user: b", "assistant: c")},
        {"messages": turns("assistant: a", "user: b", "assistant: c")},
        {"messages": turns("user: a", "system: b", "assistant: c")},
        {"text": ""},
    ],
)
def test_what_is_only_doubtful_is_read(row: dict[str, Any]) -> None:
    (answer,) = parse(row).answers
    assert answer.references in (("",), ("c",))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": 3, "references": ["y"]}, "prompt: expected text, found a number"),
        ({"prompt": "x", "references": []}, "references: expected a list of one or more texts"),
        ({"prompt": "x", "references": "y"}, "references: expected a list, found text"),
        ({"prompt": "x", "references": {}}, "references: expected a list, found an object"),
        ({"prompt": "x", "references": ["y", None]}, r"references\[1\]: expected text, found null"),
        ({"prompt": "x", "response": False}, "response: expected text, found true or false"),
        ({"prompt": "x", "response": "y", "references": []}, "references: expected a list of one or more"),
        ({"prompt": "x", "response": "y", "group": float("nan")}, "group: expected text or a number"),
        ({"prompt": "x", "response": "y", "source": 3}, "source: expected text, found a number"),
        ({"messages": []}, "expected the assistant's turn at the end, found no turn"),
        ({"messages": "hi"}, "messages: expected a list, found text that is none"),
        ({"messages": [3]}, r"messages\[0\]: expected an object, found a number"),
        ({"messages": [{"role": "user"}]}, r"messages\[0\]: expected the field 'content', found role"),
        ({"messages": [{"role": "user", "content": None}]}, r"messages\[0\]: content: expected text, found null"),
        ({"messages": turns("user: x", "tool: y", "assistant: z")}, r"messages\[1\]: .* found 'tool'"),
        ({"messages": turns("user: x", "user: y")}, "at the end, found the user's turn"),
        ({"messages": turns("system: x", "assistant: y")}, "expected a user's turn before the answer"),
        ({"conversations": shared("human: x", "function_call: y")}, "found 'function_call'"),
        ({"instruction": "x", "output": "y", "input": 3}, "input: expected text, found a number"),
        ({"instruction": "x", "output": "y", "history": [["q"]]}, r"history\[0\]: expected a question and its answer"),
        ({"instruction": "x", "output": "y", "history": "[1"}, "history: expected a list, found text that is none"),
    ],
)
def test_malformed_rows_say_what_was_expected(row: dict[str, Any], message: str) -> None:
    with pytest.raises(RowError, match=message):
        parse(row)


def test_a_missing_field_lists_those_that_are_there() -> None:
    with pytest.raises(RowError, match="expected the field 'response', found prompt, answer"):
        Parser(PLAIN, LAYOUTS["prompt-response"])({"prompt": "x", "answer": "y"})


def test_no_known_fields_are_no_format() -> None:
    assert format_of({"prompt": "x"}) is None
    assert format_of({"text": None}) is None


NAMES = [
    "messages",
    "conversations",
    "instruction",
    "input",
    "output",
    "history",
    "prompt",
    "completion",
    "response",
    "references",
    "text",
    "chosen",
    "rejected",
    "code",
    "test_list",
    "tests",
    "system",
    "source",
    "id",
    "group",
    "category",
    "role",
    "content",
    "from",
    "value",
]
TEXTS = ["user", "assistant", "system", "human", "gpt", "tool", " ", "[]", '["x"]', '[{"role": "user", "content": ""}]']
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(TEXTS) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from([*NAMES, ""]), inner, max_size=3),
    max_leaves=12,
)
chat = st.lists(
    st.fixed_dictionaries({"role": st.sampled_from(TEXTS), "content": st.text(max_size=3)})
    | st.fixed_dictionaries({"from": st.sampled_from(TEXTS), "value": st.text(max_size=3)}),
    max_size=5,
)


@given(
    row=st.dictionaries(st.sampled_from([*NAMES, ""]), values | chat),
    shape=st.sampled_from(list(LAYOUTS)),
    how=st.sampled_from(["all", "last"]),
)
def test_any_row_in_any_format_is_a_draft_or_a_fault(row: dict[str, Any], shape: RowFormat, how: str) -> None:
    try:
        draft = Parser(Data.model_validate({"source": "x", "turns": how}), LAYOUTS[shape])(row)
    except RowError as error:
        assert str(error).isprintable()
    else:
        assert draft.group
        assert draft.category
        assert draft.answers
        assert how == "all" or len(draft.answers) == 1
        for answer in draft.answers:
            assert answer.references
            assert (shape == "text") == (not answer.messages)
            assert shape == "text" or "user" in [turn.role for turn in answer.messages]


HUMAN = "\n\nHuman: q\n\nAssistant: a\n\nHuman: r\n\nAssistant: "
TALK = turns(*SAME[1:4])


@pytest.mark.parametrize(
    "row",
    [
        {"chosen": HUMAN + "b", "rejected": HUMAN + " c"},
        {"prompt": TALK, "chosen": "b", "rejected": "c"},
        {"prompt": TALK, "chosen": turns("assistant: b"), "rejected": turns("assistant: c")},
        {"prompt": "q", "chosen": [*TALK, *turns("assistant: b")], "rejected": [*TALK, *turns("assistant: c")]},
        {"prompt": TALK, "chosen": [*TALK, *turns("assistant: b")], "rejected": [*TALK, *turns("assistant: c")]},
        {"chosen": [*TALK, *turns("assistant: b")], "rejected": [*TALK, *turns("assistant: c")], "messages": TALK},
    ],
)
def test_a_pair_of_conversations_in_every_shape(row: dict[str, Any]) -> None:
    assert format_of(row) == "preference"
    draft = parse(row)
    (answer,) = draft.answers
    assert (said(answer.messages), answer.references) == (SAME[1:4], ("b",))
    assert (draft.rejected, answer.source) == (("c",), "r")
    assert parse({**row, "system": "s"}).answers[0].messages[0] == Message("system", "s")


@pytest.mark.parametrize("side", [str, lambda text: turns(f"assistant: {text}")])
def test_a_prompt_of_a_pair_is_put_in_its_place(side: Any) -> None:
    draft = parse({"prompt": "q", "chosen": side("b"), "rejected": side("c")}, PROMPT)
    (answer,) = draft.answers
    assert said(answer.messages) == ["system: Be brief.", "user: Correct: q"]
    assert (answer.references, answer.source, draft.rejected) == (("b",), "q", ("c",))


def test_pairs_with_another_rejected_answer_are_other_rows() -> None:
    one, other = (parse({"prompt": "q", "chosen": "b", "rejected": text}) for text in "cd")
    assert one.content != other.content
    assert one.group == other.group


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": "q", "chosen": "b"}, "expected the field 'rejected', found prompt, chosen"),
        ({"prompt": "q", "chosen": "b", "rejected": None}, "rejected: expected text, found null"),
        ({"prompt": "q", "chosen": "b", "rejected": "b"}, "rejected: expected another answer than the chosen one"),
        ({"prompt": "q", "chosen": "b", "rejected": "c", "references": ["c"]}, "expected another answer"),
        ({"prompt": "q", "chosen": "b", "rejected": turns("assistant: c")}, "rejected: expected text, found a list"),
        ({"chosen": "b", "rejected": "c"}, "chosen: expected a text that begins with 'Human:'"),
        ({"chosen": HUMAN + "b", "rejected": HUMAN + "b"}, "expected another answer"),
        ({"chosen": HUMAN + "b", "rejected": HUMAN.replace("r", "x") + "c"}, "found another as turn 3"),
        ({"chosen": HUMAN + "b", "rejected": "\n\nHuman: q\n\nAssistant: c"}, "found another as turn 2"),
        (
            {"chosen": HUMAN + "b", "rejected": HUMAN + "c\n\nHuman: x"},
            "rejected: expected the assistant's turn at the",
        ),
        ({"chosen": [], "rejected": []}, "expected the assistant's turn at the end"),
        ({"chosen": turns("assistant: a"), "rejected": turns("assistant: b")}, "expected a user's turn before"),
    ],
)
def test_malformed_pairs_say_what_was_expected(row: dict[str, Any], message: str) -> None:
    with pytest.raises(RowError, match=message):
        Parser(PLAIN, LAYOUTS["preference"])(row)


MBPP = {"text": "Double it.", "code": "def f(x): return 2*x", "test_list": ["assert f(1) == 2"], "test_setup_code": ""}
HUMANEVAL = {
    "prompt": 'def f(x):\n    """Double it."""\n',
    "canonical_solution": "    return 2 * x\n",
    "test": "def check(candidate):\n    assert candidate(1) == 2\n",
    "entry_point": "f",
}


def test_programs_bring_their_tests() -> None:
    assert format_of(MBPP) == "mbpp"
    draft = parse({**MBPP, "test_setup_code": "import math"})
    (answer,) = draft.answers
    assert draft.tests == "import math\nassert f(1) == 2"
    assert said(answer.messages) == ["user: Double it.\nThe code must pass:\nassert f(1) == 2"]
    assert format_of(HUMANEVAL) == "humaneval"
    draft = parse(HUMANEVAL)
    assert draft.answers[0].references == (HUMANEVAL["prompt"] + HUMANEVAL["canonical_solution"],)
    before, after = around_answer(draft.tests or "")
    assert before == HUMANEVAL["prompt"]
    assert after.endswith("check(f)\n")
    asked = {"prompt": "q", "response": "a"}
    assert parse({**asked, "tests": "assert f()"}).tests == "assert f()"
    assert parse({**asked, "tests": "assert f()"}).content != parse(asked).content
    assert parse({**asked, "tests": ["not", "ours"]}) == parse(asked)
    assert around_answer("assert f()") == ("", "assert f()")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({**MBPP, "test_list": []}, "test_list: expected tests, found none"),
        ({**MBPP, "test_list": [1]}, r"test_list\[0\]: expected text, found a number"),
        ({**MBPP, "test_list": "x"}, "test_list: expected a list"),
        ({**MBPP, "test_list": ["assert f(1) =="]}, "test_list: expected Python code, found a fault"),
        ({**HUMANEVAL, "test": 3}, "test: expected text, found a number"),
        ({"prompt": "q", "response": "a", "tests": "x +"}, "tests: expected Python code"),
    ],
)
def test_malformed_tests_say_what_was_expected(row: dict[str, Any], message: str) -> None:
    with pytest.raises(RowError, match=message):
        parse(row)


def test_examples_keep_pairs_and_tests_and_others_keep_their_rows() -> None:
    plain = Example("e", (Message("user", "q"),), ("a",), "q", "g")
    assert list(plain.as_row()) == ["id", "messages", "references", "source", "group", "category"]
    for example in (plain, replace(plain, rejected=("b", "c")), replace(plain, tests="assert f()")):
        assert Example.from_row(json.loads(json.dumps(example.as_row()))) == example


def test_files_of_pairs_and_programs_become_examples(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    pair = {"prompt": "q", "chosen": "b", "rejected": "c"}
    path.write_text(json.dumps(pair) + "\n" + json.dumps({**pair, "rejected": "b"}) + "\n")
    loaded = read_parts(Data(source="x", on_bad_row="skip"), str(path))["all"]
    assert [example.rejected for example in loaded.examples] == [("c",)]
    assert (loaded.summary.format, len(loaded.summary.skipped), loaded.summary.unused) == ("preference", 1, ())
    with pytest.raises(UserError, match=r"rows.jsonl:2: rejected: expected another answer"):
        read_parts(PLAIN, str(path))
    path.write_text(json.dumps(MBPP))
    assert [example.tests for example in read_parts(PLAIN, str(path))["all"].examples] == ["assert f(1) == 2"]
