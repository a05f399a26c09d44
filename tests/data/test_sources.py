"""Reading sources: the same examples whatever the file, counts that are right, ids that come from content."""

import csv
import gzip
import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from whetstone.data.example import Example
from whetstone.data.sources import Loaded, ask, read_parts
from whetstone.data_section import Data, ParallelSource
from whetstone.errors import UserError
from whetstone.source_name import SUFFIXES

PROMPT = Data(source="unused.jsonl", prompt="Correct: {source}", system="Be brief.")
SKIP = Data(source="unused.jsonl", on_bad_row="skip")


def load(source: str | Path | ParallelSource, data: Data = PROMPT) -> Loaded:
    return read_parts(data, source if isinstance(source, ParallelSource) else str(source))["all"]


def write(path: Path, rows: Sequence[object]) -> Path:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def parallel(tmp_path: Path, *columns: str) -> ParallelSource:
    paths = []
    for index, column in enumerate(columns):
        path = tmp_path / f"column{index}.txt"
        path.write_bytes(column.encode("latin-1"))
        paths.append(str(path))
    return ParallelSource(src=paths[0], refs=tuple(paths[1:]))


def test_parallel_lines_become_examples(tmp_path: Path) -> None:
    source = parallel(tmp_path, "he go\nshe runs\nhe go\n", "he goes\nshe runs\nhe went\n", "he goes\n\nhe goes\n")
    loaded = load(source)
    first, second, third = loaded.examples
    assert first.messages == ask(PROMPT, "he go")
    assert [turn.content for turn in first.messages] == ["Be brief.", "Correct: he go"]
    assert first.source == "he go"
    assert [example.references for example in loaded.examples] == [("he goes",), ("she runs",), ("he went", "he goes")]
    assert first.group == third.group != second.group
    assert len({first.id, second.id, third.id}) == 3
    assert (loaded.summary.format, loaded.summary.rows) == ("parallel", 3)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (("a\nb\n", "a\n"), "column1.txt: 1 lines, but .*column0.txt has 2"),
        (("a\n\nc\n", "a\nb\nc\n"), "column0.txt:2: expected a sentence, found a blank line"),
        (("a\nb\n", "a\n\n"), "column0.txt:2: expected a text on this line of a refs file"),
        (("a\nb\n", "a\n\xff\n"), "column0.txt:2: .*column1.txt: expected UTF-8, found byte 0xff"),
        (("", ""), "column0.txt: empty"),
    ],
)
def test_parallel_faults_name_file_and_line(tmp_path: Path, columns: tuple[str, ...], message: str) -> None:
    with pytest.raises(UserError, match=message):
        load(parallel(tmp_path, *columns))


def test_bad_parallel_lines_can_be_skipped(tmp_path: Path) -> None:
    loaded = load(parallel(tmp_path, "a\n\nc\n", "a\nb\n\n"), SKIP)
    assert [example.source for example in loaded.examples] == ["a"]
    assert [row.where.rpartition(":")[2] for row in loaded.summary.skipped] == ["2", "3"]


ROWS: dict[str, list[dict[str, Any]]] = {
    "messages": [
        {
            "messages": [
                {"role": "user", "content": f"q{n} “é”\n"},
                {"role": "assistant", "content": "a, \t b"},
                {"role": "user", "content": "r"},
                {"role": "assistant", "content": ""},
            ],
            "references": ["c", "d"],
        }
        for n in range(30)
    ],
    "sharegpt": [
        {"conversations": [{"from": "human", "value": f"q{n}"}, {"from": "gpt", "value": "a"}], "category": n % 3}
        for n in range(30)
    ],
    "alpaca": [{"instruction": "x", "input": f"i{n}", "output": "y", "history": [["q", "a"]]} for n in range(30)],
    "prompt-references": [{"prompt": f"p {n}", "references": ["y", "z"], "id": n, "group": f"g{n}"} for n in range(30)],
    "prompt-response": [{"prompt": f"p,\n{n}", "response": '"y"', "source": f"s {n}"} for n in range(30)],
    "prompt-completion": [{"prompt": f"p {n}", "completion": " y"} for n in range(30)],
    "text": [{"text": f"a text, {n}"} for n in range(30)],
}


