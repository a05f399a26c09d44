import json
from pathlib import Path
from typing import Any

import pytest

from whetstone.bench.request_row import RequestRow, read_requests
from whetstone.errors import UserError

ROW: dict[str, Any] = {
    "id": "a",
    "model": "m",
    "started_s": 1.0,
    "queued_s": 0.5,
    "first_token_s": 1.25,
    "end_s": 2,
    "token_times_s": [1.25, 1.5, 2.0],
    "prompt_tokens": 7,
    "new_tokens": 3,
    "status": "ok",
    "streamed": True,
    "warmup": False,
    "arrival": {"process": "closed", "level": 4},
}


def written(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_row_survives_writing_and_reading(tmp_path: Path) -> None:
    first = read_requests(written(tmp_path / "requests.jsonl", ROW))
    again = read_requests(written(tmp_path / "again.jsonl", *(row.as_row() for row in first)))
    assert first == again
    assert first[0].token_times_s == (1.25, 1.5, 2.0)
    assert first[0].due_s == 0.5
    assert first[0].succeeded


def test_without_a_queue_a_request_falls_due_when_it_is_sent(tmp_path: Path) -> None:
    row = read_requests(written(tmp_path / "requests.jsonl", ROW | {"queued_s": None, "status": "timeout"}))[0]
    assert isinstance(row, RequestRow)
    assert row.due_s == 1.0
    assert not row.succeeded


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"end_s": 1.9}, "end_s .* lies before token_times_s"),
        ({"queued_s": 1.1}, "started_s .* lies before queued_s"),
        ({"token_times_s": [1.25, 1.2]}, "token_times_s .* lies before token_times_s"),
        ({"streamed": "yes"}, "streamed: Input should be a valid boolean"),
        ({"new_tokens": -1}, "new_tokens: "),
        ({"arrival": {"process": "often", "level": 1}}, "arrival.process: "),
        ({"arrival": {"process": "closed", "level": 0}}, "arrival.level: "),
        ({"status": ""}, "status: "),
        ({"first": 1.0}, "first: "),
    ],
)
def test_a_wrong_row_is_named_with_its_key(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    path = written(tmp_path / "requests.jsonl", ROW, ROW | {"id": "b"} | change)
    with pytest.raises(UserError, match=rf"requests.jsonl:2: {said}"):
        read_requests(path)


def test_what_cannot_be_measured_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        read_requests(tmp_path / "requests.jsonl")
    with pytest.raises(UserError, match="no request that counts"):
        read_requests(written(tmp_path / "requests.jsonl", ROW | {"warmup": True}))
    with pytest.raises(UserError, match=r"requests.jsonl:2: id: 'a' is there twice"):
        read_requests(written(tmp_path / "requests.jsonl", ROW, ROW))
