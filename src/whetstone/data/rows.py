"""Bytes on disk become raw rows: JSON lines, JSON, CSV, TSV, Parquet and plain text, each of them plain, .gz or .zst.

A file is read as a stream: no more of it is held than one row, or one chunk, needs. A malformed row comes out as a
:class:`~whetstone.data.strict_json.RowError` in its place, so that the reader of the rows decides whether to stop.
What makes the rest of a file unreadable (a broken archive, a JSON list that does not go on) is a UserError at once.
"""

import codecs
import contextlib
import csv
import gzip
import io
import json
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from whetstone.data.finding import excerpt
from whetstone.data.strict_json import Json, RowError, Walker, kind, undecoded
from whetstone.errors import UserError
from whetstone.source_name import COMPRESSIONS, SUFFIXES, data_suffix

__all__ = ["RawRow", "arrow_rows", "lines", "read_rows"]

_BUFFER_BYTES = 1 << 18
_LONGEST_CELL_CHARS = 1 << 27
_PARQUET_BATCH_ROWS = 1024
_ROW_KEYS = frozenset({"messages", "conversations", "history", "references", "prompt", "completion"})
"""Lists under these keys belong to a row; a list under any other key of a lone JSON object holds the rows."""

RawRow = tuple[str, dict[str, Any] | RowError]
"""Where a row stands (``path:line`` or ``path: row 12``), and the row or what is wrong with it."""


def read_rows(path: Path) -> Iterator[RawRow]:
    """Reads the rows of a file, which its suffix says how.

    Blank lines are not rows. In a table the first record names the columns, and every cell is text; a plain-text line
    becomes ``{"text": line}``.

    Raises:
        UserError: The file cannot be opened, its suffix is unknown, or its rest cannot be read.
    """
    match data_suffix(path):
        case ".jsonl":
            return _json_lines(path)
        case ".json":
            return _json_lines(path) if _is_json_lines(path) else _json_document(path)
        case ".csv":
            return _table(path, ",")
        case ".tsv":
            return _table(path, "\t")
        case ".parquet":
            return _parquet(path)
        case ".txt":
            return _texts(path)
        case _:
            known = ", ".join(SUFFIXES)
            raise UserError(f"{path}: expected a file that ends in {known} (or one of these with .gz or .zst)")


def lines(path: Path) -> Iterator[str | RowError]:
    """Every line of a text file, blank ones too, without its end.

    Raises:
        UserError: The file cannot be read.
    """
    with _opened(path) as stream:
        for line in io.TextIOWrapper(stream, encoding="utf-8", errors="surrogateescape"):
            yield undecoded(line) or line.removesuffix("\n")


def arrow_rows(name: str, batches: Iterable[Any]) -> Iterator[RawRow]:
    """The rows of Arrow tables or record batches, numbered from 1."""
    number = 0
    for batch in batches:
        for row in _batch_rows(batch):
            number += 1
            yield f"{name}: row {number}", row


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    """The bytes of a file, decompressed, behind a UTF-8 byte order mark; what goes wrong meanwhile is one line."""
    try:
        with path.open("rb") as raw, contextlib.closing(_decompressed(path, raw)) as stream:
            start = stream.peek(4)[:4]
            if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
                raise UserError(f"{path}: expected UTF-8, found UTF-16; save the file as UTF-8")
            if start.startswith(codecs.BOM_UTF8):
                stream.read(len(codecs.BOM_UTF8))
            yield stream
    except (OSError, EOFError, zlib.error) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else " ".join(str(error).split())
        raise UserError(f"{path}: cannot be read ({reason}); give a whole file that may be read") from None


def _decompressed(path: Path, raw: io.BufferedReader) -> io.BufferedReader:
    match path.suffix.lower():
        case ".gz":
            # A reader of its own, because GzipFile finds lines slowly.
            return io.BufferedReader(gzip.GzipFile(fileobj=raw), _BUFFER_BYTES)
        case ".zst":
            import pyarrow

            return io.BufferedReader(pyarrow.CompressedInputStream(raw, "zstd"), _BUFFER_BYTES)
        case _:
            return raw


def _is_json_lines(path: Path) -> bool:
    """Whether a .json file holds an object a line: its first line is one, and not the last line."""
    with _opened(path) as stream:
        filled = (line.strip() for line in stream if not line.isspace())
        first = next(filled, b"")
        return first.startswith(b"{") and first.endswith(b"}") and next(filled, None) is not None


def _json_lines(path: Path) -> Iterator[RawRow]:
    parser = Json()
    with _opened(path) as stream:
        for number, line in enumerate(stream, 1):
            if not line.isspace():
                yield f"{path}:{number}", _object(parser, line)


def _object(parser: Json, line: bytes) -> dict[str, Any] | RowError:
    try:
        value, _ = parser.decode(line.rstrip().decode(), whole=True)
    except UnicodeDecodeError as error:
        byte = line[error.start]
        return RowError(f"expected UTF-8, found byte 0x{byte:02x} at column {error.start + 1}; save the file as UTF-8")
    except json.JSONDecodeError as error:
        return RowError(
            f"expected one JSON object a line, found a fault at column {error.colno} ({error.msg}); mend it"
        )
    except RecursionError:
        return RowError("expected one JSON object a line, found lists or objects nested too deep; flatten them")
    return _as_row(value)


def _as_row(value: Any) -> dict[str, Any] | RowError:
    if isinstance(value, dict | RowError):
        return value
    return RowError(f"expected a JSON object, found {kind(value)}; give an object with named fields")


