"""Folders of data files, and the hub without a network."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pytest

from whetstone.data.hub import HubPlace, folder_parts, hub_parts
from whetstone.data.sources import read_parts
from whetstone.data_section import Data
from whetstone.errors import UserError

ROW = '{"prompt": "x", "response": "y"}\n'


def files(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(ROW)
    return folder


@pytest.mark.parametrize(
    ("names", "parts"),
    [
        (["rows.jsonl", "b/more.jsonl"], {"all": ["b/more.jsonl", "rows.jsonl"]}),
        (["train.jsonl", "README.md", "dataset_info.json", ".git/x.jsonl"], {"all": ["train.jsonl"]}),
        (
            ["train-00000-of-00002.jsonl", "train-00001-of-00002.jsonl", "dev.jsonl", "my_test_set.jsonl"],
            {
                "train": ["train-00000-of-00002.jsonl", "train-00001-of-00002.jsonl"],
                "validation": ["dev.jsonl"],
                "test": ["my_test_set.jsonl"],
            },
        ),
        (["train/a.jsonl", "valid/a.jsonl"], {"train": ["train/a.jsonl"], "validation": ["valid/a.jsonl"]}),
        (
            ["test/train.jsonl", "test/val.jsonl.gz"],
            {"train": ["test/train.jsonl"], "validation": ["test/val.jsonl.gz"]},
        ),
    ],
)
def test_names_of_files_and_folders_say_the_part(tmp_path: Path, names: list[str], parts: dict[str, list[str]]) -> None:
    found = folder_parts(files(tmp_path, *names))
    assert {name: [str(path.relative_to(tmp_path)) for path in paths] for name, paths in found.items()} == parts


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["README.md"], "no data files"),
        (["train.jsonl", "test.jsonl", "extra.jsonl"], "the name of extra.jsonl has none of"),
        (["train.jsonl", "train.csv", "test.csv"], r"the train part has files of different kinds \(.csv, .jsonl\)"),
        (["train-test.jsonl", "test.jsonl"], "the name says test and train"),
    ],
)
def test_unclear_folders_are_refused(tmp_path: Path, names: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        folder_parts(files(tmp_path, *names))
    assert str(tmp_path) in str(caught.value)


def test_a_fault_in_a_folder_names_file_and_line(tmp_path: Path) -> None:
    files(tmp_path, "train.jsonl", "test.jsonl")
    (tmp_path / "test.jsonl").write_text(ROW + "{}\n")
    with pytest.raises(UserError, match=rf"{tmp_path}/test.jsonl:2: expected the field 'prompt'"):
        read_parts(Data(source="x"), str(tmp_path))


def test_parts_are_read_and_named(tmp_path: Path) -> None:
    parts = read_parts(Data(source="x"), str(files(tmp_path, "train.jsonl", "test.jsonl")))
    assert sorted(parts) == ["test", "train"]
    assert parts["train"].summary.name == f"{tmp_path} (train)"


Loads = Callable[[dict[str, list[dict[str, Any]]]], list[tuple[Any, ...]]]


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Loads:
    """Lets ``datasets.load_dataset`` give these splits, and lists how it was called."""

    def serve(splits: dict[str, list[dict[str, Any]]]) -> list[tuple[Any, ...]]:
        calls = []
        held = datasets.DatasetDict({name: datasets.Dataset.from_list(rows) for name, rows in splits.items()})

        def load(path: str, name: str | None, *, split: str | None, data_dir: str | None) -> Any:
            calls.append((path, name, split, data_dir))
            return held if split is None else held[split]

        monkeypatch.setattr(datasets, "load_dataset", load)
        return calls

    return serve


def test_the_splits_of_the_hub_are_the_parts(hub: Loads) -> None:
    row = {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}
    calls = hub({"train": [row] * 3, "dev": [row], "test": [row] * 2})
    parts = read_parts(Data(source="x"), "owner/name")
    assert {name: loaded.summary.rows for name, loaded in parts.items()} == {"train": 3, "validation": 1, "test": 2}
    assert parts["test"].summary.format == "messages"
    assert calls == [("owner/name", None, None, None)]


def test_one_split_is_all_and_its_rows_are_numbered(hub: Loads) -> None:
    calls = hub({"train": [{"prompt": "x", "response": "y"}, {"prompt": "x", "response": None}]})
    with pytest.raises(UserError, match="owner/name: row 2: response: expected text, found null"):
        read_parts(Data(source="x"), "owner/name")
    place = HubPlace("owner/name", "small", "train", "data")
    assert [where for where, _ in hub_parts(place)["all"]] == ["owner/name: row 1", "owner/name: row 2"]
    assert calls[-1] == ("owner/name", "small", "train", "data")


@pytest.mark.parametrize("names", [["train_sft", "test_sft"], ["train", "test", "unsupervised"], ["dev", "val"]])
def test_splits_with_other_names_are_listed(hub: Loads, names: list[str]) -> None:
    hub({name: [{"text": "x"}] for name in names})
    with pytest.raises(UserError, match=f"its splits {', '.join(names)} are not"):
        read_parts(Data(source="x"), "owner/name")


@pytest.mark.parametrize(
    "error", [ConnectionError("no route\nto host"), ValueError("Config name is missing."), OSError()]
)
def test_whatever_the_hub_says_is_one_line(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(datasets, "load_dataset", fail)
    with pytest.raises(UserError, match="owner/name: no such path here, and the hub did not give it") as caught:
        read_parts(Data(source="x"), "owner/name")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["absent", "data/absent.jsonl", "a/b/c", "a\0b"])
def test_what_is_neither_path_nor_hub_id(name: str) -> None:
    with pytest.raises(UserError, match="no such file or folder"):
        read_parts(Data(source="x"), name)
