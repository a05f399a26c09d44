"""Files that are either whole or absent, whatever interrupts the writing."""

import contextlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from whetstone.errors import UserError

__all__ = [
    "atomic_folder",
    "read_json",
    "read_jsonl",
    "replacing",
    "write_atomic",
    "write_json",
    "write_jsonl",
    "written_by_libraries",
]


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Gives a neighbour file to fill; it is forced to disk and takes the name ``path`` only when the block ends well.

    Raises:
        UserError: It cannot be written.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror}); nothing was changed") from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


def write_atomic(path: Path, content: str | bytes) -> None:
    """Writes a file so that a reader sees the old content or the new, never a part."""
    with replacing(path) as partial:
        partial.write_bytes(content.encode() if isinstance(content, str) else content)


def write_json(path: Path, value: Any) -> None:
    """Writes indented JSON atomically; not-a-number is an error, since JSON has none."""
    write_atomic(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_jsonl(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Writes one JSON object a line, atomically."""
    write_atomic(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def read_json(path: Path) -> Any:
    """Reads JSON.

    Raises:
        UserError: The file is missing or is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not JSON ({error}); restore the file or delete the folder that holds it") from None


@contextlib.contextmanager
def written_by_libraries(path: Path, mend: str) -> Iterator[None]:
    """Turns what libraries raise when the disk is full into one line; those written in Rust have no OSError for it.

    Args:
        path: What is being written.
        mend: What to do then.

    Raises:
        UserError: It cannot be written.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if not isinstance(error, OSError) and "os error" not in str(error):
            raise
        raise UserError(f"{path}: cannot be written ({error}); {mend}") from error


@contextlib.contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Gives a folder to fill; it takes the name ``path`` only when the block ends without an exception.

    Raises:
        UserError: There can be no such folder.
    """
    partial = path.with_name(f".{path.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
    except OSError as error:
        raise UserError(f"{path}: cannot be made ({error.strerror}); give a folder that may be written") from error
    try:
        yield partial
        for file in partial.rglob("*"):
            if file.is_file():
                with file.open("rb+") as handle:
                    os.fsync(handle.fileno())
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    shutil.rmtree(path, ignore_errors=True)
    try:
        partial.rename(path)
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise UserError(f"{path}: cannot be replaced ({error.strerror}); give another name") from error


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """Reads one JSON object a line; a torn last line (no newline) is not read.

    Raises:
        UserError: A whole line is not a JSON object; the message names the line.
    """
    rows = []
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n"):
                break
            try:
                row = json.loads(line)
            except (json.JSONDecodeError, UnicodeDecodeError) as error:
                raise UserError(f"{path}:{number}: not JSON ({error}); delete the file to make it again") from None
            if not isinstance(row, dict):
                raise UserError(f"{path}:{number}: expected a JSON object; delete the file to make it again")
            rows.append(row)
    return rows
