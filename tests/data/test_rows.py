"""Bytes to rows: every kind of file, and what is wrong with a row said with its place."""

import csv
import gzip
import io
import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from whetstone.data import strict_json
from whetstone.data.rows import RawRow, read_rows
from whetstone.data.strict_json import RowError
from whetstone.errors import UserError
from whetstone.source_name import SUFFIXES


def read(path: Path, content: bytes) -> list[RawRow]:
    path.write_bytes(content)
    return list(read_rows(path))


def zstd(content: bytes) -> bytes:
    packed: bytes = pyarrow.compress(content, codec="zstd", asbytes=True)
    return packed


def parquet(rows: Sequence[object]) -> bytes:
    sink = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), sink)
    return sink.getvalue()


def shown(rows: list[RawRow], path: Path) -> list[tuple[str, object]]:
    """Places without the path, and rows or the type of their fault."""
    return [(where.removeprefix(str(path)), type(row) if isinstance(row, RowError) else row) for where, row in rows]


@pytest.mark.parametrize("start", [b"", b"\xef\xbb\xbf"])
def test_blank_json_lines_are_not_rows_but_count_as_lines(tmp_path: Path, start: bytes) -> None:
    path = tmp_path / "rows.jsonl"
    assert shown(read(path, start + b'\n{"a": 1}\r\n  \n{"a": 2}'), path) == [(":2", {"a": 1}), (":4", {"a": 2})]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"{", "expected one JSON object a line, found a fault at column 2"),
        (b"{} {}", "at column 4 \\(Extra data"),
        (b"[1]", "expected a JSON object, found a list"),
        (b"null", "found null"),
        (b'{"a": "\xff"}', "expected UTF-8, found byte 0xff at column 8"),
        (b'{"a": "\xed\xa0\x80"}', "expected UTF-8, found byte 0xed"),
        (b'{"a": "\\ud83d"}', "half of a surrogate pair"),
        (b'{"\\uDE00": 1}', "half of a surrogate pair"),
        (b'{"a": NaN}', "found NaN"),
        (b'{"a": [-Infinity]}', "found -Infinity"),
        (b'{"a": ' + b"9" * 5000 + b"}", "found a number of 5000 digits"),
        (b"[" * 100_000, "nested too deep"),
        (b'{"a": ' + b"[" * 100_000, "nested too deep"),
    ],
)
def test_what_is_wrong_with_a_json_line(tmp_path: Path, line: bytes, message: str) -> None:
    path = tmp_path / "rows.jsonl"
    first, (where, fault), last = read(path, b'{"a": 1}\n' + line + b'\n{"a": "\\ud83d\\ude00 \\\\ud83d"}\n')
    assert where == f"{path}:2"
    assert isinstance(fault, RowError)
    with pytest.raises(RowError, match=message):
        raise fault
    assert (first[1], last[1]) == ({"a": 1}, {"a": "😀 \\ud83d"})


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ('[{"a": 1}, {"a": 2},\n {"a": 3}]', [(":1", {"a": 1}), (":1: item 2", {"a": 2}), (":2", {"a": 3})]),
        ('{"version": [0][0]}', None),
        ('{"version": "1",\n"data": [\n{"a": 1}\n,\n\n5]}', [(":3", {"a": 1}), (":6", RowError)]),
        ('{"data": [{"a": 1}]}', [(":1", {"a": 1})]),
        ('{"data": [{"a": 1}], "more": []}', None),
        ('{"messages": [{"a": 1}]}', [(":1", {"messages": [{"a": 1}]})]),
        ('\n{\n"prompt": "x", "references": ["y"]}', [(":2", {"prompt": "x", "references": ["y"]})]),
        ('{"a": 1}\n{"a": 2}\n', [(":1", {"a": 1}), (":2", {"a": 2})]),
        ('{"a": 1}\n{"a": 2\n', [(":1", {"a": 1}), (":2", RowError)]),
        (
            '[{"a": NaN}, {"a": "\\ud83d"}, {"a": 1}]',
            [(":1", RowError), (":1: item 2", RowError), (":1: item 3", {"a": 1})],
        ),
        ("[]", []),
        (" \n", []),
        ('[{"a": 1}', None),
        ('[{"a": 1}] x', None),
        ('[{"a": 1},]', None),
        ('{"a" 1}', None),
        ("{1: 2}", None),
        ("3", None),
        ("[" * 100_000, None),
    ],
)
def test_json_files(tmp_path: Path, text: str, rows: list[tuple[str, object]] | None) -> None:
    path = tmp_path / "rows.json"
    if rows is None:
        with pytest.raises(UserError, match=r"rows\.json:\d"):
            read(path, text.encode())
    else:
        assert shown(read(path, text.encode()), path) == rows


