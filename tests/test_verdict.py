"""The rule, on worlds whose answer is known."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from whetstone.evaluate.evidence import Evidence, load_evidence
from whetstone.judge_section import Judge, MustImprove, MustNotRegress
from whetstone.run import Judgement, Manifest, Run
from whetstone.verdict import Verdict, decide

RULE = Judge(must_improve=(MustImprove(over="base"), MustImprove(over="copy-input")))


@pytest.fixture
def world(make_run: Callable[..., Run], tmp_path: Path) -> Callable[..., tuple[Evidence, Manifest]]:
    """Evidence and manifest of a synthetic run that is judged by ``rule``."""

    def build(rule: Judge = RULE, **settings: object) -> tuple[Evidence, Manifest]:
        run = make_run(tmp_path / "run", **settings)
        manifest = run.manifest()
        judgement = manifest.judgement
        assert judgement is not None
        frozen = judgement.model_copy(update={"rule_hash": rule.fingerprint()})
        experiment = manifest.experiment.model_copy(update={"judge": rule})
        evidence = judged_as(load_evidence(run.samples), frozen)
        return evidence, manifest.model_copy(update={"experiment": experiment, "judgement": frozen})

    return build


def judged_as(evidence: Evidence, judgement: Judgement) -> Evidence:
    """The same rows, as if they had been generated for another judgement."""
    mark = judgement.fingerprint()
    return Evidence(
        evidence.examples,
        {arm: tuple(replace(row, judgement=mark) for row in rows) for arm, rows in evidence.samples.items()},
    )


def states(verdict: Verdict) -> list[str]:
    return [gate.state for gate in verdict.gates if gate.comparison is not None]


def test_clearly_better_is_shipped(world: Callable[..., tuple[Evidence, Manifest]]) -> None:
    verdict = decide(*world(tuned_skill=0.7))
    assert (verdict.outcome, verdict.exit_code) == ("SHIP", 0)
    assert states(verdict) == ["passed", "passed"]


def test_clearly_worse_is_rejected(world: Callable[..., tuple[Evidence, Manifest]]) -> None:
    verdict = decide(*world(tuned_skill=0.1))
    assert (verdict.outcome, verdict.exit_code) == ("REJECT", 1)
    assert states(verdict)[0] == "failed"


def test_about_equal_is_open_and_says_what_would_settle_it(world: Callable[..., tuple[Evidence, Manifest]]) -> None:
    verdict = decide(*world(tuned_skill=0.42))
    assert (verdict.outcome, verdict.exit_code) == ("INCONCLUSIVE", 3)
    gate = next(gate for gate in verdict.gates if gate.state == "open")
    assert "4 times in 5" in gate.remedy


def test_a_single_broken_example_does_not_exclude_a_gain(world: Callable[..., tuple[Evidence, Manifest]]) -> None:
    """One loss in one group gives a bootstrap interval that ends at zero: that is not yet evidence of harm."""
    evidence, manifest = world(group_size=5, tuned_skill=0.4)
    base = evidence.samples["base"]
    index = next(
        i for i, (row, one) in enumerate(zip(base, evidence.examples, strict=True)) if row.text in one.references
    )
    tuned = [replace(row, arm="tuned") for row in base]
    tuned[index] = replace(tuned[index], text="nonsense")
    worse = Evidence(evidence.examples, {**evidence.samples, "tuned": tuple(tuned)})
    gate = next(gate for gate in decide(worse, manifest).gates if gate.comparison is not None)
    assert gate.comparison is not None
    assert gate.comparison.gain < 0
    assert gate.state == "open"


def test_few_examples_settle_nothing(world: Callable[..., tuple[Evidence, Manifest]]) -> None:
    assert decide(*world(n=8, tuned_skill=0.6)).outcome == "INCONCLUSIVE"


@pytest.mark.parametrize(("margin", "expected"), [(0.3, "passed"), (0.001, "open")])
def test_no_regression_needs_the_margin_to_be_excluded(
    world: Callable[..., tuple[Evidence, Manifest]], margin: float, expected: str
) -> None:
    rule = Judge(
        must_improve=RULE.must_improve,
        must_not_regress=(MustNotRegress(metric="truncated", over="base", margin=margin),),
    )
    assert states(decide(*world(rule, tuned_skill=0.7)))[2] == expected


def test_lower_is_better_for_such_metrics(world: Callable[..., tuple[Evidence, Manifest]]) -> None:
    rule = Judge(must_improve=(MustImprove(metric="over_edit", over="copy-input"),))
    gate = decide(*world(rule, tuned_skill=0.7)).gates[-1]
    assert gate.state in ("open", "failed")
    assert gate.comparison is None or gate.comparison.gain <= 0


def test_the_same_weights_are_never_shipped(world: Callable[..., tuple[Evidence, Manifest]]) -> None:
    evidence, manifest = world(tuned_skill=0.9)
    assert manifest.judgement is not None
    assert manifest.base is not None
    same = manifest.judgement.model_copy(update={"candidate": manifest.base})
    verdict = decide(judged_as(evidence, same), manifest.model_copy(update={"judgement": same}))
    assert verdict.outcome == "REJECT"
    assert [gate.remedy for gate in verdict.gates if gate.state == "failed"] == [
        "Tune the model: a base compared with itself has nothing to ship."
    ]


def test_a_rule_edited_after_freezing_is_not_the_rule(world: Callable[..., tuple[Evidence, Manifest]]) -> None:
    evidence, manifest = world(tuned_skill=0.9)
    loose = manifest.experiment.model_copy(update={"judge": Judge(confidence=0.6)})
    verdict = decide(evidence, manifest.model_copy(update={"experiment": loose}))
    assert verdict.outcome == "REJECT"


def test_other_prompts_for_one_arm_are_not_a_comparison(world: Callable[..., tuple[Evidence, Manifest]]) -> None:
    evidence, manifest = world(tuned_skill=0.9)
    tuned = (replace(evidence.samples["tuned"][0], prompt_hash="other"), *evidence.samples["tuned"][1:])
    changed = Evidence(evidence.examples, {**evidence.samples, "tuned": tuned})
    assert decide(changed, manifest).outcome == "REJECT"


def test_a_missing_arm_is_named_and_nothing_is_shipped(world: Callable[..., tuple[Evidence, Manifest]]) -> None:
    evidence, manifest = world(tuned_skill=0.9)
    without = Evidence(evidence.examples, {arm: rows for arm, rows in evidence.samples.items() if arm != "base"})
    verdict = decide(without, manifest)
    assert verdict.outcome == "INCONCLUSIVE"
    assert "base did not answer" in " ".join(gate.reason for gate in verdict.gates)


def test_rows_of_another_judgement_are_not_evidence(world: Callable[..., tuple[Evidence, Manifest]]) -> None:
    evidence, manifest = world(tuned_skill=0.9)
    assert manifest.judgement is not None
    other = manifest.judgement.model_copy(update={"device": "cuda"})
    assert decide(judged_as(evidence, other), manifest).outcome == "REJECT"


def test_examples_that_were_edited_are_not_evidence(world: Callable[..., tuple[Evidence, Manifest]]) -> None:
    evidence, manifest = world(tuned_skill=0.9)
    edited = (replace(evidence.examples[0], references=("anything",)), *evidence.examples[1:])
    assert decide(Evidence(edited, evidence.samples), manifest).outcome == "REJECT"


def test_without_a_record_nothing_is_shipped(world: Callable[..., tuple[Evidence, Manifest]]) -> None:
    evidence, manifest = world(tuned_skill=0.9)
    assert decide(evidence, manifest.model_copy(update={"judgement": None})).outcome == "INCONCLUSIVE"
