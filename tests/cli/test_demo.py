"""The whole demo, and the demo killed again and again. Minutes: ``pytest -m slow tests/cli/test_demo.py``."""

import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

WHET = Path(sys.executable).parent / "whet"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


def demo(folder: Path, *arguments: str) -> "subprocess.Popen[str]":
    command = [str(WHET), "demo", *arguments]
    return subprocess.Popen(command, cwd=folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def finished_well(folder: Path, process: "subprocess.Popen[str]") -> dict[str, object]:
    stdout, stderr = process.communicate()
    assert process.returncode == 0, stderr
    assert "SHIP" in stdout
    report = folder / "runs" / "demo" / "report"
    assert {"index.html", "report.md", "report.json"} <= {path.name for path in report.iterdir()}
    parsed: dict[str, object] = json.loads((report / "report.json").read_text())
    return parsed


def answers(folder: Path) -> list[list[int]]:
    path = folder / "runs" / "demo" / "samples" / "tuned.jsonl"
    return [json.loads(line)["token_ids"] for line in path.read_text().splitlines()]


def test_the_demo_ships_in_little_memory_and_gives_the_same_twice(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second):
        folder.mkdir()
        finished_well(folder, demo(folder))
    assert answers(first) == answers(second)
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 < 2.5e9


def test_ten_kills_lose_nothing_and_nothing_half_written_is_read(tmp_path: Path) -> None:
    dice = random.Random(0)
    for _ in range(10):
        process = demo(tmp_path)
        time.sleep(dice.uniform(1, 60))
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        for path in tmp_path.rglob("*.json"):
            if "partial" not in str(path):
                json.loads(path.read_text())
    report = finished_well(tmp_path, demo(tmp_path))
    assert len(answers(tmp_path)) == report["examples"]["n"]  # type: ignore[index]