def test_a_broken_json_list_names_the_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"rows\.json:3: expected a JSON list of objects"):
        read(tmp_path / "rows.json", b'[\n{"a": 1},\n{"a": }]')


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=9,
)


@given(
    items=st.lists(json_values), indent=st.none() | st.integers(0, 2), ascii_only=st.booleans(), chunk=st.integers(1, 9)
)
def test_a_json_list_is_read_as_json_reads_it_wherever_a_chunk_ends(
    tmp_path_factory: pytest.TempPathFactory, items: list[object], indent: int | None, ascii_only: bool, chunk: int
) -> None:
    text = json.dumps(items, indent=indent, ensure_ascii=ascii_only)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(strict_json, "_CHUNK_CHARS", chunk)
        rows = [row for _, row in read(tmp_path_factory.mktemp("any") / "rows.json", text.encode())]
    assert [row for row in rows if isinstance(row, dict)] == [item for item in items if isinstance(item, dict)]
    assert len(rows) == len(items)


@pytest.mark.parametrize(("suffix", "separator"), [(".csv", ","), (".tsv", "\t")])
def test_tables_have_a_header_and_may_have_cells_of_several_lines(tmp_path: Path, suffix: str, separator: str) -> None:
    path = tmp_path / f"rows{suffix}"
    text = '\ufeffprompt,response\n"a\n""b""",c\n\nd\ne,f\n"g"h,i\nj,k\n'.replace(",", separator)
    assert shown(read(path, text.encode()), path) == [
        (":2", {"prompt": 'a\n"b"', "response": "c"}),
        (":5", RowError),
        (":6", {"prompt": "e", "response": "f"}),
        (":7", RowError),
        (":8", {"prompt": "j", "response": "k"}),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"a,a\n1,2\n", ":1: expected a header of different"),
        (b"a,\n1,2\n", ":1: expected a header of different"),
        (b"a\xff,b\n1,2\n", ":1: expected UTF-8, found byte 0xff"),
        (b'a,b\n1,2\n1,"2\n3,4\n', ":3: a quote is opened here and never closed"),
    ],
)
def test_what_makes_a_table_unreadable(tmp_path: Path, text: bytes, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read(tmp_path / "rows.csv", text)


def test_a_cell_may_hold_a_long_document(tmp_path: Path) -> None:
    (_, row), *_ = read(tmp_path / "rows.csv", b"text,n\n" + b"x" * 200_000 + b",1\n")
    assert isinstance(row, dict)
    assert len(row["text"]) == 200_000


@given(text=st.text(alphabet=st.sampled_from('ab",\n\r\té'), max_size=60))
def test_any_table_has_as_many_rows_as_the_csv_module_finds(
    tmp_path_factory: pytest.TempPathFactory, text: str
) -> None:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    records: list[list[str] | None] = []
    expected: int | None = None
    while expected is None:
        try:
            records.append(next(reader))
        except StopIteration:
            expected = sum(record != [] for record in records)
        except csv.Error as error:
            if "unexpected end" in str(error):
                break
            records.append(None)
    try:
        rows = read(tmp_path_factory.mktemp("any") / "rows.csv", text.encode())
    except UserError as error:
        assert expected is None or ":" in str(error)
    else:
        header, *rest = [record for record in records if record != []] or [[]]
        assert header is not None
        assert len(rows) == len(rest)
        good = [dict(zip(header, cells, strict=True)) for cells in rest if cells and len(cells) == len(header)]
        assert [list(row.values()) for _, row in rows if isinstance(row, dict)] == [list(row.values()) for row in good]


def test_text_lines(tmp_path: Path) -> None:
    path = tmp_path / "rows.txt"
    assert shown(read(path, b" one\r\n\n\xc2\xa0\ntwo\xff\nthree"), path) == [
        (":1", {"text": " one"}),
        (":4", RowError),
        (":5", {"text": "three"}),
    ]


def test_parquet_rows_are_numbered(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    rows = [{"prompt": "x", "references": ["y", "z"]}, {"prompt": None, "references": None}]
    assert shown(read(path, parquet(rows)), path) == [(": row 1", rows[0]), (": row 2", rows[1])]


def test_bytes_that_are_no_text_in_parquet_are_one_bad_row(tmp_path: Path) -> None:
    array = pyarrow.array([b"a", b"\xff", b"c"]).cast(pyarrow.string(), safe=False)
    path = tmp_path / "rows.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"text": array}), path)
    assert shown(list(read_rows(path)), path) == [
        (": row 1", {"text": "a"}),
        (": row 2", RowError),
        (": row 3", {"text": "c"}),
    ]


PACKERS = [(".gz", gzip.compress), (".zst", zstd)]
CONTENTS: dict[str, bytes] = {
    ".jsonl": b'{"text": "x"}\n{"text": "y"}\n',
    ".json": b'[{"text": "x"},\n{"text": "y"}]',
    ".csv": b"text\nx\ny\n",
    ".tsv": b"text\nx\ny\n",
    ".txt": b"x\ny\n",
    ".parquet": parquet([{"text": "x"}, {"text": "y"}]),
}


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(("compression", "pack"), PACKERS)
def test_compressed_files_are_read_as_the_plain_ones(
    tmp_path: Path, suffix: str, compression: str, pack: Callable[[bytes], bytes]
) -> None:
    path = tmp_path / f"rows{suffix}{compression}"
    packed = pack(CONTENTS[suffix])
    assert [row for _, row in read(path, packed)] == [{"text": "x"}, {"text": "y"}]
    for broken in (packed[:-3], packed[: len(packed) // 2], b"no archive"):
        with pytest.raises(UserError, match=str(path)) as caught:
            read(path, broken)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["rows.xlsx", "rows", "rows.gz", "rows.jsonl.zip"])
def test_an_unknown_suffix_lists_the_known_ones(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match=r"expected a file that ends in \.jsonl"):
        read(tmp_path / name, b"x")


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be", "utf-32"])
def test_utf_16_is_named(tmp_path: Path, encoding: str) -> None:
    text = '{"text": "x"}' if encoding != "utf-16-be" else '\ufeff{"text": "x"}'
    with pytest.raises(UserError, match="found UTF-16"):
        read(tmp_path / "rows.jsonl", text.encode(encoding))


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_missing_file_is_one_line(tmp_path: Path, suffix: str) -> None:
    with pytest.raises(UserError, match="No such file"):
        list(read_rows(tmp_path / f"rows{suffix}"))


@pytest.mark.parametrize("suffix", [*SUFFIXES, ".jsonl.gz", ".json.zst", ".parquet.gz"])
@given(content=st.binary(max_size=200))
def test_any_bytes_are_rows_or_one_line(tmp_path_factory: pytest.TempPathFactory, suffix: str, content: bytes) -> None:
    path = tmp_path_factory.mktemp("any") / f"rows{suffix}"
    try:
        rows = read(path, content)
    except UserError as error:
        assert str(path) in str(error)
        assert str(error).isprintable()
    else:
        for where, row in rows:
            assert where.startswith(str(path))
            assert isinstance(row, RowError) or json.dumps(row, ensure_ascii=False).encode()
            assert not isinstance(row, RowError) or str(row).isprintable()
        if suffix == ".jsonl":
            body = content.removeprefix(b"\xef\xbb\xbf")
            assert len(rows) == sum(bool(line) and not line.isspace() for line in body.split(b"\n"))


def test_damaged_parquet_is_rows_or_one_line(tmp_path: Path) -> None:
    whole = parquet([{"text": "x" * 50}] * 50)
    draw = random.Random(0)
    for _ in range(60):
        damaged = bytearray(whole)
        damaged[draw.randrange(len(whole))] ^= 1 << draw.randrange(8)
        try:
            read(tmp_path / "rows.parquet", bytes(damaged))
        except UserError as error:
            assert "rows.parquet" in str(error)


@given(text=st.text(alphabet=st.characters(codec="utf-8"), max_size=80))
def test_any_text_has_a_row_for_each_line_that_is_not_blank(
    tmp_path_factory: pytest.TempPathFactory, text: str
) -> None:
    if text.startswith("\ufeff"):
        return
    rows = read(tmp_path_factory.mktemp("any") / "rows.txt", text.encode())
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    assert [row for _, row in rows] == [{"text": line} for line in lines if line.strip()]


def test_parquet_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    table = pyarrow.table([pyarrow.array(["x"]), pyarrow.array(["y"])], names=["text", "text"])
    pyarrow.parquet.write_table(table, path)
    with pytest.raises(
        UserError, match=r"rows\.parquet: expected a header of different column names, found text, text"
    ):
        list(read_rows(path))
