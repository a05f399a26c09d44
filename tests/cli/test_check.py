"""``whet check`` and the same checks before ``whet tune``, as the command does them."""

import contextlib
import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from whetstone.cli.common import status
from whetstone.cli.main import main
from whetstone.models.load import BUILTIN_BASE, locate

WHET = Path(sys.executable).parent / "whet"

EXPERIMENT = """\
name: mine
model: {{base: builtin:demo-base}}
data:
  source: {source}
  prompt: "Correct: {{source}}"
  max_tokens: 128
{more}
tune: {{steps: 2, batch_size: 4}}
judge: {{generation: {{max_new_tokens: 40}}}}
"""

SUBJECTS = ("She", "My brother", "The teacher", "Anna", "Our neighbour", "The student", "His cat", "Nobody")
VERBS = (("goes", "go"), ("walks", "walk"), ("drives", "drive"), ("runs", "run"), ("travels", "travel"))
PLACES = ("to the market", "to school", "to a library", "to the station", "along the river", "into the garden")


def pairs() -> list[dict[str, Any]]:
    """240 learner sentences, each with six corrections: a row for every pair."""
    return [
        {"prompt": f"{subject} {wrong} {place}{number}.", "response": f"{subject} {right} {place}{number}{end}"}
        for subject in SUBJECTS
        for right, wrong in VERBS
        for number, place in enumerate(PLACES)
        for end in (".", "!", " now.", " today.", " at once.", " again.")
    ]


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def experiment(folder: Path, source: str, more: str = "") -> None:
    (folder / "mine.yaml").write_text(EXPERIMENT.format(source=source, more=more))


