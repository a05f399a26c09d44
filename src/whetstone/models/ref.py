"""One text names any model.

| text | what it is |
|---|---|
| ``org/name``, ``DIR``, ``builtin:demo-base`` | weights of the hub, of a folder, those that ship with the package |
| ``BASE+ADAPTER`` | any of these, with the adapter of a folder on it |
| ``run:NAME`` | what a run tuned: its adapter on its base, or its whole model |
| ``run:NAME#base`` | what it was tuned from |
| ``run:NAME#merged`` | its adapter merged into the base |
| ``random:BASE`` | random weights in the shape of a base: for measuring speed |
| ``gguf:FILE`` | one file of llama.cpp |
| ``mlx:BASE``, ``mlx:BASE+ADAPTER``, ``mlx:run:NAME`` | the same weights, by MLX |
| ``http://HOST/v1#MODEL``, ``https://...`` | a model of a server that speaks OpenAI's protocol |

What torch runs may end with ``@float32``, ``@bfloat16``, ``@int8`` or ``@nf4``: so are its weights. ``run:NAME`` of a
QLoRA run is what was trained, an adapter on a base in NF4, unless that is said; its ``#base`` is the whole base, and
its ``#merged`` and ``mlx:run:NAME`` have the adapter on the whole base.

Notable: file names may hold every one of ``: + @ #``. A folder that is there as it is written wins over every other
reading; to know that is up to the caller (``exists``), so that reading a text needs no disk.
"""

import difflib
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args
from urllib.parse import urlsplit

from whetstone.errors import UserError
from whetstone.experiment import NAME_PATTERN
from whetstone.models.builtin import BUILTIN_BASE

__all__ = [
    "Gguf",
    "Mlx",
    "ModelRef",
    "Precision",
    "RandomWeights",
    "RunModel",
    "RunPart",
    "Server",
    "Weights",
    "is_there",
    "nearest",
    "parse_ref",
]

Precision = Literal["float32", "bfloat16", "int8", "nf4"]
"""How weights are held; int8 and NF4 are rounded while they are read."""

RunPart = Literal["tuned", "base", "merged"]
"""What of a run."""

_PRECISIONS: tuple[Precision, ...] = get_args(Precision)
_PARTS: tuple[RunPart, ...] = ("base", "merged")
_KINDS = ("builtin", "gguf", "http", "https", "mlx", "random", "run")

# One letter before a colon is a drive of Windows.
_KIND = re.compile(r"([A-Za-z][A-Za-z0-9_.-]+):")


@dataclass(frozen=True, slots=True)
class Weights:
    """Weights that lie somewhere.

    Attributes:
        base: A folder, a hub id, or ``builtin:demo-base``.
        adapter: The folder of an adapter on it.
        precision: How the weights are held; None as they are stored.
    """

    base: str
    adapter: str | None = None
    precision: Precision | None = None

    def __str__(self) -> str:
        return self.base + _said("+", self.adapter) + _said("@", self.precision)


@dataclass(frozen=True, slots=True)
class RunModel:
    """A model of a run.

    Attributes:
        name: Of the run.
        part: Which of its models.
        precision: How the weights are held; None as the run trained or judged them.
    """

    name: str
    part: RunPart = "tuned"
    precision: Precision | None = None

    def __str__(self) -> str:
        return f"run:{self.name}{_said('#', None if self.part == 'tuned' else self.part)}{_said('@', self.precision)}"


@dataclass(frozen=True, slots=True)
class RandomWeights:
    """Random weights.

    Attributes:
        base: Whose shape, tokenizer and template they have.
        precision: ``float32`` or ``bfloat16``.
    """

    base: str
    precision: Precision | None = None

    def __str__(self) -> str:
        return f"random:{self.base}{_said('@', self.precision)}"


@dataclass(frozen=True, slots=True)
class Gguf:
    """A file of llama.cpp; it says itself how its weights are held."""

    file: str

    def __str__(self) -> str:
        return f"gguf:{self.file}"


@dataclass(frozen=True, slots=True)
class Mlx:
    """Weights that MLX runs, as they are stored."""

    model: Weights | RunModel

    def __str__(self) -> str:
        return f"mlx:{self.model}"


@dataclass(frozen=True, slots=True)
class Server:
    """A model of a server.

    Attributes:
        url: The address, up to ``/v1``.
        model: What the server calls the model.
    """

    url: str
    model: str

    def __str__(self) -> str:
        return f"{self.url}#{self.model}"


ModelRef = Weights | RunModel | RandomWeights | Gguf | Mlx | Server

Exists = Callable[[str], bool]
"""Whether there is a file or folder of this name."""


def is_there(name: str) -> bool:
    """Whether a text is the name of a file or folder, as it is written."""
    try:
        return bool(name) and Path(name).exists()
    except (OSError, ValueError):  # too long for a name, or with a zero in it
        return False


