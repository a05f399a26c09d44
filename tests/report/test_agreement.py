"""What graders chose, and how far they agree, is in the report when their rows are."""

import json
from collections.abc import Callable
from pathlib import Path

from whetstone.report.machine import as_json
from whetstone.report.markdown import render_markdown
from whetstone.report.summary import summarise
from whetstone.run import Run


def test_a_grader_who_likes_what_stands_first_agrees_with_nobody(make_run: Callable[..., Run], tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", n=20)
    assert as_json(summarise(run))["graders_agreement"] is None
    orders = (("base", "tuned"), ("tuned", "base"))
    rows = [
        {
            "example": f"test-{n:04d}",
            "grader": "g",
            "first": a,
            "second": b,
            "judgement": "j",
            "choice": "first",
            "text": "A",
        }
        for n in range(20)
        for a, b in orders
    ]
    (run.samples / "preferences.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    summary = summarise(run)
    found = as_json(summary)["graders_agreement"]
    assert found < 0
    assert "Krippendorff's alpha" in render_markdown(summary)
