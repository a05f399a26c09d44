"""Checkpoints on disk: each is whole and proven by its hashes, or it is not used.

A checkpoint is a folder ``step-000120`` of parts. A part is any value made of tensors and numbers (the weights, the
state of an optimiser, of the random generators): ``NAME.json`` holds its shape and numbers, ``NAME.safetensors`` its
tensors, each stored once however often the value refers to it. ``checkpoint.json`` is written last, with the size and
SHA-256 of every file and of itself.

Notable: nothing is pickled, so a checkpoint can be read but cannot run code. A folder gets its name in one rename after
its files and the directory are forced to disk, and loses it in one rename before it is deleted. Training has one line
of time: whatever has a later step than the checkpoint just saved belongs to an attempt that was abandoned, and goes.
"""

import hashlib
import json
import math
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from whetstone.errors import UserError
from whetstone.files import atomic_folder
from whetstone.tune_section import Checkpoints

__all__ = ["Checkpoint", "CheckpointStore", "read_checkpoint", "read_part"]

_MANIFEST = "checkpoint.json"
_PREFIX = "step-"
_GIGABYTE = 1e9


class _File(BaseModel):
    """What a file of a checkpoint must be."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    size_bytes: int
    sha256: str


class _Manifest(BaseModel):
    """The content of ``checkpoint.json``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    step: int
    validation_loss: float | None
    files: dict[str, _File]
    sha256: str = ""
    """Of all the fields above."""

    def digest(self) -> str:
        """What :attr:`sha256` must be."""
        return hashlib.sha256(self.model_dump_json(exclude={"sha256"}).encode()).hexdigest()


class _DamagedError(Exception):
    """A checkpoint is not what its manifest says; the text says in what."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint on disk.

    Attributes:
        folder: Its files.
        step: Optimiser steps done.
        validation_loss: At this step, where a finite one was measured.
        size_bytes: Of all files.
    """

    folder: Path
    step: int
    validation_loss: float | None
    size_bytes: int

    def part(self, name: str) -> Any:
        """One of the values that were saved; tensors are on the CPU."""
        return read_part(self.folder, name)


def read_checkpoint(folder: Path) -> Checkpoint:
    """Finds a checkpoint and proves every file by its SHA-256.

    Raises:
        UserError: Something is missing or is not what was written.
    """
    try:
        return _inspect(folder, hashes=True)
    except _DamagedError as error:
        raise UserError(f"{folder}: {error}; delete the folder, 'whet tune --resume' takes the one before") from None


def read_part(folder: Path, name: str) -> Any:
    """Reads a part as it was saved; its files are not proven again (:func:`read_checkpoint` does)."""
    path = folder / f"{name}.safetensors"
    value = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
    # Loaded tensors are a view of the file; an optimiser would hold on to it long after the file is deleted.
    tensors = {key: tensor.clone() for key, tensor in load_file(path).items()} if path.exists() else {}
    return _unpack(value, tensors)


