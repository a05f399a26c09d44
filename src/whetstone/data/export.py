"""Examples become files: every format for single answers, as JSON lines, JSON, CSV, TSV or Parquet.

Reading such a file back (each conversation as one example, ``data.turns: last``) gives equal examples. What a format
cannot hold is an error that names the example, never a silent loss; only a source of one word is not known again in a
question more than twice as long. Files are streamed, and whole or absent.
"""

import contextlib
import csv
import gzip
import io
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from whetstone.data.example import Example, Message
from whetstone.errors import UserError
from whetstone.files import replacing
from whetstone.source_name import data_suffix

__all__ = [
    "EXPORT_FORMATS",
    "ExportFormat",
    "ReferenceChoice",
    "check_file_name",
    "export_rows",
    "fitting_format",
    "write_examples",
]

ExportFormat = Literal[
    "messages", "sharegpt", "alpaca", "prompt-completion", "prompt-response", "prompt-references", "text"
]
EXPORT_FORMATS: tuple[ExportFormat, ...] = get_args(ExportFormat)

ReferenceChoice = Literal["all", "first"]
"""Every reference of an example, in a row of its own where the format holds one answer; or only the first."""

_COLUMNS: Mapping[ExportFormat, tuple[str, ...]] = {
    "messages": ("messages", "references"),
    "sharegpt": ("conversations",),
    "alpaca": ("instruction", "input", "output", "system", "history"),
    "prompt-completion": ("system", "prompt", "completion"),
    "prompt-response": ("system", "prompt", "response"),
    "prompt-references": ("system", "prompt", "references"),
    "text": ("text",),
}
_ABOUT = ("id", "group", "category", "source")
_SHAREGPT_NAMES = {"system": "system", "user": "human", "assistant": "gpt"}
_ANSWER_FIELD = {"prompt-completion": "completion", "prompt-response": "response", "prompt-references": "references"}
_FILES = ".jsonl, .json, .csv, .tsv (also with .gz or .zst) and .parquet"
_BATCH_ROWS = 4096

Row = dict[str, Any]


def write_examples(
    path: Path, examples: Iterable[Example], to: ExportFormat, references: ReferenceChoice = "all"
) -> int:
    """Writes examples to a file whose name says how.

    Args:
        path: Where; an existing file is replaced once the new one is whole.
        examples: They are taken one by one.
        to: The shape of the rows.
        references: Which answers to write.

    Returns:
        How many rows were written.

    Raises:
        UserError: The name says no format, the file cannot be written, or an example does not fit the format.
    """
    kind = check_file_name(path)
    rows = _Counted(row for example in examples for row in export_rows(example, to, references))
    with replacing(path) as partial:
        if kind == ".parquet":
            _write_parquet(partial, rows, to)
            return rows.count
        with _opened(partial, path.suffix.lower()) as text:
            if kind in (".csv", ".tsv"):
                _write_table(text, rows, to, delimiter="," if kind == ".csv" else "\t")
            else:
                _write_json(text, rows, as_list=kind == ".json")
        return rows.count


def check_file_name(path: Path) -> str:
    """The suffix that says how a file is written.

    Raises:
        UserError: There is no writer for it.
    """
    kind = data_suffix(path)
    if kind in ("", ".txt") or (kind == ".parquet" and path.suffix.lower() != kind):
        raise UserError(f"{path}: cannot tell from the name how to write it; end it in {_FILES}")
    return kind


def fitting_format(examples: Iterable[Example]) -> ExportFormat:
    """The plainest format that holds examples whole, with all their references."""
    bare = True
    for example in examples:
        if not example.messages:
            return "text"
        bare = bare and [(turn.role, turn.content) for turn in example.messages] == [("user", example.source)]
    return "prompt-references" if bare else "messages"


def export_rows(example: Example, to: ExportFormat, references: ReferenceChoice = "all") -> list[Row]:
    """The rows of one example: one, or one for each reference where the format holds a single answer.

    Raises:
        UserError: The example does not fit the format.
    """
    if (to == "text") != (not example.messages):
        held, fit = ("a prompt", "messages") if example.messages else ("no prompt, only a text", "text")
        raise UserError(f"example '{example.id}': has {held}, which {to} cannot hold; use the format {fit}")
    if example.rejected or example.tests is not None:
        held = "a rejected answer" if example.rejected else "tests"
        raise UserError(f"example '{example.id}': has {held}, which {to} cannot hold; use the file that it is from")
    answers = example.references if references == "all" else example.references[:1]
    if to == "text":
        return [{"text": answers[0], **_about(example, 1)}]
    if to in ("messages", "prompt-references"):
        return [{**_shaped(example, to, answers), **_about(example, 1)}]
    return [{**_shaped(example, to, (answer,)), **_about(example, number)} for number, answer in enumerate(answers, 1)]


def _about(example: Example, number: int) -> Row:
    """What every format may hold; the rows of further references get ids of their own, and the same group."""
    name = example.id if number == 1 else f"{example.id}-ref{number}"
    about = {"id": name, "group": example.group, "category": example.category}
    return {**about, "source": example.source} if example.messages else about


