"""All four trackers, locally: what was written is read back with the tracker's own reader, or from its own format."""

import importlib
import json
import os
import random
import sqlite3
import struct
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from whetstone.errors import UserError
from whetstone.train import track
from whetstone.train.recorder import StepMetrics
from whetstone.train.track import Tracking, tracking
from whetstone.tune_section import Tracker, Tune, Watch

OUTSIDE = ("WANDB_API_KEY", "WANDB_MODE", "MLFLOW_TRACKING_URI", "TRACKIO_SPACE_ID", "TRACKIO_SERVER_URL", "HF_TOKEN")
SECRET = "hunter2hunter2"
EXPECTED = {
    "loss": 2.5,
    "tokens_per_s": 900.0,
    "computed_tokens_per_s": 400.0,
    "loss_tokens_task": 30.0,
    "loss_tokens_replay": 10.0,
    "validation_loss": 0.75,
    "memory_bytes": 5e8,
    "cpu_percent": 99.0,
    "gpu_power_w": 250.0,
}


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """No server is named; variables that a tracker's set-up adds are taken back."""
    for name in (*OUTSIDE, "TRACKIO_DIR", "MLFLOW_ALLOW_FILE_STORE", "MLFLOW_DISABLE_TELEMETRY"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


def metrics(step: int, **changes: Any) -> StepMetrics:
    row = StepMetrics(
        step, 40, 0.1 * step, 2.5, 1e-3, 1.0, 900.0, 40, {"task": 30, "replay": 10}, 5.0, 500_000_000, 0.75
    )
    return replace(row, **{"computed_tokens_per_s": 400.0, "cpu_percent": 99.0, "gpu_power_w": 250.0, **changes})


def tune(*trackers: Tracker) -> Tune:
    return Tune(watch=Watch(track=trackers))


def write_twice(folder: Path, tracker: Tracker) -> list[str]:
    """A run of five steps whose training was killed after step 3 and went on from a checkpoint at step 2."""
    warned: list[str] = []
    with pytest.raises(KeyboardInterrupt), tracking(tune(tracker), "demo", folder, warned.append) as first:
        for step in (1, 2, 3):
            first.log(metrics(step, loss=2.5 / step))
        raise KeyboardInterrupt
    with tracking(tune(tracker), "demo", folder, warned.append) as second:
        for step in (3, 4, 5):
            second.log(metrics(step, loss=2.5 / step))
    return [*warned, *first.notes, *second.notes]


STEPS_AND_LOSSES: list[Any] = [(step, pytest.approx(2.5 / step)) for step in range(1, 6)]


def test_tensorboard(tmp_path: Path) -> None:
    accumulators: Any = importlib.import_module("tensorboard.backend.event_processing.event_accumulator")

    assert not write_twice(tmp_path, "tensorboard")
    events = accumulators.EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("loss")] == STEPS_AND_LOSSES
    first = {tag: events.Scalars(tag)[0].value for tag in events.Tags()["scalars"]}
    assert first == pytest.approx({**first, **EXPECTED})


def test_mlflow(tmp_path: Path) -> None:
    from mlflow.tracking import MlflowClient

    assert not write_twice(tmp_path, "mlflow")
    client = MlflowClient((tmp_path / "mlflow").as_uri())
    experiment = client.get_experiment_by_name("whetstone")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    history = client.get_metric_history(run.info.run_id, "loss")
    assert [(value.step, value.value) for value in history] == STEPS_AND_LOSSES
    assert run.data.metrics == pytest.approx({**run.data.metrics, **EXPECTED, "loss": 0.5})
    assert json.loads(run.data.params["learning_rate"]) == 2e-4
    assert run.info.status == "FINISHED"
    assert run.info.run_name.startswith("demo-")


def test_trackio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    # It looks up its directory when it is imported.
    for name in [name for name in sys.modules if name.partition(".")[0] == "trackio"]:
        monkeypatch.delitem(sys.modules, name)
    assert not write_twice(tmp_path, "trackio")
    assert capsys.readouterr().out == ""
    with sqlite3.connect(tmp_path / "trackio" / "whetstone.db") as database:
        rows = database.execute("SELECT run_name, step, metrics FROM metrics ORDER BY step").fetchall()
    assert [(step, json.loads(values)["loss"]) for _, step, values in rows] == STEPS_AND_LOSSES
    assert {name for name, _, _ in rows} == {rows[0][0]}
    assert json.loads(rows[0][2]) == pytest.approx({**json.loads(rows[0][2]), **EXPECTED})


