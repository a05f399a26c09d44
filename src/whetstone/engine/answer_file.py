"""A file that answers are added to as they finish, and that a killed writer can go on with.

``FILE`` holds one JSON row an answer; ``FILE.meta.json`` says what they are answers to, by what and how. While answers
come, rows stand in the order in which they finished; once all are there, the file is put into the order of the prompts
in one rename.
"""

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from whetstone.data.finding import excerpt
from whetstone.errors import UserError
from whetstone.files import read_json, read_jsonl, write_json, write_jsonl

__all__ = ["AnswerFile", "Key", "writing"]

Key = tuple[str, int]
"""Which answer a row is: the id of its prompt, and the number of the sample."""

_ANSWERED = ("stop", "length")
_SYNC_ROWS = 32


class AnswerFile:
    """The file, open for adding rows.

    Attributes:
        path: Where it is.
        done: The answers that are in it; those that failed are not, and are asked for again.
    """

    def __init__(self, path: Path, meta: dict[str, Any]) -> None:
        """Begins the file, or goes on with one that was begun in the same way; what a killed writer tore is cut off.

        Args:
            path: The file.
            meta: What every row in it depends on.

        Raises:
            UserError: The file is something else, or was begun in another way.
        """
        self.path = path
        _check_meta(path, meta)
        rows = [row for row in _read(path) if row["finish_reason"] in _ANSWERED] if path.exists() else []
        self.done: set[Key] = {_key(row) for row in rows}
        write_json(_meta_path(path), meta)
        write_jsonl(path, rows)
        self._file = path.open("ab", buffering=0)
        self._unsynced = 0

    def close(self) -> None:
        """Ends the adding; what was added stays."""
        self._file.close()

    def add(self, row: dict[str, Any]) -> None:
        """Adds a row in one write, and forces rows to disk from time to time."""
        self._file.write(json.dumps(row, ensure_ascii=False).encode() + b"\n")
        self._unsynced += 1
        if self._unsynced == _SYNC_ROWS:
            os.fsync(self._file.fileno())
            self._unsynced = 0

    def put_in_order(self, places: Mapping[Key, int]) -> list[dict[str, Any]]:
        """Sorts the rows by their places, atomically, and gives them; nothing can be added after it."""
        self.close()
        rows = sorted(_read(self.path), key=lambda row: places[_key(row)])
        write_jsonl(self.path, rows)
        return rows


@contextlib.contextmanager
def writing(path: Path, *, fresh: bool) -> Iterator[None]:
    """Makes this process the only one that writes answers to a path.

    Args:
        path: The file of answers.
        fresh: Remove what is there.

    Raises:
        UserError: Another process writes to it, or there can be no such file.
    """
    lock = FileLock(path.with_name(f".{path.name}.lock"))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout:
        raise UserError(f"{path}: another process is writing to it; wait for it or give another --out") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror}); give another --out") from None
    try:
        if fresh:
            # The answers first: without them the other file refuses nothing.
            path.unlink(missing_ok=True)
            _meta_path(path).unlink(missing_ok=True)
        yield
    finally:
        lock.release()


def _meta_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.meta.json")


def _check_meta(path: Path, meta: dict[str, Any]) -> None:
    if not path.exists() or not path.stat().st_size:
        return
    known_path = _meta_path(path)
    if not known_path.exists():
        raise UserError(f"{path}: not a file of answers ({known_path.name} is missing); give another --out")
    known = read_json(known_path)
    differing = [
        f"{section}.{key} ({_said(known, section, key)}, now {_said(meta, section, key)})"
        for section in meta
        for key in {**_section(known, section), **_section(meta, section)}
        if _section(known, section).get(key) != _section(meta, section).get(key)
    ]
    if differing:
        said = ", another ".join(differing)
        raise UserError(f"{path}: begun with another {said}; call it as before, give another --out, or --fresh")


def _section(meta: Any, section: str) -> dict[str, Any]:
    found = meta.get(section) if isinstance(meta, dict) else None
    return found if isinstance(found, dict) else {}


def _said(meta: Any, section: str, key: str) -> str:
    return excerpt(json.dumps(_section(meta, section).get(key), ensure_ascii=False), 24)


def _read(path: Path) -> list[dict[str, Any]]:
    rows = read_jsonl(path)
    for number, row in enumerate(rows, 1):
        if not row.keys() >= {"id", "sample", "finish_reason"}:
            raise UserError(f"{path}:{number}: not an answer; give another --out, or --fresh")
    return rows


def _key(row: dict[str, Any]) -> Key:
    return row["id"], row["sample"]
