"""Where examples come from: parallel text files and JSONL.

Ids and groups are made from content, never from position, so that reordering a file changes nothing.
"""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from whetstone.data.example import Example, Message
from whetstone.data_section import Data, ParallelSource
from whetstone.errors import UserError
from whetstone.section import stable_hash

__all__ = ["ask", "read_jsonl_source", "read_parallel_source"]


def ask(data: Data, source: str) -> tuple[Message, ...]:
    """The prompt for a bare source text: the system turn, if any, and the user turn."""
    turns = [Message("system", data.system)] if data.system is not None else []
    return (*turns, Message("user", data.prompt.replace("{source}", source)))


def read_parallel_source(data: Data, source: ParallelSource) -> list[Example]:
    """Reads line-aligned files: each line of ``src`` is an example, its lines in ``refs`` the references.

    Blank reference lines are skipped, equal ones kept once.

    Raises:
        UserError: Files differ in length, a source line is blank, or a line has no reference.
    """
    path = Path(source.src)
    lines = _lines(path)
    columns = []
    for name in source.refs:
        column = _lines(Path(name))
        if len(column) != len(lines):
            raise UserError(f"{name}: {len(column)} lines, but {path} has {len(lines)}; line i must correct line i")
        columns.append(column)
    identify = _Identifier()
    examples = []
    for number, (text, *references) in enumerate(zip(lines, *columns, strict=True), 1):
        if not text:
            raise UserError(f"{path}:{number}: the line is blank; delete it here and in every refs file")
        kept = tuple(dict.fromkeys(reference for reference in references if reference))
        if not kept:
            raise UserError(
                f"{path}:{number}: no refs file has a text on this line; delete it everywhere or correct it"
            )
        examples.append(Example(identify(text), ask(data, text), kept, text, _group(text)))
    return examples


def read_jsonl_source(data: Data, path: Path) -> list[Example]:
    """Reads JSONL with ``messages`` (ending with the assistant's turn) or ``prompt`` and ``references`` in each row.

    A row may also hold ``id``, ``group``, ``category``, ``source``, and, beside ``messages``, ``references`` that are
    accepted in addition to the assistant's turn. ``source`` is what the copy-input arm answers with; without it, it is
    what stands at ``{source}`` when the user's turn has the form of ``data.prompt``, else the whole turn.

    Raises:
        UserError: A row is malformed; the message names file and line.
    """
    identify = _Identifier()
    examples = []
    for where, row in _rows(path):
        messages, references = _conversation(data, where, row) if "messages" in row else _question(data, where, row)
        source = _text(where, row, "source", default=row.get("prompt", _bare(data, messages[-1].content)))
        group = _text(where, row, "group", default=_group(source))
        category = _text(where, row, "category", default="all")
        name = _text(where, row, "id", default="")
        examples.append(Example(identify(name or source), messages, references, source, group, category))
        if name and examples[-1].id != name:
            raise UserError(f"{where}: id: '{name}' was given to an earlier row; ids must be unique")
    if not examples:
        raise UserError(f"{path}: no rows; give at least one example")
    return examples


def _bare(data: Data, turn: str) -> str:
    """The text inside a user turn that was made with ``data.prompt``; the whole turn where it was not."""
    before, _, after = data.prompt.partition("{source}")
    if turn.startswith(before) and turn.endswith(after) and len(turn) >= len(before) + len(after):
        return turn[len(before) : len(turn) - len(after)]
    return turn


class _Identifier:
    """Names examples by content; the second of two equal ones gets a suffix."""

    def __init__(self) -> None:
        self._seen: Counter[str] = Counter()

    def __call__(self, text: str) -> str:
        name = text if len(text) <= 40 and text.isprintable() and " " not in text else stable_hash(text)[:12]
        unique = name
        while unique in self._seen:
            self._seen[name] += 1
            unique = f"{name}-{self._seen[name]}"
        self._seen[unique] += 1
        return unique


def _group(source: str) -> str:
    """Identity of a source text: case and white space do not make it another one."""
    return stable_hash(" ".join(source.lower().split()))[:12]


def _lines(path: Path) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as UTF-8 text ({error}); give a text file") from None
    lines = text.split("\n")
    if lines and lines[-1] == "":
        lines.pop()
    if not lines:
        raise UserError(f"{path}: empty; give one sentence a line")
    return [line.strip() for line in lines]


def _rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    for number, line in enumerate(_lines(path), 1):
        where = f"{path}:{number}"
        if not line:
            continue
        try:
            row = json.loads(line)
            json.dumps(row, ensure_ascii=False).encode()
        except (ValueError, RecursionError) as error:
            raise UserError(f"{where}: expected one JSON object a line, found {error}; mend the line") from None
        if not isinstance(row, dict):
            raise UserError(f"{where}: expected a JSON object, found {type(row).__name__}; mend the line")
        yield where, row


def _conversation(data: Data, where: str, row: dict[str, Any]) -> tuple[tuple[Message, ...], tuple[str, ...]]:
    turns = row["messages"]
    if not isinstance(turns, list) or len(turns) < 2:
        raise UserError(f"{where}: messages: expected a list of at least a user's and an assistant's turn")
    messages = []
    for number, turn in enumerate(turns):
        if not isinstance(turn, dict) or turn.get("role") not in ("system", "user", "assistant"):
            raise UserError(f"{where}: messages[{number}]: expected role system, user or assistant, and content")
        messages.append(Message(turn["role"], _text(f"{where}: messages[{number}]", turn, "content")))
    if messages[-1].role != "assistant":
        raise UserError(f"{where}: messages: the last turn must be the assistant's, found {messages[-1].role}")
    if data.system is not None and messages[0].role != "system":
        messages.insert(0, Message("system", data.system))
    more = _references(where, row) if "references" in row else ()
    return tuple(messages[:-1]), tuple(dict.fromkeys((messages[-1].content, *more)))


def _question(data: Data, where: str, row: dict[str, Any]) -> tuple[tuple[Message, ...], tuple[str, ...]]:
    if "prompt" not in row or "references" not in row:
        found = ", ".join(map(str, row)) or "no keys"
        raise UserError(f"{where}: expected 'messages', or 'prompt' and 'references'; found {found}")
    return ask(data, _text(where, row, "prompt")), _references(where, row)


def _references(where: str, row: dict[str, Any]) -> tuple[str, ...]:
    references = row["references"]
    if not isinstance(references, list) or not references:
        raise UserError(f"{where}: references: expected a list of one or more texts")
    if not all(isinstance(reference, str) and reference.strip() for reference in references):
        raise UserError(f"{where}: references: every one must be a text that is not blank")
    return tuple(dict.fromkeys(references))


def _text(where: str, row: dict[str, Any], key: str, *, default: str | None = None) -> str:
    value = row.get(key, default)
    if not isinstance(value, str):
        raise UserError(f"{where}: {key}: expected text, found {type(value).__name__}")
    if default is None and not value.strip():
        raise UserError(f"{where}: {key}: the text is blank; give one or delete the row")
    return value