def wandb_records(path: Path) -> Iterator[Any]:
    """Records of an offline file: the log format of LevelDB after a header of seven bytes."""
    from wandb.proto import wandb_internal_pb2

    new_record: Any = vars(wandb_internal_pb2)["Record"]

    content, position, parts = path.read_bytes(), 7, b""
    while position + 7 <= len(content):
        rest = 32768 - position % 32768
        if rest < 7:
            position += rest
            continue
        _, length, kind = struct.unpack("<IHB", content[position : position + 7])
        parts += content[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # a whole record, or the last part of one
            record = new_record()
            record.ParseFromString(parts)
            parts = b""
            yield record


def test_wandb(tmp_path: Path) -> None:
    import wandb

    assert not write_twice(tmp_path, "wandb")
    wandb.teardown()  # its own process writes on after finish(), and is done when this returns
    files = sorted((tmp_path / "wandb").rglob("*.wandb"))
    assert len(files) == 2
    records = [record for file in files for record in wandb_records(file)]
    rows = [
        {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
        for record in records
        if record.WhichOneof("record_type") == "history"
    ]
    assert [(row["_step"], row["loss"]) for row in rows] == STEPS_AND_LOSSES
    assert rows[0] == pytest.approx({**rows[0], **EXPECTED})
    runs = {record.run.run_id for record in records if record.WhichOneof("record_type") == "run"}
    assert len(runs) == 1
    assert next(iter(runs)).startswith("demo-")


def test_a_run_made_anew_is_another_run_of_the_tracker(tmp_path: Path) -> None:
    assert Tracking(tmp_path / "a", print)._suffix != Tracking(tmp_path / "b", print)._suffix


class Failing:
    """A tracker whose server goes away."""

    def __init__(self, folder: Path, name: str, settings: dict[str, Any]) -> None:
        self.told: list[int] = []

    def log(self, values: dict[str, float], step: int) -> None:
        self.told.append(step)
        if step == 2:
            raise ConnectionError(f"https://user:{SECRET}@example.org")

    def finish(self, succeeded: bool) -> None:
        raise AssertionError("it failed before")


def test_a_tracker_that_fails_is_left_out_and_said_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    warned: list[str] = []
    monkeypatch.setitem(track._WRITERS, "wandb", Failing)
    with tracking(tune("wandb", "tensorboard"), "demo", tmp_path, warned.append) as trackers:
        writer: Any = trackers._writers["wandb"]
        for step in (1, 2, 3, 4):
            trackers.log(metrics(step))
        assert list(trackers._writers) == ["tensorboard"]
    assert writer.told == [1, 2]
    assert warned == trackers.notes
    assert warned == ["wandb failed (ConnectionError) and was left out from then on; metrics.jsonl has all rows."]


@pytest.mark.parametrize("stage", ["start", "finish"])
def test_a_tracker_that_fails_at_an_end_is_left_out_too(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, stage: str
) -> None:
    warned: list[str] = []

    def broken(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Failing, "__init__" if stage == "start" else "finish", broken)
    if stage == "finish":
        monkeypatch.setattr(Failing, "log", lambda *_: None)
    monkeypatch.setitem(track._WRITERS, "wandb", Failing)
    with tracking(tune("wandb"), "demo", tmp_path, warned.append) as trackers:
        trackers.log(metrics(1))
    assert [note.split(" and ")[0] for note in warned] == ["wandb failed (OSError)"]


def test_a_tracker_that_is_not_installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "mlflow" else name)
    expected = r"tune\.watch\.track: mlflow not installed; pip install 'whetstone\[track\]'"
    with pytest.raises(UserError, match=expected), tracking(tune("tensorboard", "mlflow"), "demo", tmp_path, print):
        pass
    assert not list(tmp_path.iterdir())


def test_without_trackers_there_is_nothing(tmp_path: Path) -> None:
    with tracking(tune(), "demo", tmp_path, print) as trackers:
        trackers.log(metrics(1))
    assert not list(tmp_path.iterdir())


def test_a_gap_is_a_gap(tmp_path: Path) -> None:
    values = track._numbers(metrics(3, validation_loss=None, loss=float("nan"), gpu_power_w=None))
    assert values.keys().isdisjoint({"validation_loss", "loss", "gpu_power_w", "gpu_percent", "step"})


def streams() -> str:
    return repr((random.getstate(), torch.get_rng_state().tolist(), np.random.get_state(legacy=False)))


class Drawing:
    """A tracker that draws from the global random streams, as MLflow does for one experiment in ten."""

    def __init__(self, *_: object) -> None:
        random.random()
        np.random.rand()
        torch.rand(1)

    def log(self, values: dict[str, float], step: int) -> None:
        Drawing()

    def finish(self, succeeded: bool) -> None:
        Drawing()


def test_a_tracker_that_draws_moves_no_random_stream(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(track._WRITERS, "wandb", Drawing)
    before = streams()
    with tracking(tune("wandb"), "demo", tmp_path, pytest.fail) as trackers:
        trackers.log(metrics(1))
    assert streams() == before


def test_no_secret_is_written_and_no_random_stream_moves(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import wandb

    for name in ("MLFLOW_TRACKING_PASSWORD", "TRACKIO_WRITE_TOKEN", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, SECRET)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_API_KEY", key := SECRET.ljust(40, "f"))
    monkeypatch.setattr(sys, "argv", ["whet", "--token", SECRET])

    before = streams()
    with tracking(tune("wandb", "tensorboard", "mlflow"), "demo", tmp_path, pytest.fail) as trackers:
        trackers.log(metrics(1))
    assert streams() == before, "a stream moved"
    wandb.teardown()
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {path.relative_to(tmp_path).parts[0] for path in written} >= {"wandb", "tensorboard", "mlflow"}
    assert not [path for path in written if SECRET.encode() in path.read_bytes() or key.encode() in path.read_bytes()]
    assert os.environ["WANDB_API_KEY"] == key
