"""What is written reads back as it was, in every format and every kind of file."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from whetstone.data.example import Example, Message
from whetstone.data.export import EXPORT_FORMATS, ExportFormat, export_rows, fitting_format, write_examples
from whetstone.data.sources import read_parts
from whetstone.data_section import Data, RowFormat
from whetstone.errors import UserError

SUFFIXES = (".jsonl", ".json", ".csv", ".tsv", ".parquet", ".jsonl.gz", ".csv.zst", ".json.zst")
ASKED = Example(
    id="007",
    messages=(Message("user", 'Correct:\nHe go, "now".\nAgain\tand'),),
    references=("He goes.", "He went\r\nhome."),
    source="He go",
    group="1",
    category="verb, form",
)
BRIEF = Example(
    id="b", messages=(Message("system", "Be brief."), Message("user", "Hi")), references=("Ho",), source="Hi", group="g"
)
TALK = Example(
    id="c",
    messages=(
        Message("system", "Be brief."),
        Message("user", "Hi"),
        Message("assistant", "Hello"),
        Message("user", "Correct:\nHe go."),
    ),
    references=("He goes.",),
    source="He go.",
    group="g",
)
TEXT = Example(id="t", messages=(), references=("Some, text\nand\tmore",), source="Some, text\nand\tmore", group="g")


def held_by(to: ExportFormat) -> list[Example]:
    """Examples that the format holds whole."""
    if to == "text":
        return [TEXT]
    return [ASKED, BRIEF, TALK] if to in ("messages", "sharegpt", "alpaca") else [ASKED, BRIEF]


def read_back(path: Path, to: ExportFormat) -> tuple[Example, ...]:
    loaded = read_parts(Data(source=str(path), turns="last"), str(path))["all"]
    assert loaded.summary.format == to
    return loaded.examples


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("to", EXPORT_FORMATS)
def test_examples_read_back_equal(to: ExportFormat, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"made{suffix}"
    examples = [replace(example, references=example.references[:1]) for example in held_by(to)]
    assert write_examples(path, examples, to, "first") == len(examples)
    assert read_back(path, to) == tuple(examples)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("to", ["messages", "prompt-references"])
def test_formats_with_room_for_them_keep_every_reference_in_one_row(to: ExportFormat, tmp_path: Path) -> None:
    for suffix in SUFFIXES:
        assert write_examples(tmp_path / f"made{suffix}", [ASKED], to) == 1
        assert read_back(tmp_path / f"made{suffix}", to) == (ASKED,)


@pytest.mark.parametrize("to", ["sharegpt", "alpaca", "prompt-completion", "prompt-response"])
def test_formats_with_one_answer_get_a_row_for_each_reference_in_the_same_group(
    to: ExportFormat, tmp_path: Path
) -> None:
    assert write_examples(tmp_path / "made.jsonl", [ASKED], to) == 2
    first, second = read_back(tmp_path / "made.jsonl", to)
    assert first == replace(ASKED, references=ASKED.references[:1])
    assert second == replace(ASKED, id="007-ref2", references=ASKED.references[1:])


TEXTS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20).filter(lambda text: text.strip())
# One word in a long question would be taken for the name of a place.
SOURCES = st.tuples(TEXTS, TEXTS).map(" ".join)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(
    triples=st.lists(st.tuples(TEXTS, TEXTS, SOURCES), min_size=1, max_size=4),
    suffix=st.sampled_from((".jsonl", ".json", ".csv")),
)
def test_any_text_survives(triples: list[tuple[str, str, str]], suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"made{suffix}"
    examples = tuple(
        Example(f"e{number}", (Message("user", f"{prompt}{source}"),), (answer,), source, "g")
        for number, (prompt, answer, source) in enumerate(triples)
    )
    formats: tuple[ExportFormat, ...] = ("messages", "alpaca", "prompt-references")
    for to in formats:
        write_examples(path, examples, to)
        assert read_back(path, to) == examples


def test_alpaca_tells_instruction_from_input() -> None:
    (row,) = export_rows(TALK, "alpaca")
    assert (row["instruction"], row["input"]) == ("Correct:", "He go.")
    assert row["history"] == [["Hi", "Hello"]]
    assert row["system"] == "Be brief."


@pytest.mark.parametrize(
    ("example", "to", "message"),
    [
        (TALK, "prompt-response", "example 'c': has several turns, which prompt-response cannot hold; use .* messages"),
        (TALK, "prompt-completion", "several turns"),
        (TEXT, "messages", "example 't': has no prompt, only a text, which messages cannot hold; use the format text"),
        (BRIEF, "text", "example 'b': has a prompt, which text cannot hold; use the format messages"),
        (replace(TALK, messages=TALK.messages[2:]), "alpaca", "earlier turns that are no pairs"),
        (replace(TALK, messages=TALK.messages[1:3]), "alpaca", "ends with the assistant's turn"),
        (replace(TALK, messages=TALK.messages[::-1]), "prompt-response", "ends with the system's turn"),
    ],
)
def test_what_a_format_cannot_hold_is_refused_with_a_format_that_can(
    example: Example, to: ExportFormat, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        export_rows(example, to)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_file_is_whole_or_absent(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"made{suffix}"
    path.write_text("old")

    def broken() -> Iterator[Example]:
        yield ASKED
        raise RuntimeError("torn")

    with pytest.raises(RuntimeError, match="torn"):
        write_examples(path, broken(), "messages")
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_the_same_examples_give_the_same_bytes(tmp_path: Path) -> None:
    for suffix in (".jsonl.gz", ".jsonl.zst", ".parquet"):
        write_examples(tmp_path / f"one{suffix}", [ASKED], "messages")
        write_examples(tmp_path / f"other{suffix}", [ASKED], "messages")
        assert (tmp_path / f"one{suffix}").read_bytes() == (tmp_path / f"other{suffix}").read_bytes()


@pytest.mark.parametrize("name", ["made.txt", "made", "made.xlsx", "made.parquet.gz"])
def test_a_name_that_says_no_format_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"end it in \.jsonl, \.json"):
        write_examples(tmp_path / name, [ASKED], "messages")


def test_a_folder_that_cannot_be_made_is_a_user_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        write_examples(tmp_path / "file" / "made.jsonl", [ASKED], "messages")


def test_json_files_are_json(tmp_path: Path) -> None:
    path = tmp_path / "made.json"
    for examples in ([], [ASKED], [ASKED, BRIEF]):
        write_examples(path, examples, "messages")
        assert len(json.loads(path.read_text(encoding="utf-8"))) == len(examples)


@pytest.mark.parametrize(
    ("examples", "to"),
    [
        ([replace(ASKED, source=ASKED.messages[0].content)], "prompt-references"),
        ([ASKED], "messages"),
        ([BRIEF], "messages"),
        ([TEXT], "text"),
    ],
)
def test_the_plainest_fitting_format(examples: list[Example], to: str) -> None:
    assert fitting_format(examples) == to


def test_every_format_for_single_answers_is_written() -> None:
    assert get_args(RowFormat) == (*EXPORT_FORMATS, "preference", "mbpp", "humaneval")


@pytest.mark.parametrize("example", [replace(ASKED, rejected=("no",)), replace(ASKED, tests="assert f()")])
def test_pairs_and_tests_are_not_lost_silently(example: Example) -> None:
    with pytest.raises(UserError, match="which messages cannot hold"):
        export_rows(example, "messages")