def whet(folder: Path, *arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    """The command in this process, which has imported all that takes seconds to import."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.chdir(folder), pytest.MonkeyPatch.context() as patched:
        patched.setenv("COLUMNS", "300")
        patched.setattr(sys, "argv", ["whet", *arguments])
        patched.setattr(signal, "signal", lambda number, handler: None)
        patched.setattr(status, "_width", 300)
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            ended = _exit_code()
    done = subprocess.CompletedProcess(arguments, ended, out.getvalue(), err.getvalue())
    assert done.returncode == code, f"{arguments}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


def _exit_code() -> int:
    try:
        main()
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else 0
    return 0


@pytest.fixture
def leaky(tmp_path: Path) -> Path:
    """Pairs shuffled 80/10/10, as they should not be."""
    rows = pairs()
    random.Random(0).shuffle(rows)
    ends = len(rows) * 8 // 10, len(rows) * 9 // 10
    write(tmp_path / "train.jsonl", rows[: ends[0]])
    write(tmp_path / "validation.jsonl", rows[ends[0] : ends[1]])
    write(tmp_path / "test.jsonl", rows[ends[1] :])
    experiment(tmp_path, "{train: train.jsonl, validation: validation.jsonl, test: test.jsonl}")
    return tmp_path


def test_shuffled_pairs_are_a_leak_and_a_split_by_group_is_none(leaky: Path) -> None:
    found = json.loads(whet(leaky, "check", "mine.yaml", "--json", code=2).stdout)
    (leak,) = [finding for finding in found["findings"] if finding["code"] == "held-out-source-in-training"]
    assert leak["severity"] == "error"
    assert leak["share"] >= 0.99
    assert not found["ok"]
    assert found["speed"] is None

    write(leaky / "all.jsonl", pairs())
    experiment(leaky, "all.jsonl")
    found = json.loads(whet(leaky, "check", "mine.yaml", "--json", "--no-probe").stdout)
    assert found["ok"]
    assert "held-out-source-in-training" not in [finding["code"] for finding in found["findings"]]
    assert [part["part"] for part in found["parts"]] == ["train", "validation", "test"]
    assert sum(part["rows"] for part in found["parts"]) == 1440


def test_tuning_stops_at_an_error_and_leaves_nothing(leaky: Path) -> None:
    done = whet(leaky, "tune", "mine.yaml", code=2)
    assert "error: held-out-source-in-training" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (leaky / "runs" / "mine" / "run.json").exists()


def test_an_error_that_is_allowed_is_recorded(leaky: Path) -> None:
    path = leaky / "mine.yaml"
    text = path.read_text().replace("  max_tokens", "  lint: {allow: [held-out-source-in-training]}\n  max_tokens")
    path.write_text(text)
    whet(leaky, "tune", "mine.yaml")
    run = leaky / "runs" / "mine"
    manifest = json.loads((run / "run.json").read_text())
    assert any(note.startswith("held-out-source-in-training: ") for note in manifest["notes"])
    kept = json.loads((run / "check.json").read_text())
    assert "held-out-source-in-training" in [finding["code"] for finding in kept["findings"]]


def test_the_terminal_shows_sources_lengths_tokens_memory_and_speed(tmp_path: Path) -> None:
    rows = [*pairs()[::6], {"prompt": 3, "response": "x"}]
    write(tmp_path / "rows.jsonl", rows)
    experiment(tmp_path, "rows.jsonl", "  on_bad_row: skip")
    shown = whet(tmp_path, "check", "mine.yaml", "--show", "2").stdout
    assert "prompt-response" in shown
    assert f"  {tmp_path}/rows.jsonl:241: prompt: expected text, found a number" in shown
    assert "skipped-row" in shown
    assert shown.replace("\n", "").count("<|assistant|>│") == 2
    assert "peak on cpu" in shown
    assert "an epoch" in shown
    assert "nothing stops training; next: whet tune mine.yaml" in shown
    assert not (tmp_path / "runs").exists()


def test_a_malformed_row_is_one_line(tmp_path: Path) -> None:
    write(tmp_path / "rows.jsonl", [*pairs(), {"prompt": "x"}])
    experiment(tmp_path, "rows.jsonl")
    done = whet(tmp_path, "check", "mine.yaml", code=2)
    assert done.stderr.startswith(f"error: {tmp_path}/rows.jsonl:1441: ")
    assert done.stderr.count("\n") == 1


def test_fresh_costs_an_earlier_run_nothing_when_the_new_one_cannot_start(tmp_path: Path) -> None:
    write(tmp_path / "rows.jsonl", pairs()[::6])
    experiment(tmp_path, "rows.jsonl")
    whet(tmp_path, "tune", "mine.yaml")
    run = tmp_path / "runs" / "mine"
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    text = (tmp_path / "mine.yaml").read_text()

    (tmp_path / "mine.yaml").write_text(text.replace("max_tokens: 128", "max_tokens: 5\n  too_long: drop"))
    done = whet(tmp_path, "tune", "mine.yaml", "--fresh", code=2)
    assert "error: too-long" in done.stderr
    assert "Nothing is left of train." in done.stderr

    weightless = tmp_path / "weightless"
    weightless.mkdir()
    for file in locate(BUILTIN_BASE).iterdir():
        if file.suffix != ".safetensors":
            shutil.copy(file, weightless)
    (tmp_path / "mine.yaml").write_text(text.replace("builtin:demo-base", "./weightless"))
    done = whet(tmp_path, "tune", "mine.yaml", "--fresh", code=2)
    assert f"{weightless}: cannot be loaded" in done.stderr

    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_equal_experiments_give_equal_hashes_of_their_weights(tmp_path: Path) -> None:
    write(tmp_path / "rows.jsonl", pairs()[::6])
    experiment(tmp_path, "rows.jsonl")
    hashes = set()
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        subprocess.run(
            [WHET, "tune", "mine.yaml", "--name", f"run-{seed}"], cwd=tmp_path, env=environment, check=True, timeout=100
        )
        manifest = json.loads((tmp_path / "runs" / f"run-{seed}" / "run.json").read_text())
        hashes.add(manifest["tuning"]["tuned"]["sha256"])
    assert len(hashes) == 1


def test_replay_is_checked_counted_and_shown_like_the_task(tmp_path: Path) -> None:
    write(tmp_path / "rows.jsonl", pairs()[::6])
    general = [{"text": f"Number {number} is a number like any other."} for number in range(40)]
    write(tmp_path / "general.jsonl", [*general, {"text": 3}])
    experiment(tmp_path, "rows.jsonl", "  on_bad_row: skip\n  replay: {source: general.jsonl, fraction: 0.3}")
    found = json.loads(whet(tmp_path, "check", "mine.yaml", "--json", "--no-probe").stdout)
    assert [(Path(source["name"]).name, source["format"], source["rows"]) for source in found["sources"]] == [
        ("rows.jsonl", "prompt-response", 240),
        ("general.jsonl", "text", 41),
    ]
    assert [row["where"] for row in found["sources"][1]["skipped"]] == [f"{tmp_path}/general.jsonl:41"]
    assert "skipped-row" in [finding["code"] for finding in found["findings"]]
    assert {part["part"]: part["rows"] for part in found["parts"]}["replay"] == 40


def test_plain_text_is_learned_and_the_check_says_that_it_cannot_be_judged(tmp_path: Path) -> None:
    write(tmp_path / "rows.jsonl", [{"text": f"Number {number} is a number like any other."} for number in range(80)])
    experiment(tmp_path, "rows.jsonl")
    found = json.loads(whet(tmp_path, "check", "mine.yaml", "--json", "--no-probe").stdout)
    (finding,) = [finding for finding in found["findings"] if finding["code"] == "nothing-to-judge"]
    assert finding["count"] == finding["total"] == 16
    assert found["ok"]
    assert "answer-limit" not in [finding["code"] for finding in found["findings"]]
    whet(tmp_path, "tune", "mine.yaml")
    assert "plain text" in whet(tmp_path, "compare", "mine", code=2).stderr