def write_table(path: Path, rows: list[dict[str, Any]], delimiter: str) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter=delimiter)
        writer.writeheader()
        for row in rows:
            writer.writerow({key: json.dumps(cell) if isinstance(cell, list) else cell for key, cell in row.items()})


def in_every_kind_of_file(folder: Path, rows: list[dict[str, Any]]) -> list[Path]:
    write(folder / "rows.jsonl", rows)
    (folder / "rows.json").write_text(json.dumps(rows, indent=1))
    (folder / "wrapped.json").write_text(json.dumps({"version": 1, "data": rows}))
    write(folder / "lines.json", rows)
    write_table(folder / "rows.csv", rows, ",")
    write_table(folder / "rows.tsv", rows, "\t")
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), folder / "rows.parquet")
    plain = sorted(folder.iterdir())
    for path in plain:
        content = path.read_bytes()
        (folder / f"{path.name}.gz").write_bytes(gzip.compress(content))
        (folder / f"{path.name}.zst").write_bytes(pyarrow.compress(content, codec="zstd", asbytes=True))
    return sorted(folder.iterdir())


@pytest.mark.parametrize("shape", ROWS)
def test_the_same_rows_give_the_same_examples_from_every_kind_of_file(tmp_path: Path, shape: str) -> None:
    paths = in_every_kind_of_file(tmp_path, ROWS[shape])
    assert len(paths) == 21
    expected = load(tmp_path / "rows.jsonl")
    assert expected.summary.format == shape
    assert expected.summary.rows == 30
    assert len({example.id for example in expected.examples}) == len(expected.examples)
    for path in paths:
        found = load(path)
        assert found.examples == expected.examples, path.name
        assert (found.summary.format, found.summary.rows, found.summary.skipped) == (shape, 30, ())


@pytest.mark.parametrize("shape", ROWS)
def test_ids_and_groups_do_not_depend_on_the_order_of_rows(tmp_path: Path, shape: str) -> None:
    rows = ROWS[shape]
    forward = load(write(tmp_path / "rows.jsonl", rows)).examples
    shuffled = load(write(tmp_path / "rows.jsonl", random.Random(0).sample(rows, len(rows)))).examples
    assert sorted(forward, key=by_id) == sorted(shuffled, key=by_id)


def by_id(example: Example) -> str:
    return example.id


def test_ids_of_one_conversation_share_a_base_and_its_group(tmp_path: Path) -> None:
    turns = [{"role": role, "content": "x"} for role in ["user", "assistant"] * 3]
    named, unnamed = [{"messages": turns, "id": "talk"}], [{"messages": turns}, {"messages": turns}]
    examples = load(write(tmp_path / "rows.jsonl", named)).examples
    assert [example.id for example in examples] == ["talk", "talk#2", "talk#3"]
    assert len({example.group for example in examples}) == 1
    ids = [example.id for example in load(write(tmp_path / "rows.jsonl", unnamed)).examples]
    assert ids[3:] == [f"{ids[0]}-2", f"{ids[0]}-2#2", f"{ids[0]}-2#3"]
    (last,) = load(write(tmp_path / "rows.jsonl", named), Data(source="x", turns="last")).examples
    assert last.id == "talk"


def test_ids_stay_unique_when_one_looks_like_a_suffix(tmp_path: Path) -> None:
    first = load(write(tmp_path / "rows.jsonl", [{"prompt": "x", "references": ["y"]}])).examples[0].id
    rows = [{"prompt": "z", "references": ["y"], "id": f"{first}-2"}, *[{"prompt": "x", "references": ["y"]}] * 3]
    ids = [example.id for example in load(write(tmp_path / "rows.jsonl", rows)).examples]
    assert ids == [f"{first}-2", first, f"{first}-3", f"{first}-4"]


def test_rows_with_one_question_have_names_that_do_not_depend_on_their_order(tmp_path: Path) -> None:
    rows = [{"prompt": "x", "references": [answer]} for answer in "abc"]
    forward, backward = (
        {example.references: example.id for example in load(write(tmp_path / "rows.jsonl", lines)).examples}
        for lines in (rows, rows[::-1])
    )
    assert forward == backward
    assert len(set(forward.values())) == 3