class CheckpointStore:
    """The checkpoints of one run; one process writes at a time (the run's lock)."""

    def __init__(self, folder: Path, limits: Checkpoints, say: Callable[[str], None]) -> None:
        """Opens the store; nothing is written before the first :meth:`save`.

        Args:
            folder: Where the checkpoints are or will be.
            limits: How many stay, and how much of the disk they may take.
            say: Told, in one line each, of damage and of a limit that cannot be kept.
        """
        self.folder = folder
        self._limits = limits
        self._say = say
        self._said_over_budget = False

    def save(self, step: int, parts: Mapping[str, Any], validation_loss: float | None = None) -> Checkpoint:
        """Writes a checkpoint, then deletes what is not to stay; nothing good goes before the new one is on disk.

        Only where the disk budget would be exceeded while it is written, older ones go before; never the last good one,
        nor the best.

        Args:
            step: Optimiser steps done.
            parts: Values made of tensors, numbers, strings, lists, tuples and dicts, by name.
            validation_loss: At this step; one that is not finite counts as none.

        Raises:
            UserError: It cannot be written, as on a full disk; the checkpoints before are as they were.
        """
        packed = {name: _Packed(value) for name, value in parts.items()}
        needed_bytes = sum(part.size_bytes for part in packed.values())
        for leftover in self.folder.glob(f".{_PREFIX}*"):
            shutil.rmtree(leftover, ignore_errors=True)
        self._make_room(needed_bytes)
        target = self.folder / f"{_PREFIX}{step:06d}"
        loss = validation_loss if validation_loss is not None and math.isfinite(validation_loss) else None
        try:
            with atomic_folder(target) as partial:
                for name, part in packed.items():
                    part.write(partial, name)
                _write_manifest(partial, step, loss)
                _sync_folder(partial)
            _sync_folder(self.folder)
        except (OSError, SafetensorError, UserError) as error:
            raise UserError(self._not_saved(target, needed_bytes, error)) from error
        self._prune(step)
        return _inspect(target, hashes=False)

    def newest(self) -> Checkpoint | None:
        """The newest checkpoint whose every hash is right; damaged ones are named and skipped."""
        folders = self._folders()
        for folder in reversed(folders):
            try:
                return _inspect(folder, hashes=True)
            except _DamagedError as error:
                self._say(f"warning: {folder}: {error}; it is skipped for the checkpoint before it")
        self._say(f"{self.folder}: {'no checkpoint here is whole' if folders else 'there is no checkpoint'}")
        return None

    def best(self) -> Checkpoint | None:
        """The one of the lowest validation loss, the earlier of equals; its hashes are not looked at."""
        return _best(self._whole())

    def _folders(self) -> list[Path]:
        """Everything with the name of a checkpoint, older ones first."""
        return sorted((path for path in self.folder.glob(f"{_PREFIX}*") if _step_of(path) >= 0), key=_step_of)

    def _whole(self) -> list[Checkpoint]:
        """Those with every file at its full length, older ones first."""
        return [checkpoint for folder in self._folders() if (checkpoint := _if_whole(folder, hashes=False))]

    def _proven(self) -> Iterator[Checkpoint]:
        """Those whose every hash is right, newer ones first."""
        return (checkpoint for folder in reversed(self._folders()) if (checkpoint := _if_whole(folder, hashes=True)))

    def _make_room(self, needed_bytes: int) -> None:
        """Deletes older ones where a new one would not fit into the budget beside them."""
        if self._excess(self._whole(), needed_bytes) > 0:
            last_good, best = next(self._proven(), None), self.best()
            self._shrink([last_good, best], needed_bytes)

    def _prune(self, step: int) -> None:
        """Leaves the newest, the best, and what fits beside them."""
        timeline = {found.folder: found for found in self._whole() if found.step <= step}
        for folder in self._folders():
            if folder not in timeline:
                self._delete(folder)
        newest_last = list(timeline.values())
        best = _best(newest_last)
        for found in newest_last[: -self._limits.keep]:
            if found != best:
                self._delete(found.folder)
        over_bytes = self._shrink([newest_last[-1], best], 0)
        if over_bytes > 0 and not self._said_over_budget:
            self._said_over_budget = True
            self._say(
                f"warning: the newest {'and the best ' if best not in (None, newest_last[-1]) else ''}checkpoint in "
                f"{self.folder} exceed tune.checkpoints.disk_gigabytes ({self._limits.disk_gigabytes:g}) by "
                f"{over_bytes / _GIGABYTE:.3g} GB and are kept; raise it"
            )

    def _shrink(self, spared: list[Checkpoint | None], incoming_bytes: int) -> float:
        """Deletes the oldest but those spared until the budget is kept; returns by how many bytes it still is not."""
        left = self._whole()
        for found in list(left):
            if self._excess(left, incoming_bytes) > 0 and found not in spared:
                self._delete(found.folder)
                left.remove(found)
        return self._excess(left, incoming_bytes)

    def _excess(self, checkpoints: list[Checkpoint], incoming_bytes: int) -> float:
        """Bytes over the budget; negative where it is kept."""
        if self._limits.disk_gigabytes is None:
            return -math.inf
        total_bytes = sum(found.size_bytes for found in checkpoints)
        return total_bytes + incoming_bytes - self._limits.disk_gigabytes * _GIGABYTE

    def _delete(self, folder: Path) -> None:
        """Takes its name from a checkpoint first, so that one that is half deleted is never mistaken for one."""
        nameless = folder.with_name(f".{folder.name}.deleted")
        try:
            shutil.rmtree(nameless, ignore_errors=True)
            folder.rename(nameless)
            shutil.rmtree(nameless)
        except OSError as error:
            self._say(f"warning: {folder}: cannot be deleted ({error.strerror}); delete it to free the space")

    def _not_saved(self, target: Path, needed_bytes: int, error: BaseException) -> str:
        cause = error.__cause__ or error
        reason = cause.strerror if isinstance(cause, OSError) and cause.strerror else cause
        last_good = next(self._proven(), None)
        mend = (
            "there is no good checkpoint yet: free some space, then 'whet tune' starts again"
            if last_good is None
            else f"the last good checkpoint is step {last_good.step}: free some space, then 'whet tune --resume' goes "
            "on from there"
        )
        return (
            f"{target.parent}: the checkpoint of step {_step_of(target)} cannot be saved ({reason}); it needs "
            f"{needed_bytes / 1e6:,.1f} MB; {mend}"
        )


