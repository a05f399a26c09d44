"""Which answers were given, and what people thought of them, in one file.

The event loop never waits for the disk: one thread writes. It takes all that has come meanwhile and commits it at once,
so one flush serves many answers; a rating is acknowledged after its commit.
"""

import asyncio
import contextlib
import hashlib
import json
import logging
import queue
import sqlite3
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from whetstone.data.feedback_file import open_feedback
from whetstone.serve.answered import Answered
from whetstone.serve.errors import ServeError
from whetstone.serve.gate.keys import Principal

__all__ = ["FeedbackStore", "Rating"]

_MOST_WAITING = 10_000
"""Answers and ratings that wait to be written; more are not kept."""
_AT_ONCE = 512
_MOST_RATINGS = 20
"""How often one principal may rate one answer; all are kept."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Rating:
    """What somebody thinks of an answer.

    Attributes:
        answer_id: What the response called it.
        rating: In one word.
        choice: Which of the answers of the response.
        correction: What it should have been.
        comment: Anything else.
    """

    answer_id: str
    rating: Literal["good", "bad", "correction"]
    choice: int = 0
    correction: str | None = None
    comment: str | None = None


@dataclass(frozen=True, slots=True)
class _Job:
    """Something to write; ``done`` is for whoever waits for its commit, and gets what ``write`` gives."""

    write: Callable[[sqlite3.Connection], int]
    done: Future[int] | None = None


class FeedbackStore:
    """The file, open for writing; a :class:`~whetstone.serve.answered.Listener`.

    Attributes:
        lost: Answers that were not written, because the disk did not take them; nobody can rate those.
    """

    def __init__(self, path: Path, *, store_prompts: bool) -> None:
        """Opens the file.

        Args:
            path: Where; it is made where there is none.
            store_prompts: Keep prompts and answers, and not only their hashes.

        Raises:
            UserError: It cannot be opened, is of another program, or of a newer Whetstone.
        """
        self.lost = 0
        self._store_prompts = store_prompts
        self._connection = open_feedback(path)
        self._jobs: queue.Queue[_Job | None] = queue.Queue(_MOST_WAITING)
        self._closed = False
        self._writer = threading.Thread(target=self._write, name="feedback", daemon=True)
        self._writer.start()

    def answered(self, answered: Answered) -> None:
        """Remembers an answer, so that it can be rated; what failed or was broken off is none."""
        if self._closed or answered.outcome != "ok" or not answered.answer_id:
            return
        at = time.time() - (time.monotonic() - answered.arrived_s)
        try:
            self._jobs.put_nowait(_Job(lambda connection: self._add_answer(connection, answered, at)))
        except queue.Full:
            self.lost += 1

    async def rate(self, principal: Principal, rating: Rating) -> int:
        """Keeps what somebody thinks of an answer; returns once it is on disk.

        Returns:
            The number of the rating in the file.

        Raises:
            ServeError: 404 the answer was not given here; 403 it was given to another key; 400 the correction is the
                answer; 409 it was rated too often; 503 the file cannot be written.
        """
        done: Future[int] = Future()
        at = time.time()
        try:
            if self._closed:
                raise queue.Full
            self._jobs.put_nowait(_Job(lambda connection: _add_rating(connection, principal, rating, at), done))
        except queue.Full:
            raise _unwritable() from None
        return await asyncio.wrap_future(done)

    def close(self) -> None:
        """Writes what has come, and closes the file."""
        if not self._closed:
            self._closed = True
            self._jobs.put(None)
            self._writer.join()

    def _write(self) -> None:
        try:
            while batch := self._batch():
                jobs = [job for job in batch if job is not None]
                if jobs:
                    self._commit(jobs)
                if None in batch:
                    return
        finally:
            self._connection.close()

    def _batch(self) -> list[_Job | None]:
        """What is there to write; waits for the first."""
        batch = [self._jobs.get()]
        while len(batch) < _AT_ONCE and batch[-1] is not None:
            try:
                batch.append(self._jobs.get_nowait())
            except queue.Empty:
                break
        return batch

    def _commit(self, jobs: list[_Job]) -> None:
        """Writes jobs in one transaction, and then tells those who wait."""
        wanted = [job for job in jobs if job.done is None or job.done.set_running_or_notify_cancel()]
        results: list[int | ServeError] = []
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            for job in wanted:
                try:
                    results.append(job.write(self._connection))
                except ServeError as error:
                    results.append(error)
            self._connection.execute("COMMIT")
        except Exception as error:
            # Whatever it was: without this thread everybody who rates would wait for ever.
            with contextlib.suppress(sqlite3.Error):
                self._connection.rollback()
            _log.error("feedback cannot be written (%s: %s)", type(error).__name__, error)
            self.lost += sum(job.done is None for job in wanted)
            results = [_unwritable()] * len(wanted)
        for job, result in zip(wanted, results, strict=True):
            if job.done is None:
                continue
            if isinstance(result, ServeError):
                job.done.set_exception(result)
            else:
                job.done.set_result(result)

    def _add_answer(self, connection: sqlite3.Connection, answered: Answered, at: float) -> int:
        prompt, text = _storable(answered.messages or json.dumps(answered.asked)), _storable(answered.text)
        kept = (prompt, text) if self._store_prompts else (None, None)
        about = (answered.endpoint, answered.model, answered.backend, answered.fingerprint, answered.principal)
        said = (_sha256(prompt), _sha256(text), answered.finish_reason)
        row = (answered.answer_id, answered.choice, at, *about, *said, *kept)
        connection.execute(f"INSERT OR IGNORE INTO answers VALUES ({', '.join('?' * len(row))})", row)
        return 0


def _add_rating(connection: sqlite3.Connection, principal: Principal, rating: Rating, at: float) -> int:
    name = (rating.answer_id, rating.choice)
    found = connection.execute(
        "SELECT principal, text_sha256 FROM answers WHERE answer_id = ? AND choice = ?", name
    ).fetchone()
    if found is None:
        said = "this server has given no such answer; send the id of a completion"
        raise ServeError(404, "answer_not_found", said, param="answer_id")
    asked_by, text_sha256 = found
    if asked_by != principal.name and not principal.admin:
        raise ServeError(403, "not_yours", "the answer was given to another key; only that key may rate it")
    if rating.correction is not None and _sha256(rating.correction) == text_sha256:
        raise ServeError.invalid(
            "the correction is the answer itself; rate it 'good', or say what is better", "correction"
        )
    (rated,) = connection.execute(
        "SELECT count(*) FROM feedback WHERE answer_id = ? AND choice = ? AND principal = ?", (*name, principal.name)
    ).fetchone()
    if rated >= _MOST_RATINGS:
        raise ServeError(409, "rated_too_often", f"the answer was rated {rated} times; the last rating stays")
    row = (None, *name, principal.name, at, rating.rating, rating.correction, rating.comment)
    return connection.execute(f"INSERT INTO feedback VALUES ({', '.join('?' * len(row))})", row).lastrowid or 0


def _unwritable() -> ServeError:
    said = "feedback cannot be written right now; send it again"
    return ServeError.unavailable(said, retry_after_s=5.0, code="feedback_unavailable")


def _storable(text: str) -> str:
    """The text without halves of surrogate pairs, which UTF-8 does not have."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
