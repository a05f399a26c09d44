"""A file of prompts to be answered, row by row, with the place of each for whoever finds fault with it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from whetstone.data.example import Message
from whetstone.data.fields import label_of, list_of, optional_text, text_of
from whetstone.data.finding import excerpt
from whetstone.data.formats import LAYOUTS
from whetstone.data.rows import read_rows
from whetstone.data.strict_json import RowError, kind
from whetstone.errors import UserError
from whetstone.section import stable_hash

__all__ = ["Prompt", "Prompts", "read_prompts"]

_READ = frozenset({"id", "prompt", "messages", "system", "max_new_tokens"})
_ROLES = LAYOUTS["messages"].roles


@dataclass(frozen=True, slots=True)
class Prompt:
    """One prompt.

    Attributes:
        where: Where it stands.
        id: Its own, or one made from what it says; unique in the file.
        messages: What the model is told; the last turn is the user's.
        max_new_tokens: The row's own; None where it has none.
    """

    where: str
    id: str
    messages: tuple[Message, ...]
    max_new_tokens: int | None


@dataclass(frozen=True, slots=True)
class Prompts:
    """What a file holds.

    Attributes:
        rows: In their order; at least one.
        unused: Fields that were not looked at.
    """

    rows: tuple[Prompt, ...]
    unused: tuple[str, ...]


def read_prompts(path: Path, system: str | None) -> Prompts:
    """Reads rows that hold ``prompt`` (a text) or ``messages``, and may hold ``id``, ``system``, ``max_new_tokens``.

    A row without an id gets one from its content, so that neither the order of the rows nor a new one changes it; equal
    rows are numbered.

    Args:
        path: In any container that examples may lie in.
        system: The system turn of rows that have none.

    Raises:
        UserError: A row cannot be used, two have one id, or there is none.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file; give a file with a prompt a line")
    rows: list[Prompt] = []
    places: dict[str, str] = {}
    unused: dict[str, None] = {}
    for where, row in read_rows(path):
        try:
            if isinstance(row, RowError):
                raise row
            prompt = _prompt(where, row, system, places)
        except RowError as error:
            raise UserError(f"{where}: {error}") from None
        places[prompt.id] = where
        rows.append(prompt)
        unused |= dict.fromkeys(key for key in row if key not in _READ)
    if not rows:
        raise UserError(f"{path}: expected a prompt a line, found an empty file; add prompts")
    return Prompts(tuple(rows), tuple(unused))


def _prompt(where: str, row: dict[str, Any], system: str | None, places: dict[str, str]) -> Prompt:
    messages = _messages(row)
    if not any(message.role == "system" for message in messages):
        text = optional_text(row, "system") or system
        messages = (Message("system", text), *messages) if text else messages
    limit = _limit(row)
    own_id = label_of(row, "id", is_named=True)
    if own_id in places:
        raise RowError(f"the id '{excerpt(own_id)}' is that of {places[own_id]}, too; give each row its own")
    made = stable_hash([[message.as_dict() for message in messages], limit])[:12]
    number, name = 1, own_id or made
    while name in places:
        number += 1
        name = f"{made}-{number}"
    return Prompt(where, name, messages, limit)


def _messages(row: dict[str, Any]) -> tuple[Message, ...]:
    given = [key for key in ("prompt", "messages") if row.get(key) is not None]
    if len(given) != 1:
        found = "both" if given else excerpt(", ".join(row)) or "nothing"
        raise RowError(f"expected the field 'prompt' or the field 'messages', found {found}; give one of them")
    if given == ["prompt"]:
        text = text_of(row, "prompt")
        if not text.strip():
            raise RowError("prompt: expected a text, found a blank one; write the prompt or remove the row")
        return (Message("user", text),)
    messages = tuple(_turn(turn, number) for number, turn in enumerate(list_of(row, "messages")))
    _check_order(messages)
    return messages


def _turn(turn: Any, number: int) -> Message:
    place = f"messages[{number}]"
    if not isinstance(turn, dict):
        raise RowError(f"{place}: expected an object, found {kind(turn)}; give role and content")
    try:
        name, content = text_of(turn, "role"), text_of(turn, "content")
    except RowError as error:
        raise RowError(f"{place}: {error}") from None
    if name not in _ROLES:
        raise RowError(f"{place}: expected one of the roles {', '.join(_ROLES)}, found '{excerpt(name)}'")
    return Message(_ROLES[name], content)


def _check_order(messages: Sequence[Message]) -> None:
    if not messages or messages[-1].role != "user":
        found = f"the {messages[-1].role}'s" if messages else "none"
        raise RowError(f"messages: expected the user's turn at the end, found {found}; end with what is to be answered")


def _limit(row: dict[str, Any]) -> int | None:
    limit = row.get("max_new_tokens")
    if limit is None:
        return None
    if not isinstance(limit, int) or isinstance(limit, bool) or limit < 1:
        raise RowError(f"max_new_tokens: expected a whole number from 1, found {excerpt(str(limit))}; mend it")
    return limit
