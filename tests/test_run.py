"""The run folder: begun once, written by one process, never half read."""

import subprocess
import sys
from pathlib import Path

import pytest

from whetstone.data_section import Data, GrammarSource
from whetstone.errors import UserError
from whetstone.experiment import Experiment
from whetstone.judge_section import Judge
from whetstone.model_section import Model
from whetstone.run import Run, list_runs
from whetstone.tune_section import Tune


def experiment(rank: int = 8, confidence: float = 0.95) -> Experiment:
    return Experiment(
        name="mine",
        model=Model(base="builtin:demo-base"),
        data=Data(source=GrammarSource(grammar="corrections")),
        tune=Tune(rank=rank),
        judge=Judge(confidence=confidence),
    )


def test_begin_records_what_was_asked_and_with_what(tmp_path: Path) -> None:
    run = Run(tmp_path / "mine")
    written = run.begin(experiment())
    read = run.manifest()
    assert read == written
    assert read.experiment == experiment()
    assert read.experiment_hash == experiment().fingerprint()
    assert read.packages["torch"].startswith("2.")
    assert read.hardware.cores > 0
    assert read.state == "begun"


def test_begin_again_finds_the_same_run_and_refuses_another(tmp_path: Path) -> None:
    run = Run(tmp_path / "mine")
    first = run.begin(experiment())
    again = run.begin(experiment(confidence=0.9))
    assert (again.created_at, again.training_hash) == (first.created_at, first.training_hash)
    assert again.experiment == experiment(confidence=0.9), "an untrained run records what is asked of it now"
    with pytest.raises(UserError, match="--fresh"):
        run.begin(experiment(rank=9))


def test_a_damaged_manifest_is_named(tmp_path: Path) -> None:
    run = Run(tmp_path / "mine")
    run.begin(experiment())
    path = run.path / "run.json"
    path.write_text(path.read_text().replace('"created_at"', '"made_at"'))
    with pytest.raises(UserError, match=r"run\.json: \w+"):
        run.manifest()
    path.write_text("{")
    with pytest.raises(UserError, match="not JSON"):
        run.manifest()


def test_folders_without_a_manifest_are_not_runs(tmp_path: Path) -> None:
    (tmp_path / "abandoned").mkdir()
    Run(tmp_path / "mine").begin(experiment())
    assert [run.name for run in list_runs(tmp_path)] == ["mine"]
    assert list_runs(tmp_path / "nowhere") == []
    with pytest.raises(UserError, match="not a run"):
        Run(tmp_path / "abandoned").manifest()


def test_clear_leaves_a_run_that_can_begin(tmp_path: Path) -> None:
    run = Run(tmp_path / "mine")
    with run.lock():
        run.begin(experiment())
        (run.samples).mkdir()
        (run.samples / "base.jsonl").write_text("{}\n")
        run.clear()
        assert not run.exists()
        assert not run.samples.exists()
        run.begin(experiment(rank=9))


HOLD_LOCK = """
import pathlib, signal, sys
from whetstone.run import Run
with Run(pathlib.Path(sys.argv[1])).lock():
    print("locked", flush=True)
    signal.pause()
"""


def test_one_writer_and_a_killed_writer_frees_the_lock(tmp_path: Path) -> None:
    path = tmp_path / "mine"
    with subprocess.Popen([sys.executable, "-c", HOLD_LOCK, str(path)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"locked\n"
        with pytest.raises(UserError, match="another process"), Run(path).lock():
            pass
        process.kill()
    with Run(path).lock():
        pass


def test_what_a_killed_writer_left_is_swept_away(tmp_path: Path) -> None:
    run = Run(tmp_path / "mine")
    run.begin(experiment())
    (run.path / ".run.json.123.partial").write_text("{")
    (run.path / ".adapter.partial").mkdir()
    (run.path / ".adapter.partial" / "weights").write_text("half")
    with run.lock():
        pass
    assert sorted(path.name for path in run.path.iterdir()) == [".lock", "run.json"]
