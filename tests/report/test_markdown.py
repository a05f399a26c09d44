import itertools
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from whetstone.evaluate.sample import ARMS
from whetstone.report.markdown import render_markdown
from whetstone.report.summary import summarise
from whetstone.report.write import write_report
from whetstone.run import Run


@pytest.fixture(scope="module")
def run(make_run: Any, tmp_path_factory: pytest.TempPathFactory) -> Run:
    made: Run = make_run(tmp_path_factory.mktemp("runs") / "grammar-lora", n=120)
    write_report(made)
    return made


def row_of(text: str, *start: str) -> list[str]:
    cells = [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in text.splitlines()]
    return next(line for line in cells if line[: len(start)] == list(start))


def test_the_numbers_are_those_of_the_json_report(run: Run) -> None:
    report = json.loads((run.report / "report.json").read_text())
    text = (run.report / "report.md").read_text()
    for over in ("base", "copy-input", "few-shot"):
        found = report["comparisons"]["exact_match"][over]
        shown = row_of(text, "Exact match", "higher is better", over)[3:]
        assert shown[0] == f"{100 * found['difference']:+.1f} points".replace("-", "−")
        assert shown[2] == str(found["n"])
    cells = next(line for line in text.splitlines() if line.startswith("| Exact match:")).split(" | ")
    for cell, arm in zip(cells[1:], ARMS, strict=True):
        assert f"**{report['arms'][arm]['exact_match']['mean']:.1%}**" in cell
    assert row_of(text, "**Base wrong**")[1] == f"{report['flips']['fixed']} fixed"


def test_charts_that_are_referred_to_lie_beside_it(run: Run) -> None:
    names = re.findall(r"!\[[^\]]*\]\(([^)]+)\)", (run.report / "report.md").read_text())
    assert names == ["forest.svg", "training.svg"]
    assert all((run.report / name).read_text().startswith("<svg") for name in names)


def test_charts_of_an_earlier_report_do_not_stay(run: Run, tmp_path: Path) -> None:
    shutil.copytree(run.path, tmp_path / "run")
    copy = Run(tmp_path / "run")
    copy.metrics_path.unlink()
    (copy.samples / "tuned.jsonl").unlink()
    write_report(copy)
    files = {path.name for path in copy.report.iterdir()}
    assert files == {"index.html", "report.md", "report.json"}
    text = (copy.report / "report.md").read_text()
    assert "![" not in text
    assert "Training curve: not measured." in text
    assert row_of(text, "Exact match", "higher is better", "base")[3:] == ["not measured"] * 4


def test_texts_stay_inside_their_block(run: Run, tmp_path: Path) -> None:
    shutil.copytree(run.path, tmp_path / "run")
    path = tmp_path / "run" / "samples" / "tuned.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    hostile = "````\n# heading <script>alert(1)</script> | cell"
    path.write_text("".join(json.dumps({**row, "text": hostile}) + "\n" for row in rows))
    text = render_markdown(summarise(Run(tmp_path / "run")))
    blocks = re.split(r"^`````(?:diff)?$", text, flags=re.MULTILINE)
    assert len(blocks) > 2
    assert all("<script>" not in outside for outside in blocks[::2])
    assert all("<script>" in inside for inside in blocks[1::2])


def test_tables_are_whole(run: Run) -> None:
    lines = (run.report / "report.md").read_text().splitlines()
    for line, following in itertools.pairwise(lines):
        if line.startswith("|") and following.startswith("|"):
            assert len(re.findall(r"(?<!\\)\|", line)) == len(re.findall(r"(?<!\\)\|", following))


def test_the_json_report_is_strict_json_and_names_its_schema(run: Run) -> None:
    def refuse(constant: str) -> float:
        raise ValueError(constant)

    report = json.loads((run.report / "report.json").read_text(), parse_constant=refuse)
    assert report["schema_version"] == 2
    assert report["verdict"]["exit_code"] in (0, 1, 3)
    assert report["manifest"] == json.loads((run.path / "run.json").read_text())


def test_flips_of_metrics_that_are_better_when_lower_count_the_lower_score_as_right(run: Run) -> None:
    found = json.loads((run.report / "report.json").read_text())["comparisons"]["extra_text"]["base"]
    flips = found["flips"]
    assert sum(flips.values()) == found["n"]
    assert flips["fixed"] - flips["broken"] == pytest.approx(-found["difference"] * found["n"])
