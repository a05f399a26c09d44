"""``whet show``: how far a run came, with what, and how an interrupted one goes on."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from whetstone.cli.main import app
from whetstone.run import RetentionRecord, Run, SettingsRecord

SETTINGS = SettingsRecord(
    precision="bfloat16",
    weights="float32",
    attention="sdpa",
    optimiser="adafactor",
    compiled=False,
    activation_checkpointing=False,
    quantised=True,
)
RETENTION = RetentionRecord(
    source="general text",
    texts=60,
    tokens=4000,
    bytes=16_000,
    windowed=0,
    nll_before=3.0,
    nll_after=3.25,
    bits_per_byte_before=1.1,
    bits_per_byte_after=1.2,
    difference=0.25,
    standard_error=0.01,
    low=0.23,
    high=0.27,
)


@pytest.fixture
def run(make_run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Finished, and the only one of the folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    made: Run = make_run(tmp_path / "runs" / "tiny", n=4)
    return made


def show(*arguments: str) -> str:
    done = CliRunner().invoke(app, ["show", "tiny", *arguments])
    assert done.exit_code == 0, done.output
    return done.stdout


def interrupt(run: Run, *folders: str) -> None:
    run.update(tuning=None, judgement=None)
    for name in folders:
        (run.checkpoints / name).mkdir(parents=True)


def test_settings_retention_and_notes_are_shown(run: Run) -> None:
    run.update(
        settings=SETTINGS, retention=(RETENTION,), notes=("tune.compile [x] is not applied: no [bold]compiler.",)
    )
    text = " ".join(show().split())
    assert "method lora" in text
    assert "settings lora, float32 weights over a base in NF4, products in bfloat16" in text
    assert "optimiser adafactor" in text
    assert "general text: 3.0000 before, 3.2500 after, +0.2500 nats per token (+0.2300 to +0.2700; 60 texts)" in text
    assert "tune.compile [x] is not applied: no [bold]compiler." in text


def test_a_run_without_them_shows_the_rest(run: Run) -> None:
    text = show()
    assert "400 steps in 245 s" in text
    assert "retention" not in text
    assert "settings" not in text
    assert "checkpoint" not in text


def test_an_interrupted_run_says_how_to_go_on(run: Run) -> None:
    interrupt(run, "step-000090", "step-001200", ".step-001300.partial", "step-odd")
    text = " ".join(show().split())
    assert "state begun" in text
    assert "checkpoint step 1,200; to go on: whet tune EXPERIMENT --name tiny --resume" in text
    assert json.loads(show("--json"))["checkpoint_step"] == 1200


def test_runs_elsewhere_are_named_in_the_command(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    interrupt(run, "step-000010")
    run.path.parent.rename("my runs")
    assert "whet tune EXPERIMENT --name tiny --runs 'my runs' --resume" in show("--runs", "my runs")


def test_without_checkpoints_there_is_nothing_to_go_on_from(run: Run) -> None:
    interrupt(run)
    assert "--resume" not in show()
    shown = json.loads(show("--json"))
    assert (shown["state"], shown["checkpoint_step"]) == ("begun", None)


def test_a_finished_run_goes_on_from_nothing(run: Run) -> None:
    (run.checkpoints / "step-000010").mkdir(parents=True)
    assert "--resume" not in show()
    assert json.loads(show("--json"))["checkpoint_step"] is None