def parse_ref(text: str, exists: Exists = lambda name: False) -> ModelRef:
    """Reads a text; ``str`` of what it gives is the text again.

    Args:
        text: What names a model.
        exists: Whether there is a file or folder of a name; what is there as it is written is meant.

    Raises:
        UserError: It names none.
    """
    folders = _as_folders(text, exists)
    if folders is not None:
        return folders
    if text != text.strip() or not text.isprintable() or not text:
        raise UserError(f"{text!r}: names no model; give a folder, a hub id, run:NAME or gguf:FILE")
    kind, _, rest = text.partition(":")
    if kind in ("http", "https"):
        return _server(text)
    if kind == "gguf":
        return _gguf(text, rest, exists)
    if kind == "mlx":
        return _mlx(text, rest, exists)
    if kind == "run":
        return _run(text)
    if kind == "random":
        inner = _as_folders(rest, exists) or _weights(text, rest)
        if inner.adapter is not None or inner.precision in ("int8", "nf4"):
            raise UserError(f"{text}: random weights have no adapter, and are float32 or bfloat16; leave the rest out")
        return RandomWeights(inner.base, inner.precision)
    return _weights(text, text)


def nearest(name: str, there: Iterable[str]) -> str:
    """The name of a list that is most like another, as the end of a message; empty where none is."""
    close = difflib.get_close_matches(name, list(there), n=1)
    return f"; did you mean '{close[0]}'?" if close else ""


def _said(mark: str, value: str | None) -> str:
    return "" if value is None else mark + value


def _as_folders(text: str, exists: Exists) -> Weights | None:
    """The reading in which the base, and an adapter if possible, are there as they are written."""
    if exists(text):
        return Weights(text)
    named, precision = text, None
    for known in _PRECISIONS:
        if text.endswith(f"@{known}"):
            named, precision = text.removesuffix(f"@{known}"), known
    if precision is not None and exists(named):
        return Weights(named, precision=precision)
    borders = [index for index, character in enumerate(named) if character == "+" and exists(named[:index])]
    if not borders:
        return None
    border = max(borders, key=lambda index: (exists(named[index + 1 :]), index))
    return Weights(named[:border], named[border + 1 :], precision) if named[border + 1 :] else None


def _weights(text: str, named: str) -> Weights:
    """Reads a part of a text that has to be ``BASE[+ADAPTER][@PRECISION]``."""
    kind = _KIND.match(named)
    if kind and kind[1] != "builtin":
        hint = nearest(kind[1], _KINDS)
        raise UserError(f"{text}: no folder, and no kind of model is called '{kind[1]}:' here{hint}")
    if "#" in named:
        raise UserError(
            f"{text}: no such folder; '#' stands in run:NAME#base, run:NAME#merged and http://HOST/v1#MODEL"
        )
    body, precision = _split_precision(text, named)
    base, plus, adapter = body.partition("+")
    if not base or (plus and not adapter):
        raise UserError(f"{text}: names no {'adapter' if base else 'weights'}; give BASE or BASE+ADAPTER")
    if kind and base != BUILTIN_BASE:
        raise UserError(f"{text}: '{base}' does not ship with whet; {BUILTIN_BASE} does")
    return Weights(base, adapter if plus else None, precision)


def _split_precision(text: str, named: str) -> tuple[str, Precision | None]:
    body, mark, said = named.rpartition("@")
    # A path may go on behind the sign: models@home/base.
    if not mark or re.search(r"[/\\+]", said):
        return named, None
    for precision in _PRECISIONS:
        if said == precision:
            return body, precision
    raise UserError(f"{text}: '@{said}' is no precision; {', '.join(_PRECISIONS)} are{nearest(said, _PRECISIONS)}")


def _run(text: str) -> RunModel:
    body, precision = _split_precision(text, text.removeprefix("run:"))
    name, mark, said = body.partition("#")
    if not re.fullmatch(NAME_PATTERN, name):
        raise UserError(f"{text}: '{name}' cannot be a run's name; give run:NAME, 'whet runs' lists what there is")
    if not mark:
        return RunModel(name, precision=precision)
    for part in _PARTS:
        if said == part:
            return RunModel(name, part, precision)
    hint = nearest(said, _PARTS)
    raise UserError(f"{text}: '#{said}' is no part of a run; '#base' and '#merged' are, run:{name} is its result{hint}")


def _gguf(text: str, file: str, exists: Exists) -> Gguf:
    if not file:
        raise UserError(f"{text}: which file? give gguf:FILE")
    said = file.rpartition("@")[2]
    if said != file and said in _PRECISIONS and not exists(file):
        raise UserError(f"{text}: a GGUF file is quantised as it is; leave out '@{said}'")
    return Gguf(file)


def _mlx(text: str, named: str, exists: Exists) -> Mlx:
    folders = _as_folders(named, exists)
    inner = folders or (_run(named) if named.startswith("run:") else _weights(text, named))
    if inner.precision is not None:
        raise UserError(f"{text}: MLX takes weights as they are stored; leave out '@{inner.precision}'")
    if isinstance(inner, RunModel) and inner.part != "tuned":
        raise UserError(f"{text}: MLX takes what a run tuned; give mlx:run:{inner.name}, or the folder of its base")
    return Mlx(inner)


def _server(text: str) -> Server:
    url, _, model = text.partition("#")
    try:
        parts = urlsplit(url)
        whole = bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        whole = False
    if not whole or " " in url:
        raise UserError(f"{text}: not an address; give http://HOST:PORT/v1#MODEL")
    if parts.username is not None or parts.password is not None:
        raise UserError(f"{parts.scheme}://...@{parts.hostname}: a key does not belong here; set WHETSTONE_API_KEY")
    if parts.query or not model:
        raise UserError(f"{text}: which model of the server? give {parts.scheme}://{parts.netloc}{parts.path}#MODEL")
    return Server(url, model)