def _shaped(example: Example, to: ExportFormat, answers: Sequence[str]) -> Row:
    match to:
        case "messages":
            turns = [*example.messages, Message("assistant", answers[0])]
            row: Row = {"messages": [turn.as_dict() for turn in turns]}
            return {**row, "references": list(answers[1:])} if len(answers) > 1 else row
        case "sharegpt":
            turns = [*example.messages, Message("assistant", answers[0])]
            return {"conversations": [{"from": _SHAREGPT_NAMES[turn.role], "value": turn.content} for turn in turns]}
        case "alpaca":
            return _alpaca(example, answers[0])
        case _:
            return _prompted(example, to, answers)


def _alpaca(example: Example, answer: str) -> Row:
    """Instruction and input are told apart where the user's turn ends with the source on a line of its own."""
    system, history, turn = _spoken(example, "alpaca")
    pairs = list(zip(history[::2], history[1::2], strict=False))
    if len(history) % 2 or any((one.role, other.role) != ("user", "assistant") for one, other in pairs):
        raise _unfit(example, "alpaca", "earlier turns that are no pairs of question and answer", "messages")
    instruction, line, source = turn.rpartition(f"\n{example.source}")
    splits = bool(line) and not source and bool(example.source.strip()) and bool(instruction.strip())
    row: Row = {"instruction": instruction if splits else turn, "input": example.source if splits else ""}
    row["output"] = answer
    if system:
        row["system"] = system
    if pairs:
        row["history"] = [[one.content, other.content] for one, other in pairs]
    return row


def _prompted(example: Example, to: ExportFormat, answers: Sequence[str]) -> Row:
    system, history, turn = _spoken(example, to)
    if history:
        raise _unfit(example, to, "several turns", "messages")
    row: Row = {"system": system} if system else {}
    return {**row, "prompt": turn, _ANSWER_FIELD[to]: list(answers) if to == "prompt-references" else answers[0]}


def _spoken(example: Example, to: ExportFormat) -> tuple[str, Sequence[Message], str]:
    """The system turn ("" for none), the earlier turns, and the user's turn to be answered."""
    first, last = example.messages[0], example.messages[-1]
    has_system = first.role == "system"
    history = example.messages[has_system:-1]
    if last.role != "user":
        raise _unfit(example, to, f"a prompt that ends with the {last.role}'s turn", "messages")
    if any(turn.role == "system" for turn in history):
        raise _unfit(example, to, "a system turn inside the conversation", "messages")
    if has_system and not first.content.strip():
        raise _unfit(example, to, "a blank system turn", "messages")
    return first.content if has_system else "", history, last.content


def _unfit(example: Example, to: ExportFormat, held: str, fit: ExportFormat) -> UserError:
    return UserError(f"example '{example.id}': has {held}, which {to} cannot hold; use the format {fit}")


class _Counted:
    """Rows on their way, counted."""

    def __init__(self, rows: Iterable[Row]) -> None:
        self._rows = rows
        self.count = 0

    def __iter__(self) -> Iterator[Row]:
        for row in self._rows:
            self.count += 1
            yield row


def _write_json(text: io.TextIOWrapper, rows: Iterable[Row], *, as_list: bool) -> None:
    text.write("[" if as_list else "")
    for number, row in enumerate(rows):
        if as_list:
            text.write(",\n" if number else "\n")
        text.write(json.dumps(row, ensure_ascii=False, allow_nan=False))
        text.write("" if as_list else "\n")
    text.write("\n]\n" if as_list else "")


def _write_table(text: io.TextIOWrapper, rows: Iterable[Row], to: ExportFormat, *, delimiter: str) -> None:
    """A cell holds a text as it is and a list as JSON."""
    writer = csv.DictWriter(text, _columns(to), restval="", delimiter=delimiter)
    writer.writeheader()
    for row in rows:
        writer.writerow({key: value if isinstance(value, str) else _json(value) for key, value in row.items()})


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _write_parquet(path: Path, rows: Iterable[Row], to: ExportFormat) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    nested = {
        "messages": pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())])),
        "conversations": pa.list_(pa.struct([("from", pa.string()), ("value", pa.string())])),
        "references": pa.list_(pa.string()),
        "history": pa.list_(pa.list_(pa.string())),
    }
    schema = pa.schema([(name, nested.get(name, pa.string())) for name in _columns(to)])
    stream = iter(rows)
    with parquet.ParquetWriter(path, schema) as writer:
        while batch := list(itertools.islice(stream, _BATCH_ROWS)):
            writer.write_table(pa.Table.from_pylist(batch, schema))


def _columns(to: ExportFormat) -> list[str]:
    return [*_COLUMNS[to], *(name for name in _ABOUT if to != "text" or name != "source")]


@contextlib.contextmanager
def _opened(path: Path, suffix: str) -> Iterator[io.TextIOWrapper]:
    """A file to write, compressed as the suffix says; the same rows always give the same bytes."""
    match suffix:
        case ".gz":
            with (
                path.open("wb") as file,
                gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0) as stream,
                io.TextIOWrapper(stream, encoding="utf-8", newline="") as text,
            ):
                yield text
        case ".zst":
            import pyarrow

            with (
                pyarrow.CompressedOutputStream(str(path), "zstd") as stream,
                io.TextIOWrapper(stream, encoding="utf-8", newline="") as text,
            ):
                yield text
        case _:
            with path.open("w", encoding="utf-8", newline="") as text:
                yield text
