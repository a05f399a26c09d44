"""The rule, on worlds whose answer is known."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from whetstone.judge_section import Judge, MustImprove, MustNotRegress
from whetstone.report.summary import summarise
from whetstone.run import Judgement, Run
from whetstone.verdict.decide import Verdict

RULE = Judge(must_improve=(MustImprove(over="base"), MustImprove(over="copy-input")))


@dataclass
class World:
    """A synthetic run whose rows and record can be changed."""

    run: Run

    def decide(self) -> Verdict:
        return summarise(self.run).verdict

    @property
    def judgement(self) -> Judgement:
        judgement = self.run.manifest().judgement
        assert judgement is not None
        return judgement

    def rows(self, name: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.run.samples / f"{name}.jsonl").read_text().splitlines()]

    def write(self, name: str, rows: list[dict[str, Any]]) -> None:
        (self.run.samples / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def judge_as(self, judgement: Judgement) -> None:
        """Has the rows belong to another judgement."""
        for path in self.run.samples.glob("*.jsonl"):
            if path.stem != "examples":
                rows = self.rows(path.stem)
                self.write(path.stem, [{**row, "judgement": judgement.fingerprint()} for row in rows])

    def record(self, judgement: Judgement | None) -> None:
        self.run.update(judgement=judgement)


MakeWorld = Callable[..., World]


@pytest.fixture
def world(make_run: Callable[..., Run], tmp_path: Path) -> MakeWorld:
    """A synthetic run that is judged by ``rule``."""

    def build(rule: Judge = RULE, **settings: object) -> World:
        made = World(make_run(tmp_path / "run", **settings))
        frozen = made.judgement.model_copy(update={"rule_hash": rule.fingerprint()})
        experiment = made.run.manifest().experiment.model_copy(update={"judge": rule})
        made.run.update(experiment=experiment, judgement=frozen)
        made.judge_as(frozen)
        return made

    return build


def states(verdict: Verdict) -> list[str]:
    return [gate.state for gate in verdict.gates if gate.comparison is not None]


def test_clearly_better_is_shipped(world: MakeWorld) -> None:
    verdict = world(tuned_skill=0.7).decide()
    assert (verdict.outcome, verdict.exit_code) == ("SHIP", 0)
    assert states(verdict) == ["passed", "passed"]


def test_clearly_worse_is_rejected(world: MakeWorld) -> None:
    verdict = world(tuned_skill=0.1).decide()
    assert (verdict.outcome, verdict.exit_code) == ("REJECT", 1)
    assert states(verdict)[0] == "failed"


def test_about_equal_is_open_and_says_what_would_settle_it(world: MakeWorld) -> None:
    verdict = world(tuned_skill=0.42).decide()
    assert (verdict.outcome, verdict.exit_code) == ("INCONCLUSIVE", 3)
    gate = next(gate for gate in verdict.gates if gate.state == "open")
    assert "4 times in 5" in gate.remedy


def test_a_single_broken_example_does_not_exclude_a_gain(world: MakeWorld) -> None:
    """One loss in one group gives a bootstrap interval that ends at zero: that is not yet evidence of harm."""
    made = world(group_size=5, tuned_skill=0.4)
    tuned = [{**row, "arm": "tuned"} for row in made.rows("base")]
    examples = made.rows("examples")
    index = next(
        i for i, (row, one) in enumerate(zip(tuned, examples, strict=True)) if row["text"] in one["references"]
    )
    tuned[index]["text"] = "nonsense"
    made.write("tuned", tuned)
    gate = next(gate for gate in made.decide().gates if gate.comparison is not None)
    assert gate.comparison is not None
    assert gate.comparison.gain < 0
    assert gate.state == "open"


def test_few_examples_settle_nothing(world: MakeWorld) -> None:
    assert world(n=8, tuned_skill=0.6).decide().outcome == "INCONCLUSIVE"


@pytest.mark.parametrize(("margin", "expected"), [(0.3, "passed"), (0.001, "open")])
def test_no_regression_needs_the_margin_to_be_excluded(world: MakeWorld, margin: float, expected: str) -> None:
    rule = Judge(
        must_improve=RULE.must_improve,
        must_not_regress=(MustNotRegress(metric="truncated", over="base", margin=margin),),
    )
    assert states(world(rule, tuned_skill=0.7).decide())[2] == expected


def test_lower_is_better_for_such_metrics(world: MakeWorld) -> None:
    rule = Judge(must_improve=(MustImprove(metric="over_edit", over="copy-input"),))
    gate = world(rule, tuned_skill=0.7).decide().gates[-1]
    assert gate.state in ("open", "failed")
    assert gate.comparison is None or gate.comparison.gain <= 0


def test_the_same_weights_are_never_shipped(world: MakeWorld) -> None:
    made = world(tuned_skill=0.9)
    same = made.judgement.model_copy(update={"candidate": made.run.manifest().base})
    made.record(same)
    made.judge_as(same)
    verdict = made.decide()
    assert verdict.outcome == "REJECT"
    assert [gate.remedy for gate in verdict.gates if gate.state == "failed"] == [
        "Tune the model: a base compared with itself has nothing to ship."
    ]


def test_a_rule_edited_after_freezing_is_not_the_rule(world: MakeWorld) -> None:
    made = world(tuned_skill=0.9)
    loose = made.run.manifest().experiment.model_copy(update={"judge": Judge(confidence=0.6)})
    made.run.update(experiment=loose)
    assert made.decide().outcome == "REJECT"


def test_other_prompts_for_one_arm_are_not_a_comparison(world: MakeWorld) -> None:
    made = world(tuned_skill=0.9)
    first, *others = made.rows("tuned")
    made.write("tuned", [{**first, "prompt_hash": "other"}, *others])
    verdict = made.decide()
    assert verdict.outcome == "REJECT"
    assert "1 of 300 examples were asked with different token ids." in [gate.reason for gate in verdict.gates]


def test_a_missing_arm_is_named_and_nothing_is_shipped(world: MakeWorld) -> None:
    made = world(tuned_skill=0.9)
    (made.run.samples / "base.jsonl").unlink()
    verdict = made.decide()
    assert verdict.outcome == "INCONCLUSIVE"
    assert "base did not answer" in " ".join(gate.reason for gate in verdict.gates)


def test_rows_of_another_judgement_are_not_evidence(world: MakeWorld) -> None:
    made = world(tuned_skill=0.9)
    made.judge_as(made.judgement.model_copy(update={"device": "cuda"}))
    assert made.decide().outcome == "REJECT"


def test_examples_that_were_edited_are_not_evidence(world: MakeWorld) -> None:
    made = world(tuned_skill=0.9)
    first, *others = made.rows("examples")
    made.write("examples", [{**first, "references": ["anything"]}, *others])
    assert made.decide().outcome == "REJECT"


def test_without_a_record_nothing_is_shipped(world: MakeWorld) -> None:
    made = world(tuned_skill=0.9)
    made.record(None)
    assert made.decide().outcome == "INCONCLUSIVE"
