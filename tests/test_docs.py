"""What the documentation shows runs as it stands there, and what it points to exists."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from whetstone.files import read_json, read_jsonl
from whetstone.serve.validation import check
from whetstone.serve_section import Limits, Serve

DOCS = Path(__file__).parent.parent / "docs"
ENGINE = (DOCS / "engine.md").read_text()


def _blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", ENGINE, re.DOTALL)


def test_the_python_example_of_the_engine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (example,) = _blocks("python")
    names: dict[str, object] = {}
    exec(compile(example, "docs/engine.md", "exec"), names)
    answer, best, vote = names["answer"], names["best"], names["vote"]
    assert answer.text and answer.finish_reason == "stop"  # type: ignore[attr-defined]
    pieces = capsys.readouterr().out.splitlines()[1].split("|")
    assert "".join(pieces).startswith(answer.text)  # type: ignore[attr-defined]
    assert len(best.text) <= min(map(len, vote.votes))  # type: ignore[attr-defined]


def test_the_commands_of_the_engine(tmp_path: Path) -> None:
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "OMP_NUM_THREADS": "1"}
    for block in _blocks("bash"):
        done = subprocess.run(
            ["bash", "-e", "-c", block],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, f"{block}\n{done.stdout}\n{done.stderr}"
    talked = read_jsonl(tmp_path / "answers.jsonl")
    assert [len(row["answers"]) for row in talked] == [2, 2]
    assert [len(read_jsonl(tmp_path / name)) for name in ("prompts.answers.jsonl", "drawn.jsonl")] == [2, 8]
    assert read_json(tmp_path / "drawn.jsonl.meta.json")["settings"]["samples"] == 4
    whole = [row["text"] for row in read_jsonl(tmp_path / "drawn.jsonl") if row["finish_reason"] == "stop"]
    assert whole and all(re.fullmatch("(She|He) [a-z ]+[.]", text) for text in whole)


def test_the_settings_of_serving() -> None:
    limits, validate = re.findall(r"```yaml\n(.*?)```", (DOCS / "serving.md").read_text(), re.DOTALL)
    said = Serve.model_validate_json(json.dumps(yaml.safe_load(limits)["serve"]))
    assert said.limits == Limits() and len(said.limits.model_fields_set) == len(Limits.model_fields)
    checked = Serve.model_validate_json(json.dumps(yaml.safe_load(validate)["serve"])).validate_
    assert checked is not None and check(checked, "She go .", "She goes .") is None
    assert check(checked, "She go .", "She go .") is not None


@pytest.mark.parametrize("page", sorted(DOCS.glob("*.md")), ids=lambda page: page.name)
def test_links_of_the_documentation(page: Path) -> None:
    targets = re.findall(r"\]\(((?!http)[^)#]+)[^)]*\)", page.read_text())
    assert [target for target in targets if not (page.parent / target).exists()] == []