def _json_document(path: Path) -> Iterator[RawRow]:
    """The items of a JSON list, or of the only list in a JSON object; an object without one is itself the row."""
    with _opened(path) as stream:
        walker = Walker(io.TextIOWrapper(stream, encoding="utf-8", errors="surrogateescape"))
        try:
            opening = walker.peek()
            if opening == "[":
                yield from _items(path, walker)
            elif opening == "{":
                yield from _lone_object(path, walker)
            elif opening:
                raise ValueError(f"'{opening}'")
            if rest := walker.peek():
                raise ValueError(f"'{rest}' after its end")
        except RecursionError:
            raise UserError(f"{path}:{walker.line}: lists or objects are nested too deep; flatten them") from None
        except ValueError as error:
            found = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
            raise UserError(
                f"{path}:{walker.line}: expected a JSON list of objects, found {ascii(found)[1:-1]}; mend the file"
            ) from None


def _items(path: Path, walker: Walker) -> Iterator[RawRow]:
    walker.take("[")
    number, last_line = 0, 0
    more = walker.peek() != "]"
    while more:
        walker.peek()
        number, line = number + 1, walker.line
        # A list on one line gives every item the same line, so the item is counted too.
        where = f"{path}:{line}" if line != last_line else f"{path}:{line}: item {number}"
        yield where, _as_row(walker.value())
        last_line = line
        more = walker.peek() == ","
        if more:
            walker.take(",")
    walker.take("]")


def _lone_object(path: Path, walker: Walker) -> Iterator[RawRow]:
    line = walker.line
    members: dict[str, Any] = {}
    lists: set[str] = set()
    walker.take("{")
    more = walker.peek() != "}"
    while more:
        key = walker.value()
        if not isinstance(key, str):
            raise ValueError("a key that is not text")
        walker.take(":")
        is_list = walker.peek() == "["
        lists.update([key] if is_list else [])
        if len(lists) > 1 and not lists <= _ROW_KEYS:
            raise ValueError(f"an object that holds several lists ({', '.join(sorted(lists))})")
        if is_list and key not in _ROW_KEYS:
            yield from _items(path, walker)
        else:
            members[key] = walker.value()
        more = walker.peek() == ","
        if more:
            walker.take(",")
    walker.take("}")
    if lists <= _ROW_KEYS:
        faults = [value for value in members.values() if isinstance(value, RowError)]
        yield f"{path}:{line}", faults[0] if faults else members


def _table(path: Path, delimiter: str) -> Iterator[RawRow]:
    # The module's own limit stops at a long document; this one still stops at a quote that is never closed.
    csv.field_size_limit(_LONGEST_CELL_CHARS)
    with _opened(path) as stream:
        text = io.TextIOWrapper(stream, encoding="utf-8", errors="surrogateescape", newline="")
        reader = csv.reader(text, delimiter=delimiter, strict=True)
        header: list[str] = []
        for line, cells in _records(path, reader):
            if header:
                yield f"{path}:{line}", _as_cells(header, cells)
            else:
                header = _header(f"{path}:{line}", cells)


def _records(path: Path, reader: Any) -> Iterator[tuple[int, list[str] | RowError]]:
    """The records with the line that each begins on; blank lines are none."""
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader, None)
        except csv.Error as error:
            # The module has one exception for all faults; after these two the rest of the file is inside a quote.
            if "unexpected end" in str(error) or "field larger" in str(error):
                raise UserError(f"{path}:{line}: a quote is opened here and never closed; close or double it") from None
            yield (
                line,
                RowError(f"expected a record, found {ascii(str(error))[1:-1]}; double the quotes inside a quoted cell"),
            )
            continue
        if cells is None:
            return
        if cells:
            yield line, undecoded("".join(cells)) or cells


def _header(where: str, cells: list[str] | RowError) -> list[str]:
    if isinstance(cells, RowError):
        raise UserError(f"{where}: {cells}")
    header = [cell.strip() for cell in cells]
    if "" in header:
        raise UserError(f"{where}: expected a header of different column names, found a blank one; name them")
    _refuse_repeated(where, header)
    return header


def _refuse_repeated(where: str, header: Sequence[str]) -> None:
    if len(set(header)) < len(header):
        found = excerpt(", ".join(header))
        raise UserError(f"{where}: expected a header of different column names, found {found}; name them")


def _as_cells(header: list[str], cells: list[str] | RowError) -> dict[str, Any] | RowError:
    if isinstance(cells, RowError):
        return cells
    if len(cells) != len(header):
        return RowError(
            f"expected {len(header)} fields, as in the header, found {len(cells)}; quote a cell that holds a separator"
        )
    return dict(zip(header, cells, strict=True))


def _texts(path: Path) -> Iterator[RawRow]:
    for number, line in enumerate(lines(path), 1):
        if isinstance(line, RowError):
            yield f"{path}:{number}", line
        elif line.strip():
            yield f"{path}:{number}", {"text": line}


def _parquet(path: Path) -> Iterator[RawRow]:
    import pyarrow
    import pyarrow.parquet

    try:
        with _opened(path) as stream:
            # A Parquet file is read from its end, which a compressed stream only has in memory.
            compressed = path.suffix.lower() in COMPRESSIONS
            file = pyarrow.parquet.ParquetFile(pyarrow.BufferReader(stream.read()) if compressed else path)
            _refuse_repeated(str(path), file.schema_arrow.names)
            yield from arrow_rows(str(path), file.iter_batches(_PARQUET_BATCH_ROWS))
    except (pyarrow.ArrowException, ValueError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path}: not Parquet that can be read ({reason}); write the file again") from None


def _batch_rows(batch: Any) -> Iterator[dict[str, Any] | RowError]:
    try:
        yield from batch.to_pylist()
    except (ValueError, OverflowError):
        for index in range(batch.num_rows):
            try:
                yield from batch.slice(index, 1).to_pylist()
            except (ValueError, OverflowError) as error:
                yield RowError(f"expected values that Python can hold, found {error}; mend the row")
