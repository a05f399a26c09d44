import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from whetstone.report.kinds.service.schema import Objective
from whetstone.report.kinds.service.summarise import summarise_service
from whetstone.report.kinds.service.terminal import print_service
from whetstone.report.kinds.training.evidence import load
from whetstone.report.kinds.training.summarise import summarise_training
from whetstone.report.kinds.training.terminal import print_training
from whetstone.run import Run

PAGE = Path("runs/x/report/training/index.html")


def printed(width: int, show: Callable[[Console], None]) -> list[str]:
    out = io.StringIO()
    show(Console(file=out, width=width))
    return out.getvalue().splitlines()


@pytest.mark.parametrize("width", [80, 100])
def test_a_training_fits_a_screen(make_training: Callable[[Path], Run], tmp_path: Path, width: int) -> None:
    report = summarise_training(load(make_training(tmp_path / "trained")))
    lines = printed(width, lambda console: print_training(console, report, PAGE))
    assert len(lines) <= 40
    assert max(map(len, lines)) <= width
    assert lines[0] == "TRAINING  trained  lora, ended"
    assert lines[-1] == f"report  {PAGE}"
    text = "\n".join(lines)
    assert report.loss is not None
    assert report.validation is not None
    assert f"{report.loss.first.value:.4f} to {report.loss.last.value:.4f}" in text
    assert f"best {report.validation.best.value:.4f} at step 200" in text
    assert "▁" in text
    assert "general text: +0.1000 nats per token (+0.0700 to +0.1300)" in text
    assert "mend     It overfits." in text


def test_a_training_without_rows_is_not_measured(make_training: Callable[[Path], Run], tmp_path: Path) -> None:
    run = make_training(tmp_path / "trained")
    for path in (run.metrics_path, run.check_path):
        path.unlink()
    run.update(retention=())
    report = summarise_training(load(run))
    lines = printed(80, lambda console: print_training(console, report, PAGE))
    for label in ("loss", "validation", "tokens/s", "took"):
        assert f"{label:<12}not measured" in lines
    assert "What the rules look at: not measured." in lines


@pytest.mark.parametrize("width", [80, 100])
def test_a_service_fits_a_screen(requests: list[dict[str, Any]], tmp_path: Path, width: int) -> None:
    path = tmp_path / "requests.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in requests))
    report = summarise_service(path, "\x1b[2Jrequests", Objective(ttft_s=0.2, tpot_s=None))
    lines = printed(width, lambda console: print_service(console, report, PAGE))
    assert len(lines) <= 40
    assert max(map(len, lines)) <= width
    text = " ".join(" ".join(lines).split())
    assert "\x1b" not in text
    assert "8 clients, closed loop" in text
    assert "2.5 requests/s, Poisson" in text
    assert "needs n ≥ 368" in text
    failed = report.loads[0].failed
    assert f"failed {failed.count} of 400 ({failed.share:.1%} [{failed.low:.1%}, {failed.high:.1%}])" in text