class _Packed:
    """A value taken apart into JSON and tensors.

    JSON has no tensors, tuples, keys that are numbers, nor infinity; these become objects of one key that begins with
    a dollar sign.
    """

    def __init__(self, value: Any) -> None:
        self.tensors: dict[str, torch.Tensor] = {}
        self._names: dict[tuple[Any, ...], str] = {}
        self._value = self._pack(value, ())
        self.size_bytes = sum(tensor.nbytes for tensor in self.tensors.values())

    def write(self, folder: Path, name: str) -> None:
        """Writes the one or two files of a part."""
        (folder / f"{name}.json").write_text(json.dumps(self._value, allow_nan=False) + "\n", encoding="utf-8")
        if self.tensors:
            save_file(self.tensors, folder / f"{name}.safetensors")

    def _pack(self, value: Any, path: tuple[str, ...]) -> Any:
        match value:
            case torch.Tensor():
                return {"$tensor": self._name(value, path)}
            case None | bool() | int() | str():
                return value
            case float():
                return value if math.isfinite(value) else {"$float": repr(float(value))}
            case list():
                return [self._pack(item, (*path, str(place))) for place, item in enumerate(value)]
            case tuple():
                return {"$tuple": self._pack(list(value), path)}
            case dict() if all(isinstance(key, str) and not key.startswith("$") for key in value):
                return {key: self._pack(item, (*path, key)) for key, item in value.items()}
            case dict():
                return {"$dict": [[self._pack(key, path), self._pack(value[key], (*path, str(key)))] for key in value]}
        raise TypeError(f"{'/'.join(path)}: a checkpoint cannot hold a {type(value).__name__}")

    def _name(self, tensor: torch.Tensor, path: tuple[str, ...]) -> str:
        identity = (tensor.device, tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride())
        if identity in self._names:
            return self._names[identity]
        name = "/".join(path)
        if name in self.tensors:
            raise ValueError(f"{name}: two tensors of a checkpoint have this name")
        held = tensor.detach().cpu().contiguous()
        # safetensors refuses a view into a larger storage.
        self.tensors[name] = held if held.untyped_storage().nbytes() == held.nbytes else held.clone()
        self._names[identity] = name
        return name


def _unpack(value: Any, tensors: Mapping[str, torch.Tensor]) -> Any:
    """The value that was packed."""
    match value:
        case {"$tensor": name}:
            return tensors[name]
        case {"$float": text}:
            return float(text)
        case {"$tuple": items}:
            return tuple(_unpack(items, tensors))
        case {"$dict": pairs}:
            return {_unpack(key, tensors): _unpack(item, tensors) for key, item in pairs}
        case dict():
            return {key: _unpack(item, tensors) for key, item in value.items()}
        case list():
            return [_unpack(item, tensors) for item in value]
    return value


def _inspect(folder: Path, *, hashes: bool) -> Checkpoint:
    """Compares a folder with its manifest: lengths always, hashes where asked for.

    Raises:
        _DamagedError: They differ.
    """
    try:
        manifest = _Manifest.model_validate_json((folder / _MANIFEST).read_bytes())
    except FileNotFoundError:
        raise _DamagedError(f"{_MANIFEST} is missing") from None
    except OSError as error:
        raise _DamagedError(f"{_MANIFEST} cannot be read ({error.strerror})") from None
    except ValidationError as error:
        raise _DamagedError(f"{_MANIFEST} is not a manifest ({error.errors()[0]['msg']})") from None
    if manifest.sha256 != manifest.digest():
        raise _DamagedError(f"{_MANIFEST} does not match its own SHA-256")
    if manifest.step != _step_of(folder):
        raise _DamagedError(f"{_MANIFEST} is of step {manifest.step}")
    for name, file in manifest.files.items():
        try:
            size_bytes = (folder / name).stat().st_size
            if size_bytes != file.size_bytes:
                raise _DamagedError(f"{name} has {size_bytes:,} bytes instead of {file.size_bytes:,}")
            if hashes and _sha256(folder / name) != file.sha256:
                raise _DamagedError(f"{name} does not match its SHA-256")
        except FileNotFoundError:
            raise _DamagedError(f"{name} is missing") from None
        except OSError as error:
            raise _DamagedError(f"{name} cannot be read ({error.strerror})") from None
    size_bytes = sum(file.size_bytes for file in manifest.files.values()) + (folder / _MANIFEST).stat().st_size
    return Checkpoint(folder, manifest.step, manifest.validation_loss, size_bytes)


def _if_whole(folder: Path, *, hashes: bool) -> Checkpoint | None:
    try:
        return _inspect(folder, hashes=hashes)
    except _DamagedError:
        return None


def _best(checkpoints: list[Checkpoint]) -> Checkpoint | None:
    measured = [
        (found.validation_loss, found.step, found) for found in checkpoints if found.validation_loss is not None
    ]
    return min(measured, key=lambda item: item[:2])[2] if measured else None


def _write_manifest(folder: Path, step: int, validation_loss: float | None) -> None:
    files = {
        file.name: _File(size_bytes=file.stat().st_size, sha256=_sha256(file)) for file in sorted(folder.iterdir())
    }
    manifest = _Manifest(step=step, validation_loss=validation_loss, files=files)
    manifest = manifest.model_copy(update={"sha256": manifest.digest()})
    (folder / _MANIFEST).write_text(manifest.model_dump_json(indent=2) + "\n", encoding="utf-8")


def _step_of(folder: Path) -> int:
    digits = folder.name.removeprefix(_PREFIX)
    return int(digits) if digits.isdecimal() else -1


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync_folder(folder: Path) -> None:
    """Forces the names in a folder to disk; the files' content is forced apart from them."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
