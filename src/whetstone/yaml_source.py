"""A YAML file that remembers the line of every key, so that a mistake can be shown where it stands."""

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from whetstone.errors import UserError

__all__ = ["YamlSource"]

Key = str | int

_PLAIN_WORDS = {
    "missing": "is required",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "string_type": "must be text",
    "bool_type": "must be true or false",
    "tuple_type": "must be a list",
    "model_type": "must be a section with keys of its own",
    "dict_type": "must be a section with keys of its own",
    "finite_number": "must be a finite number",
}


class _Loader(yaml.SafeLoader):
    """SafeLoader that reads ``2e-4`` as a number, as YAML 1.2 does and PyYAML's YAML 1.1 does not."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?[0-9][0-9_]*(\.[0-9_]*)?[eE][-+]?[0-9]+$"),
    list("-+0123456789"),
)


@dataclass(frozen=True)
class YamlSource:
    """Parsed YAML and the positions of its keys."""

    path: Path
    root: yaml.MappingNode
    values: dict[str, Any]

    @classmethod
    def read(cls, path: Path) -> "YamlSource":
        """Reads a file that must hold one mapping.

        Raises:
            UserError: Missing or unreadable file, bad YAML, a repeated key, or something other than a mapping.
        """
        try:
            text = path.read_text(encoding="utf-8-sig")
        except FileNotFoundError:
            raise UserError(f"{path}: no such file; 'whet init' writes one to start from") from None
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"{path}: cannot be read as UTF-8 text ({error}); give a YAML file") from None
        try:
            loader = _Loader(text)
            root = loader.get_single_node()
            if not isinstance(root, yaml.MappingNode):
                raise UserError(f"{path}:1: expected 'key: value' lines, found something else; see 'whet init'")
            _refuse_repeated_keys(path, root)
            values = loader.construct_document(root)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            line = mark.line + 1 if mark else 1
            raise UserError(f"{path}:{line}: not YAML: {error.problem}; mend the line (or quote it)") from None
        except (yaml.YAMLError, ValueError) as error:
            raise UserError(f"{path}:1: not YAML: {str(error).splitlines()[0]}; mend the file") from None
        except RecursionError:
            raise UserError(f"{path}:1: nested too deeply, or an anchor that holds itself; mend the file") from None
        return cls(path, root, values)

    def mapping(self) -> dict[str, Any]:
        """The parsed values, with every key and value of a type that JSON has."""
        _refuse_foreign_values(self, self.values, ())
        return dict(self.values)

    def line(self, key: Sequence[Key]) -> int:
        """The line of the deepest part of ``key`` that the file holds, counted from 1."""
        node: yaml.Node = self.root
        line = 1
        for part in key:
            found = _child(node, part)
            if found is not None:
                line, node = found
        return line

    def problem(self, key: Sequence[Key], message: str) -> UserError:
        """One line that names file, line, key and mend."""
        return UserError(f"{self.path}:{self.line(key)}: {'.'.join(map(str, key))}: {message}")

    def explain(self, error: ValidationError, schema: type[BaseModel]) -> UserError:
        """Turns the first problem that pydantic found into one plain line and counts the others."""
        problems = [self._plain(detail, schema) for detail in error.errors() if not _is_echo(detail)]
        # A misspelt key is reported as unknown and as missing; the unknown one is where the mend is.
        problems.sort(key=lambda problem: ("is required" in problem[1], self.line(problem[0])))
        key, message = problems[0]
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        return self.problem(key, message + more)

    def _plain(self, detail: Any, schema: type[BaseModel]) -> tuple[list[Key], str]:
        key = self._known_part(detail["loc"])
        kind, value = detail["type"], detail.get("input")
        if kind == "extra_forbidden":
            return key, _unknown_key(str(key[-1]), _sibling_keys(schema, detail["loc"]))
        if kind == "missing":
            return [*key, str(detail["loc"][-1])], "is required; add it"
        if kind == "value_error":
            cause = detail["ctx"]["error"]
            return [*key, *getattr(cause, "key", "").split(".")] if getattr(cause, "key", "") else key, str(cause)
        if kind == "literal_error":
            return key, _unknown_choice(str(value), detail["ctx"]["expected"])
        words = _PLAIN_WORDS.get(kind, detail["msg"][0].lower() + detail["msg"][1:])
        return key, f"{words}, found {_shown(value)}"

    def _known_part(self, location: Sequence[Key]) -> list[Key]:
        """Drops the union tags that pydantic puts between the keys of the file."""
        key: list[Key] = []
        node: yaml.Node = self.root
        for part in location:
            found = _child(node, part)
            if found is not None:
                key.append(part)
                node = found[1]
        return key


def _child(node: yaml.Node, part: Key) -> tuple[int, yaml.Node] | None:
    if isinstance(node, yaml.MappingNode):
        for key_node, value_node in node.value:
            if key_node.value == str(part):
                return key_node.start_mark.line + 1, value_node
    if isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
        return node.value[part].start_mark.line + 1, node.value[part]
    return None


def _is_echo(detail: Any) -> bool:
    """A list whose items all failed is reported as empty too; the items are the news."""
    return detail["type"] == "too_short" and bool(detail["input"])


def _refuse_repeated_keys(path: Path, node: yaml.Node) -> None:
    children = []
    if isinstance(node, yaml.MappingNode):
        seen: dict[str, int] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                raise UserError(f"{path}:{line}: a key must be text; quote it if braces or brackets are meant")
            if key_node.value in seen:
                raise UserError(
                    f"{path}:{line}: {key_node.value}: already given on line {seen[key_node.value]}; keep one"
                )
            seen[str(key_node.value)] = line
            children.append(value_node)
    elif isinstance(node, yaml.SequenceNode):
        children = node.value
    for child in children:
        _refuse_repeated_keys(path, child)


def _refuse_foreign_values(source: YamlSource, value: Any, key: tuple[Key, ...]) -> None:
    """YAML reads ``2026-01-01`` as a date and ``1: x`` as a numeric key; an experiment holds neither."""
    if isinstance(value, dict):
        for name, child in value.items():
            if not isinstance(name, str):
                raise source.problem((*key, str(name)), "a key must be text; quote it")
            _refuse_foreign_values(source, child, (*key, name))
    elif isinstance(value, list):
        for index, child in enumerate(value):
            _refuse_foreign_values(source, child, (*key, index))
    elif not isinstance(value, str | int | float | bool | None):
        raise source.problem(key, f"YAML reads this as {type(value).__name__}; quote it if text is meant")


def _sibling_keys(schema: type[BaseModel], location: Sequence[Key]) -> list[str]:
    """The keys that the schema knows where an unknown one stood."""
    known: list[type[BaseModel]] = [schema]
    for part in location[:-1]:
        fields = [field for model in known for key, field in _by_key(model) if key == part]
        if fields:
            known = [model for field in fields for model in _models_in(field.annotation)]
        elif isinstance(part, str):
            known = [model for model in known if part.strip("<>") in model.__name__.lower()]
    return [key for model in known for key, _ in _by_key(model)]


def _by_key(model: type[BaseModel]) -> list[tuple[str, FieldInfo]]:
    """The fields of a section as a file names them."""
    return [(field.alias or name, field) for name, field in model.model_fields.items()]


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for argument in getattr(annotation, "__args__", ()) for model in _models_in(argument)]


def _unknown_key(key: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    return "unknown key; " + (f"did you mean '{near[0]}'?" if near else f"valid here: {', '.join(known)}")


def _unknown_choice(value: str, expected: str) -> str:
    choices = [choice.strip(" '") for choice in expected.replace(" or ", ",").split(",") if choice.strip(" '")]
    near = difflib.get_close_matches(value, choices, n=1, cutoff=0.5)
    hint = f"did you mean '{near[0]}'? " if near else ""
    return f"'{value}' is not a choice here; {hint}choose from: {', '.join(choices)}"


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."
