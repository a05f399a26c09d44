"""``whet report`` for each kind: where it writes, what it prints, what it refuses."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from whetstone.cli.main import app
from whetstone.errors import UserError
from whetstone.report import pdf
from whetstone.run import Run

FILES = {"index.html", "report.md", "report.json"}


@pytest.fixture
def whet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Calls the command in a folder of its own."""
    monkeypatch.chdir(tmp_path)

    def whet(*arguments: str) -> str:
        done = CliRunner().invoke(app, ["report", *arguments])
        if isinstance(done.exception, UserError):
            raise done.exception
        assert done.exit_code == 0, done.output
        return done.stdout

    return whet


@pytest.fixture
def run(make_run: Any, tmp_path: Path) -> Run:
    made: Run = make_run(tmp_path / "runs" / "trained", n=6)
    return made


def request(index: int, **changes: Any) -> dict[str, Any]:
    return {
        "id": f"r{index}",
        "model": "m",
        "started_s": float(index),
        "first_token_s": index + 0.1,
        "end_s": index + 0.5,
        "prompt_tokens": 1,
        "new_tokens": 5,
        "status": "ok",
        "streamed": True,
        "warmup": index == 0,
        "arrival": {"process": "closed", "level": 1},
    } | changes


def write_requests(path: Path) -> Path:
    path.write_text("".join(json.dumps(request(index)) + "\n" for index in range(9)))
    return path


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.suffix != ".svg"}


def test_training_stands_beside_the_decision(whet: Callable[..., str], run: Run) -> None:
    said = whet("trained", "--kind", "training")
    assert said.startswith("TRAINING  trained")
    assert names(run.report / "training") == FILES
    assert not (run.report / "index.html").exists()
    report = json.loads(whet("trained", "--kind", "training", "--json"))
    assert report == json.loads((run.report / "training" / "report.json").read_text())
    assert report["progress"]["step"] == 400


def test_the_decision_is_what_is_reported_when_nothing_is_asked(whet: Callable[..., str], run: Run) -> None:
    assert whet("trained").splitlines()[0].endswith("  trained")
    assert names(run.report) >= FILES
    assert not (run.report / "training").exists()


def test_a_service_of_a_run(whet: Callable[..., str], run: Run) -> None:
    with pytest.raises(UserError, match=r"runs/trained/requests.jsonl: no such file"):
        whet("trained", "--kind", "service")
    write_requests(run.requests_path)
    assert whet("trained", "--kind", "service").startswith("SERVICE  trained")
    assert names(run.report / "service") == FILES


def test_a_service_of_a_file(whet: Callable[..., str], tmp_path: Path) -> None:
    write_requests(tmp_path / "load.jsonl")
    report = json.loads(whet("load.jsonl", "--kind", "service", "--slo-ttft", "0.2", "--json"))
    assert names(tmp_path / "load-report") == FILES
    assert report["objective"] == {"ttft_s": 0.2, "tpot_s": None, "e2e_s": None}
    assert report["loads"][0]["goodput"]["good"]["count"] == 8
    whet("load.jsonl", "--kind", "service", "--out", "elsewhere")
    assert names(tmp_path / "elsewhere") == FILES


def test_what_cannot_be_reported(whet: Callable[..., str], run: Run) -> None:
    with pytest.raises(UserError, match=r"gone.jsonl: no such file; give the requests.jsonl"):
        whet("gone.jsonl", "--kind", "service")
    with pytest.raises(UserError, match="'gone' is not a run"):
        whet("gone", "--kind", "training")
    with pytest.raises(UserError, match="--slo-ttft, --slo-tpot and --slo-e2e are for --kind service"):
        whet("trained", "--kind", "training", "--slo-ttft", "1")
    run.metrics_path.write_text('{"step": "one"}\n')
    with pytest.raises(UserError, match=r"metrics.jsonl:1: step: "):
        whet("trained", "--kind", "training")
    run.metrics_path.unlink()
    run.check_path.write_text('{"parts": 3}')
    with pytest.raises(UserError, match=r"check.json: not what a check writes"):
        whet("trained", "--kind", "training")


def test_pdf_stands_beside_the_page_and_goes_with_it(
    whet: Callable[..., str], run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """With a program in the place of Chromium that copies its page behind the mark of a PDF."""
    folder = tmp_path / "bin"
    folder.mkdir()
    script = """#!/bin/sh
for argument; do case $argument in --print-to-pdf=*) to=${argument#*=};; esac; last=$argument; done
{ echo %PDF-1.4; cat "${last#file://}"; echo %%EOF; } > "$to"
"""
    (folder / "chromium").write_text(script)
    (folder / "chromium").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    for kind, where in (("decision", run.report), ("training", run.report / "training")):
        whet("trained", "--kind", kind, "--pdf")
        printed = (where / "report.pdf").read_text()
        assert "<script>" not in printed
        assert "<details>" not in printed
        assert "<details open>" in printed
    whet("trained", "--kind", "training")
    assert not (run.report / "training" / "report.pdf").exists()


def test_pdf_without_a_chromium_is_refused_before_anything_is_written(
    whet: Callable[..., str], run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pdf, "_BROWSERS", ("no-such-browser",))
    with pytest.raises(UserError, match="--pdf: no Chromium on this machine"):
        whet("trained", "--kind", "training", "--pdf")
    assert not run.report.exists()
