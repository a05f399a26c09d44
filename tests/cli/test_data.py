"""The verbs of ``whet data`` on small files."""

import json
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner, Result

from whetstone.cli.main import app
from whetstone.data.grammar.corpus import clean_sentences, split_cells
from whetstone.errors import UserError
from whetstone.experiment import load_experiment

Whet = Callable[..., Result]


@pytest.fixture
def whet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Whet:
    """Runs a verb in a folder with a few files, where lines are not wrapped."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    rows = [
        {
            "prompt": f"He go to place {number}.",
            "references": [f"He goes to place {number}.", f"He went to place {number}."],
            "group": f"document {number // 2}",
            "category": "agreement" if number % 3 else "already right",
        }
        for number in range(40)
    ]
    write_rows(tmp_path / "pairs.jsonl", rows)
    write_rows(tmp_path / "bad.jsonl", [*rows[:3], {"prompt": "no answer"}])
    sentences = clean_sentences(split_cells(0).train, 30, 0)
    (tmp_path / "clean.txt").write_text("".join(f"{sentence.text}\n" for sentence in sentences))
    return lambda *arguments: CliRunner().invoke(app, ["data", *map(str, arguments)])


def write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def printed(result: Result) -> Any:
    assert result.exception is None, result.output
    return json.loads(result.stdout)


def refused(result: Result) -> str:
    assert isinstance(result.exception, UserError), result.output
    return str(result.exception)


def test_preview_shows_the_format_and_the_first_examples(whet: Whet) -> None:
    shown = whet("preview", "pairs.jsonl", "-n", 2, "--prompt", "Correct [b]this[/b]: {source}").stdout
    assert "pairs.jsonl: format prompt-references, 40 rows, 40 examples" in shown
    assert "user  Correct [b]this[/b]: He go to place 0." in shown
    assert "or (2)  He went to place 1." in shown
    assert "group document 0, category agreement" in shown
    assert "place 2" not in shown


def test_preview_as_json(whet: Whet) -> None:
    row = printed(whet("preview", "pairs.jsonl", "-n", 1, "--json"))
    assert row["sources"][0]["format"] == "prompt-references"
    assert row["parts"] == {"all": 40}
    assert [example["category"] for example in row["examples"]] == ["already right"]
    assert row["sources"][0]["unused"] == []


def test_preview_names_the_columns_that_are_not_used(whet: Whet, tmp_path: Path) -> None:
    (tmp_path / "labelled.csv").write_text("text,label,odd\x1b\nx,y,z\n")
    shown = whet("preview", "labelled.csv").stdout
    assert "labelled.csv: format text, 1 rows, 1 examples; not used: label, odd\\x1b" in shown
    assert printed(whet("preview", "labelled.csv", "--json"))["sources"][0]["unused"] == ["label", "odd\x1b"]


def test_a_misspelt_field_is_refused(whet: Whet) -> None:
    message = refused(whet("stats", "pairs.jsonl", "--group", "gruop"))
    assert "no row has the field 'gruop'" in message
    assert "did you mean 'group'?" in message


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("split", "pairs.jsonl", "--out", "p", "--test", "inf"), "data.split.test: inf is neither"),
        (("split", "pairs.jsonl", "--out", "p", "--validation", "inf"), "data.split.validation: inf is neither"),
        (("split", "pairs.jsonl", "--out", "x" * 300), "cannot be written (File name too long)"),
        (("split", "pairs.jsonl", "--out", "x" * 250), "cannot be made (File name too long)"),
        (("split", "pairs.jsonl", "--out", "pairs.jsonl/p"), "cannot be made (Not a directory)"),
        (("convert", "pairs.jsonl", "x" * 250 + ".csv", "--to", "alpaca"), "too long"),
        (("convert", "pairs.jsonl", "x" * 300 + ".csv", "--to", "alpaca"), "too long"),
        (("preview", "x" * 300 + ".yaml"), "too long"),
        (("preview", "x" * 300 + ".jsonl"), "too long"),
    ],
)
def test_what_cannot_be_is_one_line(whet: Whet, arguments: tuple[str, ...], message: str) -> None:
    assert message in refused(whet(*arguments))


def test_many_categories_are_shown_as_the_largest_and_the_others(whet: Whet, tmp_path: Path) -> None:
    kinds = [f"kind {n}" for n in range(20_000)] + ["common"] * 40
    rows = [{"prompt": f"p{n}", "response": "a", "category": kind} for n, kind in enumerate(kinds)]
    write_rows(tmp_path / "kinds.jsonl", rows)
    start = time.process_time()
    lines = whet("split", "kinds.jsonl", "--out", "parts").stdout.splitlines()
    assert time.process_time() - start < 8
    assert len(lines) == 24
    assert lines[1].split()[0] == "common"
    assert lines[21].split()[:2] == ["19,981", "others"]
    shown = [int(cell.replace(",", "")) for cell in re.findall(r"([\d,]+) /", " ".join(lines[1:22]))]
    assert sum(shown) == len(rows)


def test_rows_left_out_are_listed_on_standard_error(whet: Whet) -> None:
    result = whet("preview", "bad.jsonl", "--json")
    assert printed(result)["sources"][0]["skipped"][0]["where"] == "bad.jsonl:4"
    assert "bad.jsonl: 1 of 4 rows left out" in result.stderr
    assert "bad.jsonl:4: expected the field 'references'" in result.stderr
    assert "bad.jsonl:4" in refused(whet("preview", "bad.jsonl", "--on-bad-row", "stop"))
    assert "bad.jsonl:4" in refused(whet("convert", "bad.jsonl", "out.csv", "--to", "alpaca"))


def test_steering_characters_never_reach_the_terminal(whet: Whet, tmp_path: Path) -> None:
    write_rows(tmp_path / "odd.jsonl", [{"prompt": "a\x1b[31mb", "references": ["c"], "category": "x\x1b[0m"}])
    for verb in ("preview", "stats"):
        assert "\x1b" not in whet(verb, "odd.jsonl").stdout


def test_stats_count_and_measure(whet: Whet) -> None:
    shown = whet("stats", "pairs.jsonl").stdout
    assert "already right        14  35.0%" in shown
    assert "words in the answer" in shown
    assert "█" in shown
    row = printed(whet("stats", "pairs.jsonl", "--json"))["statistics"]["all"]
    assert (row["examples"], row["groups"], row["references"]["maximum"]) == (40, 20, 2)


def test_stats_of_an_experiment_show_every_part(whet: Whet, tmp_path: Path) -> None:
    source = "{grammar: corrections, train: 30, validation: 12, test: 12}"
    (tmp_path / "some.yaml").write_text(f"model: {{base: 'builtin:demo-base'}}\ndata: {{source: {source}}}\n")
    row = printed(whet("stats", "some.yaml", "--json"))
    assert row["parts"] == {"train": 30, "validation": 12, "test": 12}
    assert whet("stats", "some.yaml").stdout.count("words in the prompt") == 3


def test_split_keeps_groups_whole_and_ends_with_lines_to_paste(whet: Whet, tmp_path: Path) -> None:
    result = whet("split", "pairs.jsonl", "--out", "parts", "--validation", "0.1", "--test", 4)
    assert result.exception is None
    assert "together       28 / 14  4 / 2       8 / 4" in result.stdout
    last = result.stdout.splitlines()[-1]
    parts = {name: rows_of(tmp_path / path) for name, path in yaml.safe_load(last)["source"].items()}
    groups = [{row["group"] for row in part} for part in parts.values()]
    assert len(set.union(*groups)) == sum(map(len, groups)) == 20
    assert all(len(row["references"]) == 2 for part in parts.values() for row in part)
    (tmp_path / "new.yaml").write_text(f"model: {{base: 'builtin:demo-base'}}\ndata:\n  {last}\n")
    load_experiment(tmp_path / "new.yaml")
    assert "parts exists already and is not empty" in refused(whet("split", "pairs.jsonl", "--out", "parts"))


def test_split_depends_on_the_seed(whet: Whet, tmp_path: Path) -> None:
    for name, seed in (("one", 1), ("again", 1), ("other", 2)):
        assert (
            printed(whet("split", "pairs.jsonl", "--out", name, "--seed", seed, "--json"))["parts"]["test"]["rows"] == 8
        )
    one, again, other = ((tmp_path / name / "test.jsonl").read_text() for name in ("one", "again", "other"))
    assert one == again != other


def test_a_prompt_is_written_with_the_parts_that_it_was_put_around(whet: Whet, tmp_path: Path) -> None:
    row = printed(whet("split", "pairs.jsonl", "--out", "parts", "--prompt", "Fix: {source}", "--json"))
    assert row["format"] == "messages"
    (first, *_) = rows_of(tmp_path / "parts" / "train.jsonl")
    assert first["messages"][0]["content"] == f"Fix: {first['source']}"


def test_a_source_with_parts_is_not_split_again(whet: Whet) -> None:
    whet("split", "pairs.jsonl", "--out", "parts")
    assert "has parts of its own (train, validation, test)" in refused(whet("split", "parts", "--out", "more"))
    assert "name one with --part" in refused(whet("convert", "parts", "out.csv", "--to", "alpaca"))
    assert "there is no 'dev'" in refused(whet("convert", "parts", "out.csv", "--to", "alpaca", "--part", "dev"))
    assert printed(whet("convert", "parts", "out.csv", "--to", "alpaca", "--part", "test", "--json"))["rows"] == 16


def test_convert_there_and_back(whet: Whet, tmp_path: Path) -> None:
    assert (
        "out.parquet: 40 rows written, format messages"
        in whet("convert", "pairs.jsonl", "out.parquet", "--to", "messages").stderr
    )
    whet("convert", "out.parquet", "back.jsonl", "--to", "prompt-references")
    kept = [
        {key: row[key] for key in ("prompt", "references", "group", "category")} for row in rows_of(Path("back.jsonl"))
    ]
    assert kept == rows_of(tmp_path / "pairs.jsonl")


def test_convert_writes_a_conversation_once(whet: Whet, tmp_path: Path) -> None:
    turns = [{"role": role, "content": f"{role} {n}"} for n in (1, 2) for role in ("user", "assistant")]
    write_rows(tmp_path / "talk.jsonl", [{"messages": turns}])
    assert printed(whet("convert", "talk.jsonl", "out.jsonl", "--to", "sharegpt", "--json"))["rows"] == 1
    assert printed(whet("preview", "out.jsonl", "--json"))["parts"] == {"all": 2}
    assert "several turns" in refused(whet("convert", "talk.jsonl", "o.jsonl", "--to", "prompt-response"))
    assert not (tmp_path / "o.jsonl").exists()


def test_nothing_is_replaced_unless_forced(whet: Whet, tmp_path: Path) -> None:
    (tmp_path / "out.csv").write_text("mine")
    arguments = ("convert", "pairs.jsonl", "out.csv", "--to", "alpaca", "--references", "first")
    assert "--force" in refused(whet(*arguments))
    assert (tmp_path / "out.csv").read_text() == "mine"
    assert printed(whet(*arguments, "--force", "--json"))["rows"] == 40
    assert "end it in" in refused(whet("convert", "pairs.jsonl", "out.doc", "--to", "alpaca"))


def test_augment_plants_errors_in_clean_text(whet: Whet, tmp_path: Path) -> None:
    for name in ("one.jsonl", "again.jsonl"):
        row = printed(whet("augment", "clean.txt", name, "--errors", "1..3", "--copies", 2, "--seed", 3, "--json"))
    assert row["format"] == "prompt-references"
    made = rows_of(tmp_path / "one.jsonl")
    clean = set((tmp_path / "clean.txt").read_text().splitlines())
    assert len(made) == row["rows"] > 45
    assert all(row["references"][0] in clean for row in made)
    assert {row["prompt"] == row["references"][0] for row in made} == {True, False}
    assert (tmp_path / "one.jsonl").read_bytes() == (tmp_path / "again.jsonl").read_bytes()


def test_augment_takes_the_references_of_pairs_only_when_told(whet: Whet, tmp_path: Path) -> None:
    assert "add --from references" in refused(whet("augment", "pairs.jsonl", "o.jsonl", "--errors", 1))
    whet("augment", "pairs.jsonl", "o.jsonl", "--errors", 1, "--from", "references", "--keep-clean", 0)
    pairs = rows_of(tmp_path / "pairs.jsonl")
    made = rows_of(tmp_path / "o.jsonl")
    assert {row["group"] for row in made} == {row["group"] for row in pairs}
    assert {row["prompt"] for row in made}.isdisjoint(row["prompt"] for row in pairs)


def test_augment_asks_in_other_words(whet: Whet, tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text("Fix:\\n{source}\n\nMend {source}\n")
    whet("augment", "pairs.jsonl", "o.jsonl", "--prompts", "prompts.txt", "--copies", 2)
    turns = {row["messages"][0]["content"] for row in rows_of(tmp_path / "o.jsonl")}
    assert {"Fix:\nHe go to place 0.", "Mend He go to place 39."} <= turns
    assert len(turns) == 80
    assert printed(whet("augment", "pairs.jsonl", "b.csv", "--prompts", "builtin", "--json"))["rows"] == 40


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "exactly one of --errors"),
        (("--errors", "1", "--prompts", "builtin"), "exactly one of --errors"),
        (("--errors", "many"), "'many' is no number of errors"),
        (("--errors", "3..1"), "must rise from 1"),
        (("--errors", "0"), "must rise from 1"),
        (("--errors", "12", "--keep-clean", "0"), "no text in it admits 12 errors"),
        (("--prompts", "none.txt"), "none.txt cannot be read"),
        (("--errors", "1", "--prompt", "no place"), "add {source}"),
    ],
)
def test_augment_refuses_what_cannot_be_meant(whet: Whet, options: tuple[str, ...], message: str) -> None:
    assert message in refused(whet("augment", "clean.txt", "o.jsonl", *options))


def test_the_schema_is_not_needed_for_help() -> None:
    code = "import sys, whetstone.cli.main; sys.exit('pydantic' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
