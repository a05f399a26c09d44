"""The command line end to end, in real processes: a tiny model is trained, judged and reported."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

WHET = Path(sys.executable).parent / "whet"

EXPERIMENT = """\
# A tiny decoder from random weights: too small to be good, large enough to be real.
name: tiny
model:
  scratch: {vocabulary_size: 400, dim: 32, layers: 1, heads: 2, feed_forward_dim: 64, context_tokens: 128}
data:
  source: {grammar: corrections, train: 200, validation: 20, test: 48}
  prompt: "Correct: {source}"
  max_tokens: 128
tune: {method: scratch, steps: 12, batch_size: 16, learning_rate: 3e-3}
judge:
  generation: {max_new_tokens: 12, batch_size: 2}
"""


def whet(folder: Path, *arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([WHET, *arguments], cwd=folder, capture_output=True, text=True, timeout=100)
    assert done.returncode == code, f"{arguments}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


@dataclass(frozen=True)
class Workplace:
    folder: Path

    @property
    def run(self) -> Path:
        return self.folder / "runs" / "tiny"

    def rows(self, arm: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.run / "samples" / f"{arm}.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    """A folder in which the tiny experiment has been tuned and compared."""
    folder = tmp_path_factory.mktemp("judged")
    (folder / "tiny.yaml").write_text(EXPERIMENT)
    whet(folder, "tune", "tiny.yaml")
    whet(folder, "compare", "tiny.yaml", code=1)
    return Workplace(folder)


def test_a_run_is_a_folder_of_plain_files(judged: Workplace) -> None:
    names = {str(path.relative_to(judged.run)) for path in judged.run.rglob("*") if path.is_file()}
    assert {
        "run.json",
        "metrics.jsonl",
        "model/model.safetensors",
        "model/tokenizer.json",
        "base/model.safetensors",
        "samples/examples.jsonl",
        "samples/copy-input.jsonl",
        "samples/base.jsonl",
        "samples/base-again.jsonl",
        "samples/tuned.jsonl",
        "report/index.html",
        "report/report.md",
        "report/report.json",
    } <= names
    assert not [name for name in names if "partial" in name or name.endswith((".bin", ".pt", ".pkl"))]


def test_a_model_that_loses_to_copying_is_rejected_with_its_numbers(judged: Workplace) -> None:
    report = json.loads((judged.run / "report" / "report.json").read_text())
    assert report["verdict"]["outcome"] == "REJECT"
    examples = judged.rows("examples")
    right = sum(row["source"] in row["references"] for row in examples)
    assert report["arms"]["copy-input"]["exact_match"]["mean"] == pytest.approx(right / len(examples))
    assert report["arms"]["copy-input"]["exact_match"]["n"] == len(examples) == 48


def test_arms_answer_the_same_prompts_and_greedy_base_repeats_itself(judged: Workplace) -> None:
    prompts = {arm: [row["prompt_hash"] for row in judged.rows(arm)] for arm in ("copy-input", "base", "tuned")}
    assert prompts["copy-input"] == prompts["base"] == prompts["tuned"]
    first, again = ([row["token_ids"] for row in judged.rows(arm)] for arm in ("base", "base-again"))
    assert first == again


def test_finished_work_is_kept(judged: Workplace) -> None:
    before = {path: path.stat().st_mtime_ns for path in judged.run.glob("model/*")}
    samples = judged.rows("tuned")
    assert "tuned already" in whet(judged.folder, "tune", "tiny.yaml").stderr
    whet(judged.folder, "compare", "tiny", code=1)
    assert {path: path.stat().st_mtime_ns for path in judged.run.glob("model/*")} == before
    assert judged.rows("tuned") == samples


def test_report_comes_from_the_rows_alone(judged: Workplace) -> None:
    path = judged.run / "report" / "report.json"
    before = json.loads(path.read_text())
    path.unlink()
    shown = json.loads(whet(judged.folder, "report", "tiny", "--json").stdout)
    assert shown == json.loads(path.read_text()) == before


def test_every_reading_verb_speaks_json(judged: Workplace) -> None:
    listed = json.loads(whet(judged.folder, "runs", "--json").stdout)
    assert [(row["run"], row["state"], row["verdict"]) for row in listed["runs"]] == [("tiny", "judged", "REJECT")]
    shown = json.loads(whet(judged.folder, "show", "tiny", "--json").stdout)
    assert shown["experiment"]["name"] == "tiny"
    assert shown["tuning"]["steps"] == 12
    assert json.loads(whet(judged.folder, "recipes", "--json").stdout)["recipes"].keys() >= {"demo", "grammar-lora"}


def test_people_get_tables(judged: Workplace) -> None:
    assert "tiny" in whet(judged.folder, "runs").stdout
    assert "REJECT" in whet(judged.folder, "show", "tiny").stdout
    assert "REJECT" in whet(judged.folder, "report", "tiny").stdout


def test_a_changed_rule_is_refused_until_asked_for(judged: Workplace) -> None:
    changed = judged.folder / "changed.yaml"
    changed.write_text(EXPERIMENT + "  confidence: 0.9\n")
    error = whet(judged.folder, "compare", "changed.yaml", code=2).stderr
    assert "rule: not what was frozen" in error
    assert "--fresh" in error


def test_another_experiment_cannot_take_the_runs_name(judged: Workplace) -> None:
    changed = judged.folder / "changed.yaml"
    changed.write_text(EXPERIMENT.replace("steps: 12", "steps: 13"))
    error = whet(judged.folder, "tune", "changed.yaml", code=2).stderr
    assert "--name" in error
    whet(judged.folder, "compare", "changed.yaml", "--name", "other", code=2)


def test_weights_that_changed_after_tuning_are_refused(judged: Workplace) -> None:
    weights = judged.run / "model" / "model.safetensors"
    content = weights.read_bytes()
    try:
        weights.write_bytes(content[:-4] + b"\0\0\0\1")
        assert "not those that were tuned" in whet(judged.folder, "compare", "tiny", code=2).stderr
    finally:
        weights.write_bytes(content)


def test_a_killed_comparison_ends_with_the_same_rows(judged: Workplace, tmp_path: Path) -> None:
    """Kill -9 after some batch; the next call goes on and the answers are those of the run that was not killed."""
    (tmp_path / "tiny.yaml").write_text(EXPERIMENT)
    whet(tmp_path, "tune", "tiny.yaml")
    samples = tmp_path / "runs" / "tiny" / "samples"
    with subprocess.Popen([WHET, "compare", "tiny.yaml"], cwd=tmp_path, stderr=subprocess.DEVNULL) as process:
        while not ((samples / "tuned.jsonl").exists() and (samples / "tuned.jsonl").stat().st_size > 0):
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
    torn = samples / "base.jsonl"
    torn.write_bytes(torn.read_bytes()[:-7])
    kept = len((samples / "tuned.jsonl").read_text().splitlines())
    whet(tmp_path, "compare", "tiny", code=1)
    resumed = Workplace(tmp_path)
    assert kept < 48
    for arm in ("base", "base-again", "tuned"):
        assert [row["example"] for row in resumed.rows(arm)] == [row["example"] for row in judged.rows(arm)]
        assert [row["token_ids"] for row in resumed.rows(arm)] == [row["token_ids"] for row in judged.rows(arm)]


def test_a_terminated_tune_leaves_nothing_half_written(tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(EXPERIMENT.replace("steps: 12", "steps: 4000"))
    metrics = tmp_path / "runs" / "tiny" / "metrics.jsonl"
    with subprocess.Popen([WHET, "tune", "tiny.yaml"], cwd=tmp_path, stderr=subprocess.DEVNULL) as process:
        while not metrics.exists():
            time.sleep(0.01)
        process.terminate()
        assert process.wait(timeout=30) == 143
    assert not (tmp_path / "runs" / "tiny" / "model").exists()
    assert json.loads(whet(tmp_path, "runs", "--json").stdout)["runs"][0]["state"] == "begun"
    assert "not tuned yet" in whet(tmp_path, "compare", "tiny", code=2).stderr


def test_init_writes_an_experiment_that_is_valid(tmp_path: Path) -> None:
    whet(tmp_path, "init", "mine.yaml", "--recipe", "scratch-cpu")
    assert "#" in (tmp_path / "mine.yaml").read_text()
    assert "exists already" in whet(tmp_path, "init", "mine.yaml", code=2).stderr
    assert "scratch-cpu" in whet(tmp_path, "init", "x.yaml", "--recipe", "scratch", code=2).stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("tune", "absent.yaml"), "neither an experiment file nor a recipe"),
        (("compare", "absent"), "neither an experiment file nor a recipe"),
        (("report", "absent"), "is not a run"),
        (("show", "absent"), "is not a run"),
        (("tune", "demo", "--name", "../up"), "cannot be a run's name"),
        (("compare", "demo", "--candidate", "nowhere"), "no such folder"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    done = whet(tmp_path, *arguments, code=2)
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert message in done.stderr


def test_wrong_usage_is_bad_input_and_not_a_verdict(tmp_path: Path) -> None:
    for arguments in (("tune",), ("nope",), ("tune", "demo", "--no-such-option"), ()):
        done = whet(tmp_path, *arguments, code=2)
        assert "Traceback" not in done.stderr


def test_a_defect_does_not_look_like_a_verdict(tmp_path: Path) -> None:
    code = (
        "import sys, whetstone.cli.main as main, whetstone.recipes as recipes\n"
        "recipes.recipe_names = lambda: 1 / 0\n"
        "sys.argv = ['whet', 'recipes']\n"
        "main.main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 70
    assert "ZeroDivisionError" in done.stderr


def test_an_interrupt_says_that_nothing_is_lost(tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(EXPERIMENT.replace("steps: 12", "steps: 4000"))
    metrics = tmp_path / "runs" / "tiny" / "metrics.jsonl"
    command = [str(WHET), "tune", "tiny.yaml"]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
        while not metrics.exists():
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "interrupted; what was finished is kept" in stderr
    assert not (tmp_path / "runs" / "tiny" / "model").exists()


def test_help_does_not_load_the_heavy_libraries() -> None:
    heavy = "torch", "transformers", "scipy", "pandas", "altair"
    code = f"import sys, whetstone.cli.main; print([name for name in {heavy} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"


@pytest.mark.parametrize("verb", ["demo", "init", "recipes", "tune", "compare", "report", "runs", "show"])
def test_help_of_every_verb_shows_an_example(tmp_path: Path, verb: str) -> None:
    assert f"Example: whet {verb}" in whet(tmp_path, verb, "--help").stdout
