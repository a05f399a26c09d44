"""Entries of a dataset_info.json: where the rows lie, how they look, and what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whetstone.data.catalogue import read_listing
from whetstone.data.hub import HubPlace
from whetstone.data.sources import Loaded, read_parts
from whetstone.data_section import CatalogueSource, Data
from whetstone.errors import UserError


def catalogue(folder: Path, **entries: object) -> Path:
    path = folder / "dataset_info.json"
    path.write_text(json.dumps(entries))
    return path


def load(folder: Path, entry: dict[str, Any], rows: list[dict[str, Any]]) -> Loaded:
    (folder / "rows.json").write_text(json.dumps(rows))
    path = catalogue(folder, mine={"file_name": "rows.json", **entry})
    source = CatalogueSource(dataset_info=str(path), name="mine")
    return read_parts(Data(source=source), source)["all"]


def talk(loaded: Loaded) -> list[tuple[str, str]]:
    example = loaded.examples[-1]
    return [*((turn.role, turn.content) for turn in example.messages), ("answer", example.references[0])]


def test_alpaca_with_its_own_names(tmp_path: Path) -> None:
    columns = {"prompt": "ask", "query": "on", "response": "reply", "system": "sys", "history": "before"}
    row = {"ask": "Correct", "on": "he go", "reply": "he goes", "sys": "s", "before": [["q", "a"]]}
    loaded = load(tmp_path, {"columns": columns}, [row])
    assert talk(loaded) == [
        ("system", "s"),
        ("user", "q"),
        ("assistant", "a"),
        ("user", "Correct\nhe go"),
        ("answer", "he goes"),
    ]
    assert loaded.summary.format == "alpaca"
    assert loaded.summary.name == f"{tmp_path / 'dataset_info.json'}: mine"


def test_columns_that_are_not_named_do_not_exist(tmp_path: Path) -> None:
    row = {"instruction": "x", "input": "unused", "output": "y", "system": "unused"}
    assert talk(load(tmp_path, {"columns": {"prompt": "instruction", "response": "output"}}, [row])) == [
        ("user", "x"),
        ("answer", "y"),
    ]
    assert talk(load(tmp_path, {}, [row])) == [("user", "x\nunused"), ("answer", "y")]


def test_a_prompt_column_alone_is_plain_text(tmp_path: Path) -> None:
    loaded = load(tmp_path, {"columns": {"prompt": "document"}}, [{"document": "a text"}])
    assert (loaded.summary.format, loaded.examples[0].references) == ("text", ("a text",))


def test_sharegpt_with_its_own_tags(tmp_path: Path) -> None:
    tags = {"role_tag": "who", "content_tag": "what", "user_tag": "me", "assistant_tag": "it", "system_tag": "rule"}
    row = {"talk": [{"who": who, "what": who} for who in ("rule", "me", "it")]}
    loaded = load(tmp_path, {"formatting": "sharegpt", "columns": {"messages": "talk"}, "tags": tags}, [row])
    assert talk(loaded) == [("system", "rule"), ("user", "me"), ("answer", "it")]


def test_sharegpt_as_it_comes(tmp_path: Path) -> None:
    row = {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]}
    assert talk(load(tmp_path, {"formatting": "sharegpt"}, [row])) == [("user", "q"), ("answer", "a")]


def test_only_the_first_rows_are_taken(tmp_path: Path) -> None:
    rows = [{"instruction": str(number), "output": "y"} for number in range(9)]
    loaded = load(tmp_path, {"num_samples": 3}, rows)
    assert [example.source for example in loaded.examples] == ["0", "1", "2"]
    assert loaded.summary.rows == 3


def test_a_place_on_the_hub(tmp_path: Path) -> None:
    entry = {"hf_hub_url": "owner/name", "subset": "small", "split": "test", "folder": "data", "file_name": "unused"}
    listing = read_listing(
        CatalogueSource(dataset_info=str(catalogue(tmp_path, a=entry, b={"hf_hub_url": "o/n"})), name="a")
    )
    assert listing.place == HubPlace("owner/name", subset="small", split="test", folder="data")


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"ranking": True}, "ranking: preference pairs are not supported"),
        ({"columns": {"chosen": "chosen"}}, "columns.chosen: preference pairs are not supported"),
        ({"columns": {"images": "images"}}, "columns.images: pictures are not supported"),
        ({"columns": {"videos": "videos"}}, "columns.videos"),
        ({"columns": {"audios": "audios"}}, "columns.audios"),
        ({"script_url": "script"}, "script_url: a loading script is remote code"),
        ({"file_name": None}, "expected file_name or hf_hub_url"),
        ({"file_name": "../rows.json"}, "leaves the catalogue's folder"),
        ({"file_name": "/etc/passwd"}, "leaves the catalogue's folder"),
        ({"file_name": "link/rows.json"}, "leaves the catalogue's folder"),
        ({"file_name": "absent.json"}, "absent.json: no such file"),
        ({"file_name": "x" * 300 + ".json"}, "cannot be read"),
        ({"file_name": 3}, "file_name: "),
        ({"formatting": "openai"}, "formatting: "),
        ({"columns": {"prompt": 3}}, "columns.prompt: "),
        ({"num_samples": 0}, "num_samples: "),
    ],
)
def test_what_is_refused_names_the_entry(tmp_path: Path, entry: dict[str, Any], message: str) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    (tmp_path / "rows.json").write_text("[]")
    (folder / "link").symlink_to(tmp_path)
    with pytest.raises(UserError, match=message) as caught:
        load(folder, entry, [{"instruction": "x", "output": "y"}])
    assert str(folder) in str(caught.value)


def test_an_unknown_name_lists_the_near_ones(tmp_path: Path) -> None:
    path = catalogue(tmp_path, alpaca_en={}, zebra={})
    with pytest.raises(UserError, match=r"no data set 'alpaca_em'; did you mean alpaca_en\?"):
        read_listing(CatalogueSource(dataset_info=str(path), name="alpaca_em"))


def test_a_declared_format_must_be_the_catalogues(tmp_path: Path) -> None:
    source = CatalogueSource(dataset_info=str(catalogue(tmp_path, a={"file_name": "rows.json"})), name="a")
    with pytest.raises(UserError, match="says that 'a' is alpaca"):
        read_parts(Data(source=source, format="messages"), source)


KEYS = ["a", "file_name", "hf_hub_url", "columns", "tags", "ranking", "prompt", "split"]
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4),
    max_leaves=8,
)


@given(content=st.binary(max_size=60) | json_values.map(lambda value: json.dumps(value).encode()))
def test_any_catalogue_is_a_listing_or_one_line(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.mktemp("any") / "dataset_info.json"
    path.write_bytes(content)
    try:
        listing = read_listing(CatalogueSource(dataset_info=str(path), name="a"))
    except UserError as error:
        assert str(path) in str(error)
        assert "\n" not in str(error)
    else:
        assert isinstance(listing.place, HubPlace) or listing.place.resolve().is_relative_to(path.parent.resolve())
