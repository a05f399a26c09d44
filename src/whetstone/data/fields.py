"""The fields of a raw row, read as what they should hold; what they hold otherwise is a fault in one line."""

from typing import Any

from whetstone.data.finding import excerpt
from whetstone.data.strict_json import RowError, checked_json, kind

__all__ = ["label_of", "list_of", "optional_list", "optional_text", "references_of", "text_of"]


def text_of(row: dict[str, Any], key: str) -> str:
    """The text that a field must hold."""
    value = row.get(key)
    if not isinstance(value, str):
        if key not in row:
            found = excerpt(", ".join(row)) or "nothing"
            raise RowError(f"expected the field '{key}', found {found}; add it or set another data.format")
        raise RowError(f"{key}: expected text, found {kind(value)}; give a text")
    return value


def optional_text(row: dict[str, Any], key: str) -> str:
    """The text of a field; "" where it is absent, null or blank."""
    if not key or row.get(key) is None:
        return ""
    text = text_of(row, key)
    return text if text.strip() else ""


def list_of(row: dict[str, Any], key: str) -> list[Any]:
    """The list in a field; a text must hold it as JSON, since a cell of a table cannot hold it otherwise."""
    value = row.get(key)
    if isinstance(value, str):
        held = checked_json(value)
        if isinstance(held, RowError):
            raise RowError(f"{key}: expected a list, found text that is none ({held})")
        value = held
    if not isinstance(value, list):
        if key not in row:
            text_of(row, key)
        raise RowError(f"{key}: expected a list, found {kind(value)}; give a list, in a table as JSON")
    return value


def optional_list(row: dict[str, Any], key: str) -> list[Any]:
    """The list in a field; an empty one where it is absent, null or an empty text."""
    return list_of(row, key) if key and row.get(key) not in (None, "") else []


def references_of(row: dict[str, Any], key: str) -> tuple[str, ...]:
    """The texts in a field, at least one."""
    references = list_of(row, key)
    if not references:
        raise RowError(f"{key}: expected a list of one or more texts, found an empty one; give an answer")
    for number, reference in enumerate(references):
        if not isinstance(reference, str):
            raise RowError(f"{key}[{number}]: expected text, found {kind(reference)}; give a text")
    return tuple(references)


def label_of(row: dict[str, Any], key: str, *, is_named: bool) -> str:
    """A name, which may be a number, true or false; "" where it is absent, null or blank.

    A list or an object is no name. Where the experiment did not name the field, it means something else there.
    """
    value = row.get(key)
    if value is None or (isinstance(value, list | dict) and not is_named):
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if not isinstance(value, str | int | float) or value != value:
        raise RowError(f"{key}: expected text or a number, found {kind(value)}; give a name")
    return str(value) if str(value).strip() else ""
