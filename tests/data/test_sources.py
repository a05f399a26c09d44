"""Reading examples: what is accepted, and how a malformed row is named."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whetstone.data.sources import read_jsonl_source, read_parallel_source
from whetstone.data_section import Data, ParallelSource
from whetstone.errors import UserError

PROMPT = Data(source="unused.jsonl", prompt="Correct: {source}", system="Be brief.")


def parallel(tmp_path: Path, *columns: str) -> ParallelSource:
    paths = []
    for index, column in enumerate(columns):
        path = tmp_path / f"column{index}"
        path.write_text(column)
        paths.append(str(path))
    return ParallelSource(src=paths[0], refs=tuple(paths[1:]))


def rows(tmp_path: Path, *lines: object) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return path


def test_parallel_lines_become_examples(tmp_path: Path) -> None:
    source = parallel(tmp_path, "he go\nshe runs\nhe go\n", "he goes\nshe runs\nhe went\n", "he goes\n\nhe goes\n")
    first, second, third = read_parallel_source(PROMPT, source)
    assert [turn.content for turn in first.messages] == ["Be brief.", "Correct: he go"]
    assert first.source == "he go"
    assert first.references == ("he goes",)
    assert second.references == ("she runs",)
    assert third.references == ("he went", "he goes")
    assert first.group == third.group != second.group
    assert len({first.id, second.id, third.id}) == 3


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (("a\nb\n", "a\n"), "column1: 1 lines, but .*column0 has 2"),
        (("a\n\nc\n", "a\nb\nc\n"), "column0:2: the line is blank"),
        (("a\nb\n", "a\n\n"), "column0:2: no refs file"),
        (("", ""), "column0: empty"),
    ],
)
def test_parallel_faults_name_file_and_line(tmp_path: Path, columns: tuple[str, ...], message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_parallel_source(PROMPT, parallel(tmp_path, *columns))


def test_jsonl_rows_of_both_shapes(tmp_path: Path) -> None:
    chat = [{"role": "user", "content": "2+2?"}, {"role": "assistant", "content": "4"}]
    path = rows(
        tmp_path,
        {"messages": chat, "references": ["four", "4"], "category": "sums"},
        {"prompt": "he go", "references": ["he goes"], "id": "x1", "group": "g"},
    )
    talk, question = read_jsonl_source(PROMPT, path)
    assert [turn.role for turn in talk.messages] == ["system", "user"]
    assert talk.references == ("4", "four")
    assert (talk.source, talk.category) == ("2+2?", "sums")
    assert question.messages[-1].content == "Correct: he go"
    assert (question.id, question.group, question.source) == ("x1", "g", "he go")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", ":2: expected one JSON object"),
        ("[]", ":2: expected a JSON object, found list"),
        ({"text": "x"}, ":2: expected 'messages', or 'prompt' and 'references'; found text"),
        ({"prompt": "x"}, ":2: expected 'messages', or"),
        ({"prompt": 3, "references": ["y"]}, ":2: prompt: expected text, found int"),
        ({"prompt": " ", "references": ["y"]}, ":2: prompt: the text is blank"),
        ({"prompt": "x", "references": []}, ":2: references: expected a list"),
        ({"prompt": "x", "references": "y"}, ":2: references: expected a list"),
        ({"prompt": "x", "references": [""]}, ":2: references: every one"),
        ({"messages": []}, ":2: messages: expected a list"),
        ({"messages": [{"role": "user"}, 3]}, r":2: messages\[0\]: content: expected text"),
        ({"messages": [{"role": "human", "content": "x"}, {}]}, r":2: messages\[0\]: expected role"),
        (
            {"messages": [{"role": "user", "content": "x"}, {"role": "user", "content": "y"}]},
            ":2: messages: the last turn must be the assistant's",
        ),
        ({"prompt": "x", "references": ["y"], "id": "same"}, ":2: id: 'same' was given"),
    ],
)
def test_jsonl_faults_name_the_line(tmp_path: Path, line: object, message: str) -> None:
    path = rows(tmp_path, {"prompt": "ok", "references": ["ok"], "id": "same"}, line)
    with pytest.raises(UserError, match=message):
        read_jsonl_source(PROMPT, path)


def test_ids_and_groups_do_not_depend_on_the_order_of_rows(tmp_path: Path) -> None:
    lines = [{"prompt": f"sentence {n}", "references": ["y"]} for n in range(20)]
    forward = {example.source: example for example in read_jsonl_source(PROMPT, rows(tmp_path, *lines))}
    backward = {example.source: example for example in read_jsonl_source(PROMPT, rows(tmp_path, *lines[::-1]))}
    assert forward == backward


@given(content=st.binary(max_size=200))
def test_arbitrary_bytes_are_examples_or_one_line(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.mktemp("any") / "rows.jsonl"
    path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        read_jsonl_source(PROMPT, path)
    assert str(path) in str(caught.value)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["role", "content"]), inner, max_size=2)
    ),
    max_leaves=8,
)


@given(row=st.dictionaries(st.sampled_from(["messages", "prompt", "references", "id", "group"]), json_values))
def test_any_json_row_is_an_example_or_one_line(tmp_path_factory: pytest.TempPathFactory, row: object) -> None:
    path = rows(tmp_path_factory.mktemp("any"), row)
    try:
        (example,) = read_jsonl_source(PROMPT, path)
    except UserError as error:
        assert f"{path}:1" in str(error)
    else:
        assert example.messages
        assert all(reference.strip() for reference in example.references)


def test_ids_stay_unique_when_a_text_looks_like_a_suffix(tmp_path: Path) -> None:
    lines = [{"prompt": text, "references": ["y"]} for text in ("x", "x", "x-2", "x-2")]
    assert len({example.id for example in read_jsonl_source(PROMPT, rows(tmp_path, *lines))}) == 4


def test_copying_the_input_means_the_text_inside_the_prompt(tmp_path: Path) -> None:
    def chat(content: str) -> dict[str, object]:
        return {"messages": [{"role": "user", "content": content}, {"role": "assistant", "content": "y"}]}

    made = read_jsonl_source(PROMPT, rows(tmp_path, chat("Correct: he go"), chat("Fix he go")))
    assert [example.source for example in made] == ["he go", "Fix he go"]


@pytest.mark.parametrize("line", ['{"prompt": "\\ud83d", "references": ["y"]}', '{"prompt": ' + "9" * 5000 + "}"])
def test_json_that_python_cannot_hold_is_one_line(tmp_path: Path, line: str) -> None:
    with pytest.raises(UserError, match=":1: expected one JSON object"):
        read_jsonl_source(PROMPT, rows(tmp_path, line))
