"""Rows of ``metrics.jsonl`` out of a real Trainer, whole and interrupted."""

# The classes of transformers are untyped here.
# mypy: allow-subclassing-any

import json
import math
from collections.abc import Callable
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from whetstone.errors import UserError
from whetstone.files import read_jsonl
from whetstone.train.recorder import Counters, Recorder, StepMetrics, cut_after, log_interval
from whetstone.train.sensors import Reading, Sensors

STEPS = 250
ROW_TOKENS, COMPUTED_TOKENS = 10, 4


class Model(nn.Module):
    """The smallest thing that learns."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"loss": ((self.weight * x - 3 * x) ** 2).mean()}


class Counting(Trainer):
    """Counts as the real trainer does."""

    counters: Counters

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        self.counters.row_tokens += ROW_TOKENS
        self.counters.computed_tokens += COMPUTED_TOKENS
        self.counters.loss_tokens["task"] += 3
        self.counters.loss_tokens["replay"] += 1
        loss: torch.Tensor = super().training_step(*args, **kwargs)
        return loss


class Stop(TrainerCallback):
    """Ends a run before its time; keeps what a checkpoint keeps."""

    def __init__(self, at: int, recorder: Recorder) -> None:
        self.at, self.recorder = at, recorder
        self.kept: dict[str, Any] = {}

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        if state.global_step == self.at:
            self.kept = json.loads(json.dumps(self.recorder.state()))
            control.should_training_stop = True
        return control


def recorded(
    path: Path, observer: Callable[[StepMetrics], None] = lambda _: None, validated: dict[int, float] | None = None
) -> Recorder:
    return Recorder(
        path,
        Counters(loss_tokens={"task": 0, "replay": 0}),
        Sensors(torch.device("cpu")),
        epochs_after=lambda step: step / 100,
        validation_loss_at=(validated or {}).get,
        observer=observer,
    )


def train(recorder: Recorder, folder: Path, *, stop: int = 0, steps: int = STEPS, **settings: Any) -> Stop:
    arguments = TrainingArguments(
        output_dir=str(folder / "trainer"),
        max_steps=steps,
        per_device_train_batch_size=2,
        learning_rate=1e-3,
        logging_strategy="no",
        save_strategy=settings.pop("save_strategy", "no"),
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
        **settings,
    )
    rows = [{"x": torch.tensor([1.0 + n % 5])} for n in range(2 * STEPS)]
    stopper = Stop(stop, recorder)
    trainer = Counting(Model(), arguments, train_dataset=rows, callbacks=[recorder, stopper])
    trainer.counters = recorder._counters
    trainer.train()
    return stopper


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[dict[str, Any]], list[StepMetrics]]:
    """The file and what the observer was told."""
    folder, seen = tmp_path_factory.mktemp("whole"), list[StepMetrics]()
    train(recorded(folder / "metrics.jsonl", seen.append, {77: 0.5}), folder)
    return read_jsonl(folder / "metrics.jsonl"), seen


def test_first_last_every_hundredth_and_measured_steps_are_logged(
    whole: tuple[list[dict[str, Any]], list[StepMetrics]],
) -> None:
    rows, _ = whole
    assert [row["step"] for row in rows] == sorted({1, 77, STEPS, *range(2, STEPS + 1, 2)})
    assert {row["step"]: row["validation_loss"] for row in rows if row["validation_loss"] is not None} == {77: 0.5}


def test_a_row_says_everything(whole: tuple[list[dict[str, Any]], list[StepMetrics]]) -> None:
    rows, seen = whole
    assert rows == [metrics.as_row() for metrics in seen]
    last = rows[-1]
    assert last.keys() == {field.name for field in fields(StepMetrics)}
    assert last.keys() > {field.name for field in fields(Reading)}
    assert (last["steps"], last["epoch"]) == (STEPS, STEPS / 100)
    assert last["loss_tokens"] == 4 * STEPS
    assert last["loss_tokens_by_origin"] == {"task": 3 * STEPS, "replay": STEPS}
    assert last["cpu_percent"] is not None
    assert last["process_memory_bytes"] > 10_000_000
    for row in rows:
        assert row["computed_tokens_per_s"] == pytest.approx(row["tokens_per_s"] * COMPUTED_TOKENS / ROW_TOKENS)
    assert [row["elapsed_s"] for row in rows] == sorted(row["elapsed_s"] for row in rows)


def test_what_happens_between_steps_does_not_slow_the_rate(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    clock = [0.0]
    monkeypatch.setattr("whetstone.train.recorder.time.perf_counter", lambda: clock[0])
    monkeypatch.setattr("whetstone.train.recorder.time.monotonic", lambda: clock[0])
    seen: list[StepMetrics] = []
    recorder = recorded(tmp_path / "metrics.jsonl", seen.append)
    arguments = TrainingArguments(output_dir=str(tmp_path), use_cpu=True)
    state, control = TrainerState(max_steps=2), TrainerControl()
    for step in (1, 2):
        recorder.on_step_begin(arguments, state, control)
        clock[0] += 2.0
        recorder._counters.row_tokens += 100
        recorder.on_optimizer_step(arguments, state, control)
        clock[0] += 30.0  # validation, checkpoint
        state.global_step = step
        recorder.on_step_end(arguments, state, control)
        recorder.on_log(arguments, state, control, logs={"loss": 1.0, "grad_norm": 1.0, "learning_rate": 0.1})
    assert [metrics.tokens_per_s for metrics in seen] == [50.0, 50.0]
    assert [metrics.elapsed_s for metrics in seen] == [32.0, 64.0]


def test_a_run_that_stops_early_logs_its_last_step_once(tmp_path: Path) -> None:
    train(recorded(tmp_path / "metrics.jsonl"), tmp_path, stop=7)
    assert [row["step"] for row in read_jsonl(tmp_path / "metrics.jsonl")] == [1, 2, 4, 6, 7]


def test_checkpoints_are_logged_so_that_losses_after_a_resume_are_means_over_the_same_steps(tmp_path: Path) -> None:
    train(recorded(tmp_path / "metrics.jsonl"), tmp_path, steps=400, stop=8, save_strategy="steps", save_steps=3)
    assert [row["step"] for row in read_jsonl(tmp_path / "metrics.jsonl")] == [1, 3, 4, 6, 8]


def test_a_resumed_run_continues_time_and_counts_and_has_each_step_once(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    kept = train(recorded(path), tmp_path, stop=6).kept
    before = read_jsonl(path)
    # The killed run had gone on after its checkpoint, and was writing when it died.
    with path.open("a") as file:
        file.write(json.dumps({**before[-1], "step": 8}) + "\n" + '{"step": 10, "lo')
    recorder = recorded(path)
    recorder.restore({**kept, "elapsed_s": 1000.0})
    assert read_jsonl(path) == before
    assert asdict(recorder._counters) == kept["counters"]
    train(recorder, tmp_path, stop=4)  # the Trainer itself starts anew here: its steps count from 1
    after = read_jsonl(path)[len(before) :]
    assert after[0]["loss_tokens_by_origin"] == {"task": 3 * 7, "replay": 7}
    assert after[0]["elapsed_s"] > 1000
    assert path.read_bytes().endswith(b"\n")


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_not_a_number_is_null(tmp_path: Path, value: float) -> None:
    recorder = recorded(tmp_path / "metrics.jsonl")
    recorder._busy_s = 1.0
    logs = {"loss": value, "grad_norm": value, "learning_rate": 1e-3}
    arguments = TrainingArguments(output_dir=str(tmp_path), use_cpu=True)
    recorder.on_log(arguments, TrainerState(), TrainerControl(), logs=logs)

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    row = json.loads((tmp_path / "metrics.jsonl").read_text(), parse_constant=refuse)
    assert (row["loss"], row["gradient_norm"]) == (None, None)


def test_logs_without_a_loss_are_no_row(tmp_path: Path) -> None:
    recorder = recorded(tmp_path / "metrics.jsonl")
    arguments = TrainingArguments(output_dir=str(tmp_path), use_cpu=True)
    recorder.on_log(arguments, TrainerState(), TrainerControl(), logs={"train_runtime": 3.0})
    assert not (tmp_path / "metrics.jsonl").exists()


@given(steps=st.lists(st.integers(1, 50), unique=True).map(sorted), cut=st.integers(0, 60), torn=st.booleans())
def test_cutting_keeps_exactly_the_whole_rows_up_to_the_step(
    tmp_path_factory: pytest.TempPathFactory, steps: list[int], cut: int, torn: bool
) -> None:
    path = tmp_path_factory.mktemp("cut") / "metrics.jsonl"
    path.write_text("".join(f'{{"step": {step}}}\n' for step in steps) + ('{"step": 0' if torn else ""))
    cut_after(path, cut)
    assert path.read_text() == "".join(f'{{"step": {step}}}\n' for step in steps if step <= cut)
    assert list(path.parent.iterdir()) == [path]


def test_cutting_nothing(tmp_path: Path) -> None:
    cut_after(tmp_path / "metrics.jsonl", 3)
    assert not list(tmp_path.iterdir())


def test_a_file_that_cannot_be_written_is_said_plainly(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"gone/metrics\.jsonl: cannot be written"):
        train(recorded(tmp_path / "gone" / "metrics.jsonl"), tmp_path, steps=1)


@given(st.integers(1, 100_000))
def test_a_run_has_about_a_hundred_rows(steps: int) -> None:
    assert min(steps, 100) <= steps // log_interval(steps) < 200
