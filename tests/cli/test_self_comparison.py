"""A model judged against itself has nothing to ship, whatever the dice say."""

from pathlib import Path

import pytest

from whetstone.data_section import Data, GrammarSource
from whetstone.evaluate.judge import judge
from whetstone.experiment import Experiment
from whetstone.judge_section import Generation, Judge, MustImprove
from whetstone.model_section import Model
from whetstone.report.summary import summarise
from whetstone.run import Run
from whetstone.train.tune import base_folder


@pytest.mark.parametrize("seed", range(20))
def test_never_ship(tmp_path: Path, seed: int) -> None:
    experiment = Experiment(
        name="itself",
        model=Model(base="builtin:demo-base"),
        data=Data(source=GrammarSource(grammar="corrections", train=1, validation=1, test=36), prompt="Copy: {source}"),
        judge=Judge(
            generation=Generation(max_new_tokens=24, temperature=1.0, seed=seed, batch_size=36),
            must_improve=(MustImprove(metric="exact_match", over="base"),),
        ),
    )
    run = Run(tmp_path / "itself")
    run.begin(experiment)
    judge(run, experiment, base_folder(run, experiment), fresh=False, progress=lambda done, total: None)
    summary = summarise(run)
    assert summary.verdict.outcome != "SHIP"
    evidence = summary.held_out.evidence
    base, tuned = ([evidence.answers(arm, n)[0].token_ids for n in range(36)] for arm in ("base", "tuned"))
    assert base != tuned