TALK = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
ALMOST_EQUAL: dict[str, list[dict[str, Any]]] = {
    "instruction": [{"instruction": text, "input": "i", "output": "o"} for text in ("x", "y")],
    "where the input begins": [
        {"instruction": one, "input": other, "output": "o"} for one, other in (("a", "b\nc"), ("a\nb", "c"))
    ],
    "system field": [{"prompt": "q", "response": "a", "system": text} for text in ("x", "y", "")],
    "system turn": [{"messages": [{"role": "system", "content": text}, *TALK]} for text in ("x", "y")],
    "what is learned": [{"prompt": [*TALK, *TALK][:at], "completion": [*TALK, *TALK][at:]} for at in (1, 3)],
    "references": [{"prompt": "q", "references": ["a", text]} for text in ("x", "y")],
    "source": [{"messages": TALK, "source": text} for text in ("q", "")],
    "group": [{"prompt": "q", "response": "a", "group": text} for text in ("x", "y")],
    "category": [{"prompt": "q", "response": "a", "category": text} for text in ("x", "y")],
}


@pytest.mark.parametrize("difference", ALMOST_EQUAL)
def test_only_equal_rows_are_named_by_their_order(tmp_path: Path, difference: str) -> None:
    rows = ALMOST_EQUAL[difference]
    forward, backward = (
        {example.id: example for example in load(write(tmp_path / "rows.jsonl", lines)).examples}
        for lines in (rows, rows[::-1])
    )
    assert forward == backward
    assert not any("-" in name for name in forward)


def test_an_id_may_be_given_once(tmp_path: Path) -> None:
    rows = [{"prompt": str(number), "response": "y", "id": "the same"} for number in range(2)]
    path = write(tmp_path / "rows.jsonl", rows)
    with pytest.raises(UserError, match=":2: id: 'the same' was given to an earlier row"):
        load(path)
    assert [row.where for row in load(path, SKIP).summary.skipped] == [f"{path}:2"]


def test_rows_of_two_formats_must_be_told_apart(tmp_path: Path) -> None:
    rows = [{"prompt": "x", "response": "y"}, {}, {"text": "z"}]
    path = write(tmp_path / "rows.jsonl", rows)
    with pytest.raises(UserError, match=r":3: a text row, but .*:1 is prompt-response; set data\.format"):
        load(path, SKIP)
    loaded = load(path, Data(source="x", format="text", on_bad_row="skip"))
    assert [example.source for example in loaded.examples] == ["z"]
    assert [row.where for row in loaded.summary.skipped] == [f"{path}:1", f"{path}:2"]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "rows.jsonl: no rows"),
        (["", " "], "rows.jsonl: no rows"),
        (["{"], ":1: expected one JSON object a line"),
        ([{"ask": "x"}], ":1: expected the fields of a format, found ask; rename them to one of: messages; conv"),
        ([{"prompt": 1, "response": "x"}], "none of the 1 rows can be used; .*:1: prompt: expected text"),
    ],
)
def test_nothing_to_use_is_an_error_even_when_skipping(tmp_path: Path, rows: list[object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        load(write(tmp_path / "rows.jsonl", rows), SKIP)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["prompt", "response", "text"]), inner, max_size=3)
    ),
    max_leaves=6,
)
good_rows = st.fixed_dictionaries({"prompt": st.text(max_size=5), "response": st.text(max_size=5)})


@given(rows=st.lists(good_rows | json_values, max_size=12), indent=st.none() | st.just(1))
def test_counts_are_right_whatever_the_rows(
    tmp_path_factory: pytest.TempPathFactory, rows: list[Any], indent: int | None
) -> None:
    """A row is good exactly when it is an object with a text as prompt and as response."""
    folder = tmp_path_factory.mktemp("any")
    good = [
        row for row in rows if isinstance(row, dict) and all(type(row.get(k)) is str for k in ("prompt", "response"))
    ]
    (folder / "rows.json").write_text(json.dumps(rows, indent=indent))
    for path in (write(folder / "rows.jsonl", [json.dumps(row) for row in rows]), folder / "rows.json"):
        skip = Data(source="x", format="prompt-response", on_bad_row="skip")
        stop = Data(source="x", format="prompt-response")
        if not good:
            with pytest.raises(UserError, match=str(path)):
                load(path, skip)
            continue
        loaded = load(path, skip)
        assert [(example.source, example.references[0]) for example in loaded.examples] == [
            (row["prompt"], row["response"]) for row in good
        ]
        assert (loaded.summary.rows, loaded.summary.examples) == (len(rows), len(good))
        assert len(loaded.summary.skipped) == len(rows) - len(good)
        if len(good) == len(rows):
            assert load(path, stop).examples == loaded.examples
        else:
            first = loaded.summary.skipped[0]
            with pytest.raises(UserError) as caught:
                load(path, stop)
            assert str(caught.value) == f"{first.where}: {first.reason}"


