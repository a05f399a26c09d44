"""Folders of data files, and data sets on the Hugging Face hub: which files or splits make which part.

A local folder is read by this package itself, so that a fault names file and line; the hub is left to ``datasets``.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from whetstone.data.finding import excerpt
from whetstone.data.rows import RawRow, arrow_rows
from whetstone.errors import UserError
from whetstone.source_name import SUFFIXES, data_suffix

__all__ = ["HubPlace", "folder_parts", "hub_parts"]

_PART_OF = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "dev": "validation",
    "val": "validation",
    "test": "test",
    "testing": "test",
    "eval": "test",
    "evaluation": "test",
}
"""The names that ``datasets`` knows (https://huggingface.co/docs/datasets/repository_structure)."""

_METADATA = frozenset({"dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json"})
_BATCH_ROWS = 1024


@dataclass(frozen=True, slots=True)
class HubPlace:
    """A data set on the hub.

    Attributes:
        name: ``owner/name``.
        subset: Which of its configurations; None where it has one.
        split: The one split that is read; None for all.
        folder: The folder in its repository; None for all.
    """

    name: str
    subset: str | None = None
    split: str | None = None
    folder: str | None = None


def folder_parts(folder: Path) -> dict[str, list[Path]]:
    """The data files of a folder by the part that their names, or their folders' names, say.

    Returns:
        ``train``, ``validation`` and ``test`` as far as there are files for them; ``all`` where there is one part.

    Raises:
        UserError: There are no data files, a file's part is not clear, or a part has files of different kinds.
    """
    try:
        files = sorted(path for path in folder.rglob("*") if _is_data(path.relative_to(folder)) and path.is_file())
    except OSError as error:
        raise UserError(f"{folder}: cannot be read ({error.strerror}); give a folder that may be read") from None
    if not files:
        raise UserError(f"{folder}: no data files; a folder must hold files that end in {', '.join(SUFFIXES)}")
    parts: dict[str, list[Path]] = {}
    for path in files:
        parts.setdefault(_part(folder, path), []).append(path)
    if "all" in parts and len(parts) > 1:
        raise UserError(
            f"{folder}: the name of {parts['all'][0].relative_to(folder)} has none of train, validation and test, but "
            f"others have; name its part or move it away"
        )
    for name, paths in parts.items():
        kinds = sorted({data_suffix(path) for path in paths})
        if len(kinds) > 1:
            raise UserError(f"{folder}: the {name} part has files of different kinds ({', '.join(kinds)}); keep one")
    return parts if len(parts) > 1 else {"all": files}


def hub_parts(place: HubPlace) -> dict[str, Iterator[RawRow]]:
    """The rows of a data set on the hub, by part; ``all`` where there is one split.

    ``datasets`` runs no code from the hub, from version 4 on.

    Raises:
        UserError: It cannot be had, or its splits have names that say nothing.
    """
    import datasets

    try:
        loaded = datasets.load_dataset(place.name, place.subset, split=place.split, data_dir=place.folder)
    # What goes wrong in there has no common type: network, hub, formats, checksums, configurations.
    except Exception as error:
        reason = excerpt(str(error), 300) or type(error).__name__
        raise UserError(
            f"{place.name}: no such path here, and the hub did not give it ({reason}); mend the name or the network"
        ) from error
    splits: Mapping[str, Any] = {place.split: loaded} if place.split is not None else loaded
    if len(splits) == 1:
        return {"all": _rows(place.name, next(iter(splits.values())))}
    parts = {_PART_OF.get(str(name).lower(), ""): name for name in splits}
    if "" in parts or len(parts) < len(splits):
        raise UserError(
            f"{place.name}: its splits {', '.join(map(str, splits))} are not train, validation and test; "
            f"download the files to use and name them"
        )
    return {part: _rows(f"{place.name} {name}", splits[name]) for part, name in parts.items()}


def _rows(name: str, split: Any) -> Iterator[RawRow]:
    return arrow_rows(name, split.with_format("arrow").iter(_BATCH_ROWS))


def _is_data(path: Path) -> bool:
    return bool(data_suffix(path)) and path.name not in _METADATA and not any(part[0] in "._" for part in path.parts)


def _part(folder: Path, path: Path) -> str:
    """The part that a file's name says; else its folder's, the nearest first; else ``all``."""
    for name in reversed(path.relative_to(folder).parts):
        words = re.split(r"[-._ 0-9]+", name.lower())
        parts = sorted({_PART_OF[word] for word in words if word in _PART_OF})
        if len(parts) > 1:
            raise UserError(f"{path}: the name says {' and '.join(parts)}; name one part")
        if parts:
            return parts[0]
    return "all"
