"""What an answer has to fulfil whatever it says: its form, its length, what must and must not stand in it."""

import json
import re
from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["Requirements"]

_LIST_ITEM = re.compile(r"^\s*(?:[-*+\u2022]|\d+[.)])\s+\S")


@dataclass(frozen=True, slots=True)
class Requirements:
    """Conditions that an answer meets or does not; what is None is not asked.

    Attributes:
        pattern: A regular expression that is found in the answer (``re.search``, ``.`` does not match line ends).
        forbidden: A regular expression that is not found in it.
        json_schema: The answer is JSON and nothing else, and valid by this schema (Draft 2020-12).
        min_words: Words at least.
        max_words: Words at most.
        list_items: So many lines that begin with a dash, a bullet or a number.
        max_chars: Characters at most.
    """

    pattern: str | None = None
    forbidden: str | None = None
    json_schema: dict[str, Any] | None = None
    min_words: int | None = None
    max_words: int | None = None
    list_items: int | None = None
    max_chars: int | None = None

    def problem(self) -> str | None:
        """What is wrong with the requirements themselves; None when nothing is."""
        for name in ("pattern", "forbidden"):
            try:
                re.compile(getattr(self, name) or "")
            except re.error as error:
                return f"{name}: no regular expression ({error}); mend it"
        if self.json_schema is not None:
            # Importing it takes a tenth of a second, which commands that judge nothing need not wait for.
            from jsonschema import Draft202012Validator
            from jsonschema.exceptions import SchemaError
            from referencing.exceptions import Unresolvable

            try:
                Draft202012Validator.check_schema(self.json_schema)
                # What a check of the schema alone does not see: references to nothing, and patterns that are none.
                _accepts(self.json_schema, {})
            except (SchemaError, Unresolvable, re.error) as error:
                reason = error.message if isinstance(error, SchemaError) else error
                return f"json_schema: not a JSON schema ({reason}); mend it"
        return None if self.as_row() else "asks nothing; give a requirement or leave the key out"

    def unmet(self, answer: str) -> list[str]:
        """The names of the conditions that an answer does not meet."""
        words = len(answer.split())
        met = {
            "pattern": lambda: re.search(self.pattern or "", answer) is not None,
            "forbidden": lambda: re.search(self.forbidden or "", answer) is None,
            "json_schema": lambda: _is_valid_json(answer, self.json_schema or {}),
            "min_words": lambda: words >= (self.min_words or 0),
            "max_words": lambda: words <= (self.max_words or 0),
            "list_items": lambda: sum(map(bool, map(_LIST_ITEM.match, answer.splitlines()))) == self.list_items,
            "max_chars": lambda: len(answer.strip()) <= (self.max_chars or 0),
        }
        return [name for name in self.as_row() if not met[name]()]

    def as_row(self) -> dict[str, Any]:
        """What is asked, by name."""
        return {name: value for name, value in asdict(self).items() if value is not None}


def _is_valid_json(answer: str, schema: dict[str, Any]) -> bool:
    try:
        return _accepts(schema, json.loads(answer))
    except (ValueError, RecursionError):
        return False


def _accepts(schema: dict[str, Any], value: Any) -> bool:
    """By the schema alone: a reference to another document is not fetched."""
    from jsonschema import Draft202012Validator
    from referencing import Registry

    return Draft202012Validator(schema, registry=Registry()).is_valid(value)
