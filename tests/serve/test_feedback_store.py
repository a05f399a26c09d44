"""What is kept of answers and of what people think of them, also by a process that is killed."""

import asyncio
import hashlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from whetstone.errors import UserError
from whetstone.serve.answered import Answered
from whetstone.serve.errors import ServeError
from whetstone.serve.feedback_store import FeedbackStore, Rating
from whetstone.serve.gate.keys import LOCAL, Principal

ALICE, BOB, ADMIN = Principal("alice"), Principal("bob"), Principal("root", admin=True)
MESSAGES = json.dumps([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Héllo"}])


def answered(name: str, **changes: Any) -> Answered:
    now = time.monotonic()
    told: dict[str, Any] = {
        "request_id": "r",
        "endpoint": "chat",
        "principal": "alice",
        "model": "demo",
        "outcome": "ok",
        "arrived_s": now - 5,
        "ended_s": now,
        "answer_id": name,
        "backend": "torch",
        "fingerprint": "ab" * 8,
        "messages": MESSAGES,
        "asked": "Héllo",
        "text": "Hi.",
    }
    return Answered(**(told | changes))


def rows(path: Path, query: str) -> list[dict[str, Any]]:
    connection = sqlite3.connect(path)
    connection.row_factory = sqlite3.Row
    found = [dict(row) for row in connection.execute(query)]
    connection.close()
    return found


def rate(store: FeedbackStore, rating: Rating, principal: Principal = ALICE) -> int:
    return asyncio.run(store.rate(principal, rating))


def refusal(store: FeedbackStore, rating: Rating, principal: Principal = ALICE) -> tuple[int, str]:
    with pytest.raises(ServeError) as refused:
        rate(store, rating, principal)
    return refused.value.status, refused.value.code


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "kept" / "feedback.db"


@pytest.fixture
def store(path: Path) -> Iterator[FeedbackStore]:
    store = FeedbackStore(path, store_prompts=True)
    yield store
    store.close()


def test_an_answer_and_what_somebody_thinks_of_it(store: FeedbackStore, path: Path) -> None:
    store.answered(answered("a", choice=1))
    number = rate(store, Rating("a", "correction", choice=1, correction="Hello.", comment="too short"))
    (answer,) = rows(path, "SELECT * FROM answers")
    assert answer["text"] == "Hi." and json.loads(answer["prompt"]) == json.loads(MESSAGES)
    assert time.time() - 20 < answer["at"] < time.time() - 4
    told = ("endpoint", "model", "backend", "fingerprint", "principal", "choice")
    assert [answer[name] for name in told] == ["chat", "demo", "torch", "ab" * 8, "alice", 1]
    (feedback,) = rows(path, "SELECT * FROM feedback")
    assert feedback.pop("at") > answer["at"]
    assert feedback == {
        "id": number,
        "answer_id": "a",
        "choice": 1,
        "principal": "alice",
        "rating": "correction",
        "correction": "Hello.",
        "comment": "too short",
    }


def test_without_prompts_only_hashes_are_kept(path: Path) -> None:
    store = FeedbackStore(path, store_prompts=False)
    store.answered(answered("a"))
    rate(store, Rating("a", "good"))
    store.close()
    (answer,) = rows(path, "SELECT * FROM answers")
    assert (answer["prompt"], answer["text"]) == (None, None)
    assert answer["text_sha256"] == hashlib.sha256(b"Hi.").hexdigest()
    everything = b"".join(file.read_bytes() for file in path.parent.iterdir())
    assert b"llo" not in everything and b"Hi." not in everything


def test_a_continued_text_is_its_own_prompt(store: FeedbackStore, path: Path) -> None:
    store.answered(answered("a", endpoint="completions", messages="", asked="Once"))
    rate(store, Rating("a", "good"))
    assert json.loads(rows(path, "SELECT prompt FROM answers")[0]["prompt"]) == "Once"


@pytest.mark.parametrize("change", [{"outcome": "disconnected"}, {"outcome": "deadline_exceeded"}, {"answer_id": ""}])
def test_what_is_no_answer_is_not_kept(store: FeedbackStore, path: Path, change: dict[str, str]) -> None:
    store.answered(answered("a", **change))
    store.answered(answered("b"))
    rate(store, Rating("b", "good"))
    assert [row["answer_id"] for row in rows(path, "SELECT answer_id FROM answers")] == ["b"]


def test_who_may_rate(store: FeedbackStore) -> None:
    store.answered(answered("a"))
    assert refusal(store, Rating("b", "good")) == (404, "answer_not_found")
    assert refusal(store, Rating("a", "good", choice=1)) == (404, "answer_not_found")
    assert refusal(store, Rating("a", "good"), BOB) == (403, "not_yours")
    assert rate(store, Rating("a", "good")) < rate(store, Rating("a", "bad"), ADMIN)
    store.answered(answered("c", principal="local"))
    rate(store, Rating("c", "good"), LOCAL)


def test_a_correction_is_another_text(store: FeedbackStore) -> None:
    store.answered(answered("a"))
    assert refusal(store, Rating("a", "correction", correction="Hi.")) == (400, "invalid_value")


def test_ratings_are_kept_and_not_without_end(store: FeedbackStore, path: Path) -> None:
    store.answered(answered("a"))
    for _ in range(10):
        rate(store, Rating("a", "good"))
        rate(store, Rating("a", "bad"))
    assert refusal(store, Rating("a", "good")) == (409, "rated_too_often")
    rate(store, Rating("a", "good"), ADMIN)
    assert len(rows(path, "SELECT * FROM feedback")) == 21


def test_an_answer_may_be_rated_by_the_next_server(path: Path) -> None:
    store = FeedbackStore(path, store_prompts=False)
    store.answered(answered("a"))
    store.close()
    store.close()
    store = FeedbackStore(path, store_prompts=False)
    rate(store, Rating("a", "good"))
    store.close()


def test_a_closed_store_takes_nothing(path: Path) -> None:
    store = FeedbackStore(path, store_prompts=False)
    store.close()
    store.answered(answered("a"))
    assert refusal(store, Rating("a", "good")) == (503, "feedback_unavailable")


def test_only_the_owner_may_read_it(store: FeedbackStore, path: Path) -> None:
    store.answered(answered("a"))
    rate(store, Rating("a", "good"))
    assert {file.stat().st_mode & 0o777 for file in path.parent.iterdir()} == {0o600}


def test_the_loop_does_not_wait_for_the_disk(store: FeedbackStore, path: Path) -> None:
    """Another program holds the file, and the loop goes on; then all is written."""
    other = sqlite3.connect(path, isolation_level=None)

    async def check() -> None:
        other.execute("BEGIN IMMEDIATE")
        for number in range(100):
            store.answered(answered(f"a{number}"))
        waiting = [asyncio.create_task(store.rate(ALICE, Rating(f"a{number}", "good"))) for number in range(100)]
        waiting[0].cancel()
        for _ in range(20):
            await asyncio.sleep(0.001)
        assert not any(task.done() for task in waiting[1:])
        other.execute("ROLLBACK")
        other.close()
        await asyncio.gather(*waiting, return_exceptions=True)

    asyncio.run(asyncio.wait_for(check(), 20))
    # One was cancelled before it was begun, or after; all others are there.
    assert {row["answer_id"] for row in rows(path, "SELECT * FROM feedback")} >= {f"a{one}" for one in range(1, 100)}


def test_a_full_disk_is_said_and_passes(path: Path) -> None:
    store = FeedbackStore(path, store_prompts=True)
    store.answered(answered("a"))
    rate(store, Rating("a", "good"))
    pages = store._connection.execute("PRAGMA page_count").fetchone()[0]
    store._connection.execute(f"PRAGMA max_page_count = {pages}")
    assert refusal(store, Rating("a", "bad", comment="x" * 100_000)) == (503, "feedback_unavailable")
    store.answered(answered("b", text="x" * 100_000))
    deadline = time.monotonic() + 5
    while not store.lost and time.monotonic() < deadline:
        time.sleep(0.005)
    assert store.lost == 1
    store._connection.execute("PRAGMA max_page_count = 100000")
    rate(store, Rating("a", "bad", comment="x" * 100_000))
    store.close()
    assert rows(path, "PRAGMA integrity_check") == [{"integrity_check": "ok"}]
    assert [row["rating"] for row in rows(path, "SELECT rating FROM feedback ORDER BY id")] == ["good", "bad"]


def test_a_text_that_is_no_unicode_stops_nobody(store: FeedbackStore) -> None:
    store.answered(answered("a", text="\ud800"))
    store.answered(answered("b"))
    assert rate(store, Rating("b", "good")) > 0


WRITER = """
import asyncio, sys, time
from pathlib import Path
from whetstone.serve.answered import Answered
from whetstone.serve.feedback_store import FeedbackStore, Rating
from whetstone.serve.gate.keys import LOCAL

store = FeedbackStore(Path(sys.argv[1]), store_prompts=True)

async def one(worker, number):
    name = f"{sys.argv[2]}-{worker}-{number}"
    now = time.monotonic()
    store.answered(Answered(name, "chat", "local", "demo", "ok", now, now, answer_id=name, text="x" * 500))
    await store.rate(LOCAL, Rating(name, "good", comment="y" * 200))
    print(name, flush=True)

async def work(worker):
    for number in range(10**6):
        await one(worker, number)

async def main():
    await asyncio.gather(*map(work, range(8)))

asyncio.run(main())
"""


def test_what_was_acknowledged_outlives_a_kill(tmp_path: Path) -> None:
    path = tmp_path / "feedback.db"
    acknowledged: set[str] = set()
    for life in range(3):
        command = [sys.executable, "-c", WRITER, str(path), str(life)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ) as writer:
            assert writer.stdout is not None
            said = [writer.stdout.readline().strip() for _ in range(100 + 37 * life)]
            writer.send_signal(signal.SIGKILL)
            said += writer.stdout.read().split("\n")[:-1]
        acknowledged.update(said)
    store = FeedbackStore(path, store_prompts=True)
    store.close()
    assert rows(path, "PRAGMA integrity_check") == [{"integrity_check": "ok"}]
    assert rows(path, "PRAGMA foreign_key_check") == []
    assert "" not in acknowledged and len(acknowledged) >= 100 + 137 + 174
    assert {row["answer_id"] for row in rows(path, "SELECT answer_id FROM feedback")} >= acknowledged
    assert {row["answer_id"] for row in rows(path, "SELECT answer_id FROM answers")} >= acknowledged


def _other_program(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE somebody (name TEXT)")
    connection.close()


def _newer(path: Path) -> None:
    FeedbackStore(path, store_prompts=False).close()
    connection = sqlite3.connect(path)
    with connection:
        connection.execute("UPDATE whetstone_feedback SET version = 2")
    connection.close()


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (_other_program, "is a database of another program"),
        (_newer, "is of a newer Whetstone (format 2, this one reads 1)"),
        (lambda path: path.write_text("something else entirely, longer than a head"), "file is not a database"),
        (Path.mkdir, "cannot be opened"),
    ],
)
def test_a_file_of_something_else_is_refused(tmp_path: Path, make: Callable[[Path], None], said: str) -> None:
    path = tmp_path / "feedback.db"
    make(path)
    before = path.read_bytes() if path.is_file() else b""
    with pytest.raises(UserError) as refused:
        FeedbackStore(path, store_prompts=False)
    assert said in str(refused.value) and str(path) in str(refused.value)
    assert before == (path.read_bytes() if path.is_file() else b"")


def test_two_servers_may_begin_a_file_together(path: Path) -> None:
    stores: list[FeedbackStore] = []
    threads = [
        threading.Thread(target=lambda: stores.append(FeedbackStore(path, store_prompts=True))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(stores) == 4
    for number, store in enumerate(stores):
        store.answered(answered(str(number)))
        rate(store, Rating(str(number), "good"))
    for store in stores:
        store.close()
    assert len(rows(path, "SELECT * FROM feedback")) == 4
