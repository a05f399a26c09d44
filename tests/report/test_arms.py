"""Arms beside the four: in every form of the report, as a description."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from whetstone.evaluate.sample import ARMS
from whetstone.judge_section import ExtraArm
from whetstone.report.charts import forest_svg
from whetstone.report.machine import as_json
from whetstone.report.markdown import render_markdown
from whetstone.report.page import render_page
from whetstone.report.summary import Summary, summarise
from whetstone.report.terminal import print_summary
from whetstone.run import Run

SERVED = {"prompt_hash": "messages:x", "prompt_tokens": 9, "token_ids": [], "memory_bytes": None, "counted_tokens": 7}
EXTRA = (
    ExtraArm(name="tuned-int8", model="tuned@int8"),
    ExtraArm(name="base-in-eight-bits", model="base@int8"),
    ExtraArm(name="served", model="http://127.0.0.1:1/v1#m"),
)


@pytest.fixture(scope="module")
def run(make_run: Any, tmp_path_factory: pytest.TempPathFactory) -> Run:
    made: Run = make_run(tmp_path_factory.mktemp("runs") / "arms", n=40, arms=(*ARMS, *EXTRA))
    rewrite(made.samples / "served.jsonl", **SERVED)
    return made


@pytest.fixture(scope="module")
def summary(run: Run) -> Summary:
    return summarise(run)


def rewrite(path: Path, **fields: Any) -> None:
    rows = [json.loads(line) | fields for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_each_is_compared_with_what_it_is_a_variant_of_and_no_gate_looks_at_it(summary: Summary) -> None:
    report = as_json(summary)
    pairs = {name: (found["baseline"], found["candidate"]) for name, found in report["variants"].items()}
    assert pairs == {
        "tuned-int8": ("tuned", "tuned-int8"),
        "base-in-eight-bits": ("base", "base-in-eight-bits"),
        "served": ("tuned", "served"),
    }
    assert not {arm.name for arm in EXTRA} & {
        gate.comparison.candidate for gate in summary.verdict.gates if gate.comparison is not None
    }
    assert list(report["arms"]) == list(report["speed"]) == [*ARMS, *(arm.name for arm in EXTRA)]


def test_the_proof_of_equal_prompts_says_who_renders_elsewhere(summary: Summary) -> None:
    (proof,) = [gate for gate in summary.verdict.gates if gate.name == "All arms answered the same prompts"]
    assert proof.state == "passed"
    assert proof.reason == "The prompt hashes agree on all 40 examples; served: rendered by the server."


def test_a_server_has_the_speed_that_it_counted_and_no_memory(summary: Summary, run: Run) -> None:
    speed = as_json(summary)["speed"]["served"]
    longest: dict[int, float] = {}
    for line in (run.samples / "served.jsonl").read_text().splitlines():
        row = json.loads(line)
        longest[row["batch"]] = max(row["end_s"], longest.get(row["batch"], 0.0))
    assert speed["tokens_per_s"] == pytest.approx(40 * 7 / sum(longest.values()))
    assert speed["memory_bytes"] is None
    rewrite(run.samples / "served.jsonl", counted_tokens=None)
    uncounted = as_json(summarise(run))["speed"]["served"]
    rewrite(run.samples / "served.jsonl", **SERVED)
    assert uncounted["tokens_per_s"] is None
    assert uncounted["latency_p50_s"] == speed["latency_p50_s"]


def test_every_form_of_the_report_has_them(summary: Summary) -> None:
    console = Console(file=io.StringIO(), width=80)
    print_summary(console, summary)
    assert isinstance(console.file, io.StringIO)
    forms = {
        "terminal": console.file.getvalue(),
        "markdown": render_markdown(summary),
        "page": render_page(summary),
        "chart": forest_svg(summary) or "",
    }
    for form, text in forms.items():
        assert [arm.name for arm in EXTRA if arm.name not in text] == [], form
        assert "tuned-int8 against tuned" in text or form == "markdown", form
    lines = forms["terminal"].splitlines()
    assert max(map(len, lines)) <= 80
    tokens_per_s = as_json(summary)["speed"]["base-in-eight-bits"]["tokens_per_s"]
    assert next(line.split()[-1] for line in lines if line.startswith("base-in-")) == f"{tokens_per_s:.0f}"
    for form in ("markdown", "page"):
        assert "float32 weights, int8" in forms[form]
        assert "http, precision not known" in forms[form]
        assert "batches of 32 with a fixed composition" in forms[form]


def test_an_arm_that_did_not_answer_is_not_measured(run: Run) -> None:
    path = run.samples / "tuned-int8.jsonl"
    rows = path.read_text()
    path.unlink()
    unmeasured = summarise(run)
    path.write_text(rows)
    assert as_json(unmeasured)["variants"]["tuned-int8"] is None
    assert as_json(unmeasured)["arms"]["tuned-int8"] is None
    page = render_page(unmeasured)
    assert page.count("not measured") > 8
    assert "| tuned-int8 | tuned | not measured | not measured |" in render_markdown(unmeasured)
