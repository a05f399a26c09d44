"""What the names of sources say."""

from pathlib import Path

import pytest

from whetstone.source_name import data_suffix, is_hub_name


@pytest.mark.parametrize("name", ["owner/name-1.0", "0wner-x/_name", "a/b.gzip"])
def test_hub_names(name: str) -> None:
    assert is_hub_name(name)


@pytest.mark.parametrize(
    "name",
    ["name", "data/train.jsonl", "a/b/c", "/a", "../a", "a/b c", "data/x.parquet.gz", "data/x.GZ", "v1.2/x", "é/x"],
)
def test_what_is_no_hub_name(name: str) -> None:
    assert not is_hub_name(name)


@pytest.mark.parametrize(
    ("name", "suffix"), [("a.JSONL", ".jsonl"), ("a.csv.gz", ".csv"), ("a.gz", ""), ("a.csv.x", ""), ("a", "")]
)
def test_the_suffix_that_says_what_a_file_holds(name: str, suffix: str) -> None:
    assert data_suffix(Path(name)) == suffix
