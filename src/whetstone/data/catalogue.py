"""LLaMA-Factory's ``dataset_info.json``: the catalogue that says where a data set lies and how its rows look.

Source: https://github.com/hiyouga/LLaMA-Factory/blob/main/data/README.md and ``src/llamafactory/data/parser.py``.
"""

import difflib
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from whetstone.data.example import Role
from whetstone.data.finding import excerpt
from whetstone.data.formats import LAYOUTS, SHAREGPT_ROLES, Layout
from whetstone.data.hub import HubPlace
from whetstone.data_section import CatalogueSource
from whetstone.errors import UserError
from whetstone.section import Count

__all__ = ["Listing", "read_listing"]

_UNSUPPORTED_COLUMNS = {
    "images": "pictures",
    "videos": "videos",
    "audios": "sound",
    "tools": "tool calls",
    "chosen": "preference pairs",
    "rejected": "preference pairs",
    "kto_tag": "preference labels",
}


@dataclass(frozen=True, slots=True)
class Listing:
    """Where one data set of a catalogue lies and how its rows look.

    Attributes:
        place: A file or folder, or a place on the hub.
        layout: How a row is read.
        num_samples: How many rows are taken, from the first on; None for all.
    """

    place: Path | HubPlace
    layout: Layout
    num_samples: int | None


class _Part(BaseModel):
    """A part of an entry; the catalogue serves another program too, so unknown keys are none of our business."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")


class _Columns(_Part):
    prompt: str | None = None
    query: str | None = None
    response: str | None = None
    history: str | None = None
    messages: str | None = None
    system: str | None = None


class _Tags(_Part):
    role_tag: str = "from"
    content_tag: str = "value"
    user_tag: str = "human"
    assistant_tag: str = "gpt"
    system_tag: str = "system"


class _Entry(_Part):
    file_name: Annotated[str, Field(min_length=1)] | None = None
    hf_hub_url: Annotated[str, Field(min_length=1)] | None = None
    subset: str | None = None
    split: str = "train"
    folder: str | None = None
    formatting: Literal["alpaca", "sharegpt"] = "alpaca"
    ranking: bool = False
    columns: _Columns | None = None
    tags: _Tags = _Tags()
    num_samples: Count | None = None


def read_listing(source: CatalogueSource) -> Listing:
    """Finds the entry ``source.name`` in the catalogue.

    Raises:
        UserError: The catalogue cannot be read, has no such entry, or the entry asks for what is not supported: a
            loading script, preference pairs, pictures, or a file outside the catalogue's folder.
    """
    path = Path(source.dataset_info)
    where = f"{path}: {source.name}"
    raw = _find(path, source.name)
    _refuse_unsupported(where, raw)
    try:
        entry = _Entry.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise UserError(f"{where}: {key}: {first['msg']}; mend the entry") from None
    return Listing(_place(where, path.parent, entry), _layout(entry), entry.num_samples)


def _find(path: Path, name: str) -> dict[str, Any]:
    try:
        catalogue = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); name a dataset_info.json") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not JSON ({error}); mend the file") from None
    if not isinstance(catalogue, dict):
        raise UserError(f"{path}: expected an object of data sets by name; name a dataset_info.json")
    if name not in catalogue:
        near = difflib.get_close_matches(name, catalogue, n=3, cutoff=0.4) or sorted(catalogue)[:10]
        raise UserError(f"{path}: no data set '{name}'; did you mean {excerpt(', '.join(near)) or 'another file'}?")
    entry = catalogue[name]
    if not isinstance(entry, dict):
        raise UserError(f"{path}: {name}: expected an object with file_name or hf_hub_url; mend the entry")
    return entry


def _refuse_unsupported(where: str, entry: dict[str, Any]) -> None:
    if entry.get("ranking"):
        raise UserError(
            f"{where}: ranking: preference pairs are not supported, only answers to learn; take another set"
        )
    if "script_url" in entry and "hf_hub_url" not in entry:
        raise UserError(f"{where}: script_url: a loading script is remote code and is never run; export its rows")
    columns = entry.get("columns")
    for column, what in _UNSUPPORTED_COLUMNS.items():
        if isinstance(columns, dict) and columns.get(column):
            raise UserError(f"{where}: columns.{column}: {what} are not supported, only text; take another set")


def _place(where: str, folder: Path, entry: _Entry) -> Path | HubPlace:
    if entry.hf_hub_url is not None:
        return HubPlace(entry.hf_hub_url, entry.subset, entry.split, entry.folder)
    if entry.file_name is None:
        raise UserError(f"{where}: expected file_name or hf_hub_url, found neither; add one")
    path = folder / entry.file_name
    if "\0" in entry.file_name or not path.resolve().is_relative_to(folder.resolve()):
        raise UserError(
            f"{where}: file_name: '{excerpt(entry.file_name)}' leaves the catalogue's folder; move the file into it"
        )
    return path


def _layout(entry: _Entry) -> Layout:
    """The format's own layout with the entry's names; where columns are named, those that are not do not exist."""
    columns = entry.columns
    if entry.formatting == "sharegpt":
        tags = entry.tags
        roles: dict[str, Role] = {tags.user_tag: "user", tags.assistant_tag: "assistant", tags.system_tag: "system"}
        return replace(
            LAYOUTS["sharegpt"],
            prompt=(columns and columns.messages) or "conversations",
            system=(columns and columns.system) or "",
            role_tag=tags.role_tag,
            content_tag=tags.content_tag,
            roles={**SHAREGPT_ROLES, **roles},
        )
    if columns is None:
        return replace(LAYOUTS["alpaca"], system="", history="")
    prompt = columns.prompt or "instruction"
    if columns.response is None:
        return replace(LAYOUTS["text"], prompt=prompt)
    return replace(
        LAYOUTS["alpaca"],
        prompt=prompt,
        answer=columns.response,
        query=columns.query or "",
        history=columns.history or "",
        system=columns.system or "",
    )
