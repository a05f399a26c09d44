import io
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from whetstone.report.machine import as_json
from whetstone.report.summary import Summary, summarise
from whetstone.report.terminal import print_summary
from whetstone.run import Run


@pytest.fixture(scope="module")
def run(make_run: Any, tmp_path_factory: pytest.TempPathFactory) -> Run:
    made: Run = make_run(tmp_path_factory.mktemp("runs") / "grammar-lora", n=120)
    return made


@pytest.fixture(scope="module")
def summary(run: Run) -> Summary:
    return summarise(run)


def printed(summary: Summary, width: int, *, colour: bool = False, report: Path | None = None) -> str:
    console = Console(
        file=io.StringIO(), width=width, color_system="truecolor" if colour else None, force_terminal=colour
    )
    print_summary(console, summary, report)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_it_fits_a_screen(summary: Summary) -> None:
    lines = printed(summary, 100).splitlines()
    assert len(lines) <= 42
    assert max(map(len, lines)) <= 100


def test_it_fits_eighty_columns_and_cuts_no_number(summary: Summary) -> None:
    text = printed(summary, 80)
    assert max(map(len, text.splitlines())) <= 80
    report = as_json(summary)
    for arm in ("base", "base-again", "tuned"):
        scores = report["arms"][arm]
        line = next(line for line in text.splitlines() if line.startswith(f"{arm} "))
        for name in ("exact_match", "over_edit", "copy_rate", "extra_text", "empty", "too_short"):
            assert f"{scores[name]['mean']:.1%}" in line
        interval = scores["exact_match"]["interval"]
        assert f"[{100 * interval['low']:.1f}, {100 * interval['high']:.1f}]" in line
        assert f"{report['speed'][arm]['tokens_per_s']:.0f}" in line


def test_the_verdict_comes_first_and_the_report_last(summary: Summary) -> None:
    lines = printed(summary, 100, report=Path("runs/x/report/index.html")).splitlines()
    assert lines[0] == f"{summary.verdict.outcome}  grammar-lora"
    assert lines[-1] == "report  runs/x/report/index.html"
    assert "report/index.html" in printed(summary, 100).splitlines()[-1]


def test_every_gate_has_its_state_and_reason(summary: Summary) -> None:
    text = " ".join(printed(summary, 100).replace("−", "-").split())
    for gate in summary.verdict.gates:
        assert f"{gate.state} {gate.name}: {gate.reason}" in text
        assert gate.remedy in text


def test_without_colour_the_difference_is_marked_and_nothing_steers_the_terminal(summary: Summary) -> None:
    text = printed(summary, 100)
    assert "\x1b" not in text
    assert re.search(r"\[-.+-\]", text)
    assert re.search(r"\{\+.+\+\}", text)


def test_what_a_model_wrote_cannot_steer_the_terminal(run: Run, tmp_path: Path) -> None:
    shutil.copytree(run.path, tmp_path / "run")
    path = tmp_path / "run" / "samples" / "tuned.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps({**row, "text": "\x1b[2J[red]x[/red]\u202e\x07"}) + "\n" for row in rows))
    text = printed(summarise(Run(tmp_path / "run")), 100, colour=True)
    assert "\x1b[2J" not in text
    assert "[2J[red]x[/red]" in text
    assert "\u202e" not in text
    assert "\x07" not in text


def test_what_is_missing_is_not_measured(run: Run, tmp_path: Path) -> None:
    shutil.copytree(run.path, tmp_path / "run")
    (tmp_path / "run" / "samples" / "tuned.jsonl").unlink()
    text = printed(summarise(Run(tmp_path / "run")), 80)
    assert re.search(r"^tuned +not measured", text, flags=re.MULTILINE)
    assert "fixed and broken: not measured" in text
    assert "worst regression" not in text