@pytest.mark.parametrize("suffix", [*SUFFIXES, ".jsonl.gz", ".csv.zst"])
@given(content=st.binary(max_size=120), policy=st.sampled_from(["stop", "skip"]))
def test_any_bytes_are_examples_or_one_line(
    tmp_path_factory: pytest.TempPathFactory, suffix: str, content: bytes, policy: str
) -> None:
    path = tmp_path_factory.mktemp("any") / f"rows{suffix}"
    path.write_bytes(content)
    try:
        loaded = load(path, Data.model_validate({"source": "x", "on_bad_row": policy}))
    except UserError as error:
        assert str(path) in str(error)
        assert str(error).isprintable()
    else:
        assert suffix in (".txt", ".csv", ".tsv")
        assert loaded.summary.rows == loaded.summary.examples + len(loaded.summary.skipped)


@pytest.mark.parametrize("key", ["group", "category"])
def test_a_field_that_no_row_has_is_a_misspelt_one(tmp_path: Path, key: str) -> None:
    rows = [{"text": "x"}] * 20 + [{"text": "x", "document": 1}]
    path = write(tmp_path / "rows.jsonl", rows)

    def named(field: str) -> Data:
        return Data.model_validate({"source": "x", key: field})

    assert len(load(path, named("document")).examples) == 21
    with pytest.raises(
        UserError, match=rf"no row has the field 'docment' that data\.{key} .* there are text, document"
    ):
        load(path, named("docment"))
    with pytest.raises(UserError, match=r"did you mean 'document'\?"):
        load(path, named("docment"))
    with pytest.raises(UserError, match="name one of these"):
        load(parallel(tmp_path, "a\n", "b\n"), named("document"))


def test_one_part_with_the_field_is_enough(tmp_path: Path) -> None:
    write(tmp_path / "train.jsonl", [{"text": "x"}])
    write(tmp_path / "test.jsonl", [{"text": "x", "kind": "y"}])
    parts = read_parts(Data(source="x", category="kind"), str(tmp_path))
    assert parts["test"].examples[0].category == "y"


@pytest.mark.parametrize(
    ("row", "unused"),
    [
        ({"text": "x", "label": 1, "source": "y", "id": None}, ("label", "source")),
        ({"prompt": "x", "response": "y", "system": "s", "source": "z", "group": "g", "score": 1}, ("score",)),
        ({"messages": TALK, "references": [""], "text": "x"}, ("text",)),
        ({"instruction": "x", "input": "", "output": "y", "history": []}, ()),
    ],
)
def test_fields_that_nothing_looks_at_are_listed(tmp_path: Path, row: dict[str, Any], unused: tuple[str, ...]) -> None:
    rows = [row] * 5 + [{**row, "late": 1}] * 20
    assert load(write(tmp_path / "rows.jsonl", rows)).summary.unused == (*unused, "late")
    rows = [row] * 10 + [{**row, "late": 1}]
    assert load(write(tmp_path / "rows.jsonl", rows)).summary.unused == unused


def test_a_name_that_no_system_has_is_one_line() -> None:
    for name in ("x" * 300 + ".jsonl", "x\0.jsonl"):
        with pytest.raises(UserError, match=r"cannot be read|no such file"):
            load(name)


def test_a_blank_system_turn_of_the_experiment_is_none() -> None:
    assert [turn.role for turn in ask(Data(source="x", system=" "), "q")] == ["user"]


def test_what_rows_share_is_held_once(tmp_path: Path) -> None:
    turns = [{"role": role, "content": "the same words"} for role in ("system", "user", "assistant")]
    rows = [{"messages": turns, "category": "a kind", "group": "a group"}] * 2
    first, second = load(write(tmp_path / "rows.jsonl", rows), Data(source="x")).examples
    assert first.messages[0] is second.messages[0]
    assert first.source is first.messages[1].content
    assert first.category is second.category
    assert first.group is second.group
