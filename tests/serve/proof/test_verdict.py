"""How models stand by the rows of their runs."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from whetstone.errors import UserError
from whetstone.evaluate.sanity import SANITY_FILE
from whetstone.files import write_json
from whetstone.models.ref import parse_ref
from whetstone.report.summary import summarise
from whetstone.run import Run
from whetstone.serve.proof.verdict import Standing, Verdicts, refuse_unless_forced
from whetstone.serve.served_model import Proof
from whetstone.verdict.of_run import verdict_of

MakeRun = Callable[..., Run]


@dataclass
class Stages:
    """What was said while it was done."""

    said: list[str] = field(default_factory=list)

    def __call__(self, said: str) -> None:
        self.said.append(said)


def standing(runs: Path, ref: str, **more: Any) -> Standing:
    return Verdicts(runs).of_model(parse_ref(ref), **more)


def shipping(make_run: MakeRun, path: Path) -> Run:
    """A run that was judged by what it improves, and by nothing else."""
    run = make_run(path, n=200, tuned_skill=0.9)
    manifest = run.manifest()
    assert manifest.judgement is not None
    judge = manifest.experiment.judge.model_copy(update={"must_not_regress": ()})
    judgement = manifest.judgement.model_copy(update={"rule_hash": judge.fingerprint()})
    run.update(experiment=manifest.experiment.model_copy(update={"judge": judge}), judgement=judgement)
    for rows in run.samples.glob("*.jsonl"):
        rows.write_text(rows.read_text().replace(manifest.judgement.fingerprint(), judgement.fingerprint()))
    tried = {"prompts": 4, "logit_change": 3.0, "engine": [], "training_examples": 10, "leaked": []}
    write_json(run.samples / SANITY_FILE, {**tried, "judgement": judgement.fingerprint()})
    return run


@pytest.mark.parametrize("more", [{}, {"suites": True}, {"group_size": 3}, {"tuning": False}])
def test_the_verdict_is_that_of_the_report(make_run: MakeRun, tmp_path: Path, more: dict[str, Any]) -> None:
    run = make_run(tmp_path / "run", n=60, **more)
    assert verdict_of(run) == summarise(run).verdict


def test_a_run_that_ships_may_be_served_and_so_may_its_base(make_run: MakeRun, tmp_path: Path) -> None:
    run = shipping(make_run, tmp_path / "good")
    stages = Stages()
    verdicts = Verdicts(tmp_path, stages)
    for ref, arm in (("run:good", "tuned"), ("run:good#base", "base"), ("run:good#merged@int8", "tuned")):
        found = verdicts.of_model(parse_ref(ref))
        assert (found.verdict, found.refusal, found.arm) == ("SHIP", None, arm)
    assert stages.said == ["computing the verdict of run good from its rows"]
    gates = summarise(run).verdict.gates
    assert found.reasons == tuple(f"{gate.name}: {gate.reason}" for gate in gates)


def test_the_report_is_not_believed(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run(tmp_path / "poor", tuned_skill=0.1)
    run.report.mkdir()
    (run.report / "report.json").write_text(json.dumps({"verdict": {"outcome": "SHIP"}}))
    found = standing(tmp_path, "run:poor")
    assert found.verdict == "REJECT"
    assert found.refusal is not None
    assert found.refusal.startswith("REJECT: Exact match better than base: ")


def test_what_is_open_names_the_gate_that_is(make_run: MakeRun, tmp_path: Path) -> None:
    make_run(tmp_path / "equal", tuned_skill=0.38)
    refusal = standing(tmp_path, "run:equal").refusal
    assert refusal is not None
    assert refusal.startswith("INCONCLUSIVE: Exact match better than base: ")


def test_rows_of_another_judgement_do_not_ship(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run(tmp_path / "forged")
    rows = (run.samples / "tuned.jsonl").read_text().replace(run.manifest().judgement.fingerprint(), "0" * 16)  # type: ignore[union-attr]
    (run.samples / "tuned.jsonl").write_text(rows)
    refusal = standing(tmp_path, "run:forged").refusal
    assert refusal == (
        "REJECT: Rule, examples and rows are those that were frozen: A hash differs from the one in the run."
    )


def test_a_run_without_judgement_or_rows_is_not_judged(make_run: MakeRun, tmp_path: Path) -> None:
    make_run(tmp_path / "begun").update(judgement=None)
    assert standing(tmp_path, "run:begun").refusal == "not judged; call 'whet compare begun'"
    run = make_run(tmp_path / "bare")
    (run.samples / "examples.jsonl").unlink()
    refusal = standing(tmp_path, "run:bare").refusal
    assert refusal is not None
    assert "examples.jsonl: no such file; 'whet compare' generates the samples" in refusal


def test_other_weights_than_the_judged_ones_are_refused(make_run: MakeRun, tmp_path: Path) -> None:
    run = shipping(make_run, tmp_path / "run")
    manifest = run.manifest()
    assert manifest.tuning is not None
    assert manifest.base is not None
    run.update(tuning=manifest.tuning.model_copy(update={"tuned": manifest.base}))
    found = standing(tmp_path, "run:run")
    assert found.refusal == (
        "judged were other tuned weights (a7a7a7a7a7a7a7a7; here 3f3f3f3f3f3f3f3f); call 'whet compare run --fresh'"
    )
    assert standing(tmp_path, "run:run#base").refusal is None
    run.update(tuning=manifest.tuning, base=manifest.base.model_copy(update={"sha256": "11" * 32}))
    for ref in ("run:run", "run:run#base"):
        assert "judged were other base weights" in str(standing(tmp_path, ref).refusal)


def test_whoever_deletes_what_was_tried_serves_nothing(make_run: MakeRun, tmp_path: Path) -> None:
    run = shipping(make_run, tmp_path / "run")
    assert standing(tmp_path, "run:run").refusal is None
    (run.samples / SANITY_FILE).unlink()
    assert "sanity.json: no record of this judgement" in str(standing(tmp_path, "run:run").refusal)


@pytest.mark.parametrize("ref", ["builtin:demo-base", "mlx:org/name", "http://host/v1#m", "a+b"])
def test_what_is_of_no_run_is_not_judged(tmp_path: Path, ref: str) -> None:
    found = standing(tmp_path, ref)
    assert found.refusal is not None
    assert found.refusal.startswith("not judged: it is of no run")
    assert (found.run, found.verdict, found.judgement) == (None, None, None)


def test_random_weights_mean_nothing(tmp_path: Path) -> None:
    assert standing(tmp_path, "random:builtin:demo-base").refusal == "random weights, whose answers mean nothing"


def test_a_run_that_is_not_there_is_an_error_and_no_question_of_force(make_run: MakeRun, tmp_path: Path) -> None:
    make_run(tmp_path / "demo", n=4)
    with pytest.raises(UserError, match=r"no run 'dem' under .*did you mean 'demo'"):
        standing(tmp_path, "run:dem")


def test_an_earlier_verdict_holds_for_the_same_judgement_only(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", n=80, tuned_skill=0.0)
    frozen_at = run.manifest().judgement.frozen_at  # type: ignore[union-attr]
    earlier = Proof(verdict="SHIP", reasons=("because",), judged_at=frozen_at)
    found = standing(tmp_path, "run:run", earlier=earlier)
    assert (found.verdict, found.reasons, found.refusal) == ("SHIP", ("because",), None)
    for other in (
        earlier.model_copy(update={"judged_at": "2025-01-01T00:00:00+00:00"}),
        earlier.model_copy(update={"verdict": "REJECT"}),
        Proof(),
    ):
        assert standing(tmp_path, "run:run", earlier=other).verdict == "REJECT"


def test_force_is_the_only_way_past_a_refusal() -> None:
    refuse_unless_forced("run:x", None, force=False)
    refuse_unless_forced("run:x", "REJECT: a gate.", force=True)
    with pytest.raises(UserError, match=r"^run:x: not served: REJECT: a gate; --force serves it all the same"):
        refuse_unless_forced("run:x", "REJECT: a gate.", force=False)
