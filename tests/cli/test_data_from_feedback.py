"""``whet data from-feedback``: what it writes, what it says, and what it refuses."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from whetstone.cli.main import app
from whetstone.errors import UserError
from whetstone.serve.answered import Answered
from whetstone.serve.feedback_store import FeedbackStore, Rating
from whetstone.serve.gate.keys import LOCAL

Whet = Callable[..., Result]


@pytest.fixture
def whet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Whet:
    """Runs the verb in a folder with the feedback of a server."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    store = FeedbackStore(Path("feedback.db"), store_prompts=True)
    for number, rating in enumerate(["good", "correction", "bad", "good"]):
        messages = json.dumps([{"role": "user", "content": f"question {number % 3}"}])
        told = Answered("r", "chat", "local", "demo", "ok", 0.0, 1.0, answer_id=f"a{number}", messages=messages)
        store.answered(Answered(**{**_fields(told), "text": f"answer {number}"}))
        correction = "a better one" if rating == "correction" else None
        asyncio.run(store.rate(LOCAL, Rating(f"a{number}", rating, correction=correction)))  # type: ignore[arg-type]
    store.close()
    FeedbackStore(Path("empty.db"), store_prompts=True).close()
    return lambda *arguments: CliRunner().invoke(app, ["data", "from-feedback", *map(str, arguments)])


def _fields(answered: Answered) -> dict[str, Any]:
    return {name: getattr(answered, name) for name in Answered.__slots__}


def test_examples_are_written(whet: Whet) -> None:
    result = whet("feedback.db", "--out", "train.jsonl", "--json")
    assert result.exception is None, result.output
    assert json.loads(result.stdout) == {
        "written": "train.jsonl",
        "format": "prompt-completion",
        "rows": 2,
        "groups": 2,
        "rated": 4,
        "left_out": {"rated bad, without a correction": 1},
    }
    rows = [json.loads(line) for line in Path("train.jsonl").read_text().splitlines()]
    assert sorted(row["references"] for row in rows) == [["a better one"], ["answer 0", "answer 3"]]


def test_what_was_left_out_is_said(whet: Whet) -> None:
    result = whet("feedback.db", "--out", "train.jsonl", "--include", "correction")
    assert result.exception is None, result.output
    said = "train.jsonl: 1 rows of 4 rated answers; left out: 1 rated bad, without a correction; 2 with a rating"
    assert said in result.stderr


def test_pairs_are_written(whet: Whet) -> None:
    result = whet("feedback.db", "--out", "pairs.jsonl", "--preference", "--json")
    assert result.exception is None, result.output
    assert json.loads(result.stdout)["format"] == "preference"
    (row,) = [json.loads(line) for line in Path("pairs.jsonl").read_text().splitlines()]
    assert (row["chosen"][0]["content"], row["rejected"][0]["content"]) == ("a better one", "answer 1")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["none.db", "--out", "a.jsonl"], "no such file"),
        (["empty.db", "--out", "a.jsonl"], "empty.db: gives no rows; no answer in it was rated"),
        (["feedback.db", "--out", "a.jsonl", "--model", "x"], "gives no rows"),
        (["feedback.db", "--out", "a.csv"], "does not end in .jsonl"),
        (["feedback.db", "--out", "feedback.jsonl"], "exists already"),
        (["feedback.db", "--out", "a.jsonl", "--include", "bad"], "--include: 'bad' makes no example"),
        (["feedback.db", "--out", "a.jsonl", "--include", "good", "--preference"], "leave one out"),
    ],
)
def test_what_is_refused(whet: Whet, arguments: list[str], said: str) -> None:
    Path("feedback.jsonl").write_text("kept")
    result = whet(*arguments)
    assert isinstance(result.exception, UserError) and said in str(result.exception)
    assert not Path("a.jsonl").exists() and Path("feedback.jsonl").read_text() == "kept"


def test_an_existing_file_is_replaced_if_asked(whet: Whet) -> None:
    Path("train.jsonl").write_text("old")
    assert whet("feedback.db", "--out", "train.jsonl", "--force").exception is None
    assert "old" not in Path("train.jsonl").read_text()
