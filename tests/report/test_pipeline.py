"""JUnit XML and annotations say what the gates say."""

import re
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest

from whetstone.errors import UserError
from whetstone.judge_section import Limit
from whetstone.report.pipeline import github_annotations, junit_xml
from whetstone.report.summary import summarise
from whetstone.run import Run
from whetstone.verdict.decide import Verdict
from whetstone.verdict.gate import Gate
from whetstone.verdict.gate_file import load_gates

HOSTILE = Gate("a, b: <c> & \x1b[31m", "failed", "50% of\n::error::it", remedy="mend")
VERDICT = Verdict("REJECT", (Gate("fine", "passed", "yes"), HOSTILE, Gate("unknown", "open", "n = 3", remedy="more")))


def test_every_gate_is_a_test_case() -> None:
    root = ElementTree.fromstring(junit_xml(VERDICT, "demo"))
    suite = root[0]
    assert [suite.get(name) for name in ("tests", "failures", "errors")] == ["3", "1", "1"]
    assert [[child.tag for child in case] for case in suite.iter("testcase")] == [
        ["system-out"],
        ["failure"],
        ["error"],
    ]
    assert "\x1b" not in junit_xml(VERDICT, "demo")


def test_annotations_are_one_line_each_and_cannot_be_broken_out_of() -> None:
    lines = github_annotations(VERDICT, "demo")
    assert [line.split(" ", 1)[0] for line in lines] == ["::error", "::error", "::warning"]
    assert lines[0] == "::error title=REJECT%3A demo::1 of 3 gates passed"
    assert not any("\n" in line for line in lines)
    assert "50%25 of" in lines[1]
    assert all(len(re.findall("^::", line)) == 1 for line in lines)


def test_other_gates_are_applied_to_stored_samples(make_run: Callable[..., Run], tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", tuned_skill=0.7)
    path = tmp_path / "gates.yaml"
    path.write_text(
        "must_improve: [{metric: exact_match, over: base}]\n"
        "limits: [{measure: latency_p50_s, at_most: 60}, {measure: latency_p95_s, at_most_times_base: 0.01}]\n"
        "retention: {margin: 0.1}\n"
    )
    verdict = summarise(run, load_gates(path, run.manifest())).verdict
    assert [gate.state for gate in verdict.gates[3:]] == ["passed", "passed", "failed", "open"]
    assert "The rule came after the answers" in verdict.gates[0].reason
    assert verdict.outcome == "REJECT"
    assert summarise(run).verdict.gates[0].name.startswith("Rule, examples")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("confidence: 0.9\n", r"gates.yaml:1: must_improve: the file holds no gate"),
        ("must_improve: [{metric: exact_mach}]\n", r"gates.yaml:1: .*did you mean 'exact_match'"),
        ("must_improve:\n- {metric: empty, suite: format}\n", r"gates.yaml:2: .*'format' was not asked of this run"),
        ("limits: [{measure: memory_bytes}]\n", r"gates.yaml:1: .*give one bound"),
    ],
)
def test_a_wrong_gate_file_is_one_line(make_run: Callable[..., Run], tmp_path: Path, text: str, problem: str) -> None:
    run = make_run(tmp_path / "run", n=10)
    path = tmp_path / "gates.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=problem):
        load_gates(path, run.manifest())


def test_a_limit_has_one_bound() -> None:
    with pytest.raises(ValueError, match="give one bound"):
        Limit(measure="memory_bytes", at_most=1.0, at_most_times_base=2.0)
