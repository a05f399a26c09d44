"""Rows by their place, however the file ends."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whetstone.errors import UserError
from whetstone.line_file import LineFile


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=30), max_size=20), st.booleans())
def test_every_whole_line_is_found(tmp_path_factory: pytest.TempPathFactory, texts: list[str], torn: bool) -> None:
    path = tmp_path_factory.mktemp("lines") / "rows.jsonl"
    lines = [json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts]
    path.write_bytes("".join(lines).encode() + (b'{"text": "to' if torn else b""))
    file = LineFile.open(path)
    assert len(file) == len(texts)
    assert [row["text"] for row in file.rows(0, len(file))] == texts
    assert [file.row(index)["text"] for index in range(len(file))] == texts


@pytest.mark.parametrize(("line", "reason"), [("{", "not JSON"), ("[1]", "expected a JSON object")])
def test_a_damaged_line_is_named(tmp_path: Path, line: str, reason: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(f"{{}}\n{line}\n")
    with pytest.raises(UserError, match=rf"rows.jsonl:2: {reason}"):
        list(LineFile.open(path).rows(0, 2))
