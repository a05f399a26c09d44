"""Files are whole or absent."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whetstone.errors import UserError
from whetstone.files import atomic_folder, read_json, read_jsonl, write_atomic, write_json


def test_write_atomic_replaces_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.txt"
    write_atomic(path, "one")
    write_atomic(path, b"two")
    assert path.read_text() == "two"
    assert [file.name for file in path.parent.iterdir()] == ["a.txt"]


def test_failed_write_keeps_the_old_content(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"a": 1})
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(path, {"a": float("nan")})
    assert read_json(path) == {"a": 1}


def test_a_folder_appears_only_when_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "adapter"

    def fill(fail: bool, text: str) -> None:
        with atomic_folder(path) as partial:
            (partial / "weights").write_text(text)
            assert not path.exists() or (path / "weights").read_text() == "first"
            if fail:
                raise RuntimeError("killed")

    with pytest.raises(RuntimeError):
        fill(True, "zero")
    assert list(tmp_path.iterdir()) == []
    fill(False, "first")
    with pytest.raises(RuntimeError):
        fill(True, "second")
    assert (path / "weights").read_text() == "first"
    fill(False, "third")
    assert (path / "weights").read_text() == "third"
    assert [file.name for file in tmp_path.iterdir()] == ["adapter"]


@given(cut=st.integers(min_value=0, max_value=40))
def test_a_torn_last_line_is_not_read(tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    whole = b'{"n": 1}\n{"n": 2}\n{"n": 3}\n'
    path.write_bytes(whole[: len(whole) - min(cut, len(whole))])
    rows = read_jsonl(path)
    assert [row["n"] for row in rows] == [1, 2, 3][: path.read_bytes().count(b"\n")]


@pytest.mark.parametrize("line", ["nonsense", "[1]", '"text"'])
def test_a_damaged_line_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(f'{{"n": 1}}\n{line}\n')
    with pytest.raises(UserError, match=r"rows\.jsonl:2: "):
        read_jsonl(path)


def test_what_cannot_be_made_is_a_user_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for path in (tmp_path / "file" / "x", Path("/proc/x"), tmp_path / ("x" * 250)):
        with pytest.raises(UserError, match="cannot be made"), atomic_folder(path):
            pass
    with pytest.raises(UserError, match="cannot be replaced"), atomic_folder(tmp_path / "file"):
        pass
    for path in (tmp_path / "file" / "x", tmp_path / ("x" * 250)):
        with pytest.raises(UserError, match="cannot be written"):
            write_atomic(path, "x")
    assert [file.name for file in tmp_path.iterdir()] == ["file"]
