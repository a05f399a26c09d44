"""What a person sees of a training, at the usual widths."""

import io
import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest
from rich.cells import cell_len
from rich.console import Console

from whetstone.cli.live import TrainingView, live_training
from whetstone.train.recorder import StepMetrics
from whetstone.train.sample_answers import SampleAnswer

GPU: dict[str, Any] = {
    "gpu_percent": 93.0,
    "gpu_memory_bytes": 10 * 1024**3,
    "gpu_temperature_c": 61.0,
    "gpu_power_w": 250.0,
}


def row(step: int, **changes: Any) -> StepMetrics:
    metrics = StepMetrics(
        step=step,
        steps=400,
        epoch=step / 100,
        loss=2.0 / (1 + step / 40),
        learning_rate=2e-4,
        gradient_norm=1.25,
        tokens_per_s=1234.0,
        loss_tokens=12_345,
        loss_tokens_by_origin={"task": 10_000, "replay": 2_345},
        elapsed_s=0.5 * step,
        memory_bytes=1_800 * 1024**2,
        validation_loss=0.75 if step == 100 else None,
        computed_tokens_per_s=890.0,
        cpu_percent=97.4,
        system_cpu_percent=60.0,
        process_memory_bytes=900 * 1024**2,
        cpu_temperature_c=71.0,
    )
    return replace(metrics, **changes)


def answer(step: int, example: str = "a", **changes: Any) -> SampleAnswer:
    made = SampleAnswer(step, example, f"user {'x ' * 80} Correct: He go .", f"answer {example}{step}", "He goes .")
    return replace(made, **changes)


def drawn(view: TrainingView, width: int) -> str:
    console = Console(record=True, width=width, file=io.StringIO(), force_terminal=True)
    console.print(view)
    text = console.export_text()
    assert all(cell_len(line.rstrip()) <= width for line in text.splitlines())
    return text


@pytest.mark.parametrize("width", [80, 120])
def test_everything_that_is_known_is_shown(width: int) -> None:
    view = TrainingView()
    for step in range(4, 201, 4):
        view.metrics(row(step, **GPU))
    view.sample(answer(200))
    shown = " ".join(drawn(view, width).split())
    for expected in (
        "step 200/400",
        "1 min 40 s left",
        "loss 0.3333",
        "validation loss 0.7500 (step 100)",
        "learning rate 2.00e-04",
        "gradient norm 1.25",
        "tokens/s 1,234",
        "computed/s 890",
        "task tokens 10,000",
        "replay tokens 2,345",
        "peak memory 1.8 GiB",
        "process memory 900 MiB",
        "CPU 97% · machine 60%",
        "GPU 93% · 10.0 GiB",
        "temperature CPU 71 °C · GPU 61 °C",
        "GPU power 250 W",
        "Correct: He go .",
        "answer answer a200",
        "right He goes .",
    ):
        assert expected in shown, shown


def test_what_no_sensor_tells_is_not_shown() -> None:
    view = TrainingView()
    view.metrics(row(4, cpu_temperature_c=None))
    shown = drawn(view, 80)
    assert "GPU" not in shown
    assert "°C" not in shown
    assert "validation" not in shown


@pytest.mark.parametrize("width", [30, 80])
def test_before_the_first_row(width: int) -> None:
    assert "starting" in drawn(TrainingView(), width)


def test_a_narrow_terminal_loses_no_number() -> None:
    view = TrainingView()
    view.metrics(row(4))
    assert "2.00e-04" in drawn(view, 40)


def test_the_pace_is_that_of_the_last_rows_and_time_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr("whetstone.cli.live.time.monotonic", lambda: clock[0])
    view = TrainingView()
    view.metrics(row(1, elapsed_s=60.0))  # the first step takes longest
    for step in range(2, 301):
        view.metrics(row(step, elapsed_s=60.0 + step))
    assert "1 min 40 s left" in drawn(view, 80)
    clock[0] = 30.0
    assert "1 min 10 s left" in drawn(view, 80)
    clock[0] = 1000.0
    assert "0 ms left" in drawn(view, 80)


def test_the_pace_after_a_resume_counts_the_time_before() -> None:
    view = TrainingView()
    view.metrics(row(100, elapsed_s=200.0))
    assert "10 min 00 s left" in drawn(view, 80)


def test_new_answers_take_the_place_of_old_ones_and_cannot_steer_the_terminal() -> None:
    view = TrainingView()
    view.metrics(row(4))
    for told in (answer(3), answer(6, "a", answer="[red]\x1b[2J two\nlines"), answer(6, "b")):
        view.sample(told)
    shown = drawn(view, 80)
    assert "answer a3" not in shown
    assert "answer b6" in shown
    assert "[red]\N{REPLACEMENT CHARACTER}[2J two lines" in shown


def test_wide_characters_stay_inside_the_line() -> None:
    view = TrainingView()
    view.metrics(row(4))
    view.sample(answer(4, prompt="東京" * 100, answer="東京" * 100))
    assert "東京" in drawn(view, 80)


def test_without_a_terminal_a_plain_line_each_tenth() -> None:
    out = io.StringIO()
    with live_training(Console(file=out, width=40)) as view:
        view.metrics(row(1))
        for step in range(4, 401, 4):
            view.metrics(row(step))
        view.sample(answer(400))
    lines = out.getvalue().splitlines()
    assert [line.split()[1] for line in lines] == [f"{step}/400" for step in range(40, 401, 40)]
    assert lines[2] == "step 120/400  loss 0.5000  validation loss 0.7500 (step 100)  1,234 tokens/s  2 min 20 s left"


def test_on_a_terminal_the_view_is_drawn_and_goes_away() -> None:
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=80)
    with live_training(console) as view:
        view.metrics(row(4))
        view.sample(answer(4))
        console.print("a note meanwhile")
    written = out.getvalue()
    assert "step 4/400" in written
    assert "a note meanwhile" in written
    assert written.rstrip().endswith("\x1b[2K")  # the last thing done is to erase a line


def test_import_does_not_load_torch() -> None:
    program = "import sys, whetstone.cli.live; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
