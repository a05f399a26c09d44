"""The file that holds what people thought of answers: a SQLite database that a server writes and training sets are of.

It is a write-ahead log with ``synchronous=FULL``: what was committed survives a killed process and a power cut
(https://www.sqlite.org/pragma.html#pragma_synchronous). ``NORMAL`` would survive the first alone, and saves a flush a
commit, which matters little, since many answers are written in one.
"""

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from whetstone.errors import UserError

__all__ = ["VERSION", "open_feedback", "reading_feedback"]

VERSION = 1
_TABLE = "whetstone_feedback"
_BUSY_S = 10.0
_SCHEMA = f"""
CREATE TABLE {_TABLE} (version INTEGER NOT NULL);
INSERT INTO {_TABLE} VALUES ({VERSION});
CREATE TABLE answers (
    answer_id TEXT NOT NULL,
    choice INTEGER NOT NULL,
    at REAL NOT NULL,
    endpoint TEXT NOT NULL,
    model TEXT NOT NULL,
    backend TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    principal TEXT NOT NULL,
    prompt_sha256 TEXT NOT NULL,
    text_sha256 TEXT NOT NULL,
    finish_reason TEXT NOT NULL,
    prompt TEXT,
    text TEXT,
    PRIMARY KEY (answer_id, choice)
) WITHOUT ROWID;
CREATE TABLE feedback (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    answer_id TEXT NOT NULL,
    choice INTEGER NOT NULL,
    principal TEXT NOT NULL,
    at REAL NOT NULL,
    rating TEXT NOT NULL CHECK (rating IN ('good', 'bad', 'correction')),
    correction TEXT,
    comment TEXT,
    FOREIGN KEY (answer_id, choice) REFERENCES answers (answer_id, choice)
);
CREATE INDEX feedback_of_answer ON feedback (answer_id, choice, principal);
"""
"""``at`` is in seconds since 1970. ``prompt`` is JSON: a list of turns, or the text that was continued; it and ``text``
are NULL where prompts are not kept. Feedback is only ever added; the last of a principal holds."""


def open_feedback(path: Path) -> sqlite3.Connection:
    """Opens the file for writing, and makes it where there is none; only its owner may read it (mode 0600).

    Transactions are the caller's to begin and end.

    Raises:
        UserError: It cannot be opened, is of another program, or of a newer Whetstone.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    except OSError as error:
        raise UserError(f"{path}: cannot be opened ({error.strerror}); give a file that may be written") from None
    with _said(path), contextlib.ExitStack() as undo:
        connection = sqlite3.connect(path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False)
        undo.callback(connection.close)
        # Two servers that begin together make the tables once.
        connection.execute("BEGIN IMMEDIATE")
        if connection.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,):
            for statement in filter(str.strip, _SCHEMA.split(";")):
                connection.execute(statement)
        _check(path, connection)
        connection.execute("COMMIT")
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA foreign_keys=ON")
        undo.pop_all()
        return connection


@contextlib.contextmanager
def reading_feedback(path: Path) -> Iterator[sqlite3.Connection]:
    """Opens the file for reading, while a server may be writing it.

    Raises:
        UserError: It cannot be read, is of another program, or of a newer Whetstone.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file; a server writes it where serve.feedback names it")
    with (
        _said(path),
        contextlib.closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection,
    ):
        _check(path, connection)
        yield connection


@contextlib.contextmanager
def _said(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise UserError(f"{path}: cannot be used as a file of feedback ({error}); give another file") from None


def _check(path: Path, connection: sqlite3.Connection) -> None:
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if _TABLE not in tables:
        raise UserError(f"{path}: is a database of another program; give another file")
    (version,) = connection.execute(f"SELECT version FROM {_TABLE}").fetchone()
    if version > VERSION:
        raise UserError(f"{path}: is of a newer Whetstone (format {version}, this one reads {VERSION}); update")
