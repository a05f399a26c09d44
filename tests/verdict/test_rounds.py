"""Judging in rounds: what the answers so far decide, and when the asking stops."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from whetstone.data.example import Example, Message
from whetstone.data.split import Splits
from whetstone.errors import UserError
from whetstone.evaluate.sample import ARMS
from whetstone.evaluate.suite import held_out
from whetstone.judge_section import Judge, MustImprove, MustNotRegress
from whetstone.report.summary import summarise
from whetstone.run import Run
from whetstone.verdict.rounds import is_certain, refuse_unbounded

RULE = Judge(
    must_improve=(MustImprove(over="base"),),
    must_not_regress=(MustNotRegress(metric="empty", margin=0.2),),
    stop_early=True,
)


@pytest.fixture
def answered(make_run: Callable[..., Run], tmp_path: Path) -> Callable[..., Run]:
    """A run that was judged by the rule, and whose arms have answered only so much."""

    def build(rows: int, skill: float, rule: Judge = RULE) -> Run:
        run = make_run(tmp_path / f"run-{rows}-{skill}", tuned_skill=skill)
        manifest = run.manifest()
        assert manifest.judgement is not None
        frozen = manifest.judgement.model_copy(update={"rule_hash": rule.fingerprint()})
        run.update(experiment=manifest.experiment.model_copy(update={"judge": rule}), judgement=frozen)
        for arm in ARMS:
            path = run.samples / f"{arm}.jsonl"
            kept = path.read_text().splitlines()[: rows + 3 * (arm == "base")]
            marked = [{**json.loads(line), "judgement": frozen.fingerprint()} for line in kept]
            path.write_text("".join(json.dumps(row) + "\n" for row in marked))
        return run

    return build


def test_a_clear_gain_is_shipped_before_all_have_answered(answered: Callable[..., Run]) -> None:
    run = answered(160, 0.95)
    assert is_certain(run, RULE, "held-out")
    summary = summarise(run)
    assert summary.verdict.outcome == "SHIP"
    assert summary.held_out.evidence.count == 160
    gate = next(gate for gate in summary.verdict.gates if "better than base" in gate.name)
    assert "on n = 160 of 300" in gate.reason
    assert gate.p_adjusted is None


def test_few_answers_decide_nothing(answered: Callable[..., Run]) -> None:
    run = answered(16, 0.95)
    assert not is_certain(run, RULE, "held-out")
    assert summarise(run).verdict.outcome == "INCONCLUSIVE"


def test_a_clear_loss_is_rejected(answered: Callable[..., Run]) -> None:
    run = answered(280, 0.0)
    verdict = summarise(run).verdict
    assert verdict.outcome == "REJECT"
    failed = [gate for gate in verdict.gates if gate.state == "failed"]
    assert "better than base" in failed[0].name


def test_without_gates_everything_is_asked(answered: Callable[..., Run]) -> None:
    assert not is_certain(answered(160, 0.95), RULE, "format")


def test_scores_without_bounds_cannot_be_decided_in_rounds() -> None:
    judge = Judge(must_improve=(MustImprove(metric="nll"),), stop_early=True)
    with pytest.raises(UserError, match="'nll' has no bounds"):
        refuse_unbounded(judge)


def test_groups_come_whole_and_in_an_order_that_chance_gave() -> None:
    test = [Example(f"e{n}", (Message("user", "q"),), ("a",), "q", f"g{n // 3}") for n in range(30)]
    splits = Splits((), (), tuple(test))
    asked = held_out(splits, RULE).examples
    groups = [example.group for example in asked]
    assert sorted(asked, key=lambda one: int(one.id[1:])) == test
    assert [groups[n] for n in range(0, 30, 3)] == [groups[n + 2] for n in range(0, 30, 3)]
    assert groups != sorted(groups)
    assert held_out(splits, Judge()).examples == tuple(test)
