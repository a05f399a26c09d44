"""Scores of all answers together: those of the metric's own function, and only where a metric asks for them."""

from collections.abc import Callable
from pathlib import Path

import pytest

from whetstone.evaluate.metrics.gleu import CORPUS_GLEU
from whetstone.report.machine import as_json
from whetstone.report.markdown import render_markdown
from whetstone.report.summary import summarise
from whetstone.run import Run


def test_they_stand_beside_the_metric_that_scores_one_by_one(make_run: Callable[..., Run], tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", n=24)
    assert summarise(run).held_out.corpus == {}
    manifest = run.manifest()
    judge = manifest.experiment.judge.model_copy(update={"metrics": ("gleu",)})
    run.update(experiment=manifest.experiment.model_copy(update={"judge": judge}))
    summary = summarise(run)
    evidence = summary.held_out.evidence
    answered = [(evidence.example(index), evidence.answers("tuned", index)[0]) for index in range(24)]
    expected = CORPUS_GLEU.score(answered)
    assert as_json(summary)["corpus"]["corpus_gleu"]["tuned"] == pytest.approx(expected)
    assert expected is not None
    assert f"{100 * expected:.1f}" in next(
        line for line in render_markdown(summary).splitlines() if line.startswith(f"| {CORPUS_GLEU.title}:")
    )
