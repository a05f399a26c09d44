"""What requests call a model: what the command line says, or what its own name suggests."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from whetstone.errors import UserError
from whetstone.experiment import NAME_PATTERN
from whetstone.models.ref import Gguf, Mlx, ModelRef, RandomWeights, RunModel, Server, Weights, is_there, parse_ref

__all__ = ["NamedModel", "name_models"]

_LONGEST = 64
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9._-]+")
_OF_REFS = re.compile(r"[:/\\#@+~]")
"""What stands before a sign of equality in a reference, and in no name."""


@dataclass(frozen=True, slots=True)
class NamedModel:
    """A model and what requests call it.

    Attributes:
        name: In requests.
        ref: Its name here, as a text.
        model: The same, read.
    """

    name: str
    ref: str
    model: ModelRef


def name_models(arguments: Sequence[str], exists: Callable[[str], bool] = is_there) -> list[NamedModel]:
    """Reads ``[NAME=]REF`` arguments.

    Args:
        arguments: As on the command line.
        exists: Whether there is a file or folder of a name; one that is there as it is written is meant.

    Raises:
        UserError: One of them names no model, a name cannot be used, or two are equal.
    """
    named = [_read(argument, exists) for argument in arguments]
    first: dict[str, NamedModel] = {}
    for one in named:
        if one.name in first:
            refs = f"'{first[one.name].ref}' and '{one.ref}'"
            raise UserError(f"{refs} would both be called '{one.name}' in requests; write NAME=REF for one of them")
        first[one.name] = one
    return named


def _read(argument: str, exists: Callable[[str], bool]) -> NamedModel:
    said, sign, rest = argument.partition("=")
    if not sign or _OF_REFS.search(said) or _is_as_written(argument, exists):
        model = parse_ref(argument, exists)
        return NamedModel(_suggested(model), argument, model)
    if not re.fullmatch(NAME_PATTERN, said):
        raise UserError(
            f"{argument}: requests cannot call a model '{said}'; write NAME=REF with letters, digits, '.', '_' and '-'"
        )
    return NamedModel(said, rest, parse_ref(rest, exists))


def _is_as_written(argument: str, exists: Callable[[str], bool]) -> bool:
    """Whether a file or folder has a sign of equality in its own name."""
    if exists(argument):
        return True
    try:
        model = parse_ref(argument, exists)
    except UserError:
        return False
    return isinstance(model, Weights) and exists(model.base)


def _suggested(model: ModelRef) -> str:
    name = _NOT_IN_NAMES.sub("-", "-".join(_parts(model))).lstrip("._-")[:_LONGEST]
    return name or "model"


def _parts(model: ModelRef) -> list[str]:
    match model:
        case RunModel(name, part, precision):
            return [name, *([] if part == "tuned" else [part]), *_said(precision)]
        case Weights(base, adapter, precision):
            return [_last(base), *([] if adapter is None else [_last(adapter)]), *_said(precision)]
        case RandomWeights(base, precision):
            return ["random", _last(base), *_said(precision)]
        case Gguf(file):
            return [Path(file).stem]
        case Mlx(inner):
            return [*_parts(inner), "mlx"]
        case Server(_, name):
            return [name.rpartition("/")[2]]


def _said(precision: str | None) -> list[str]:
    return [] if precision is None else [precision]


def _last(named: str) -> str:
    """The last part of a folder or hub id, and what stands behind ``builtin:``."""
    last = Path(named.removeprefix("builtin:")).name
    return Path(named).resolve().name if last in ("", "..") else last
