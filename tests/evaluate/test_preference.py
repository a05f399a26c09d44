"""Graders are asked in both orders, and only what they say in both counts."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from whetstone.data.example import Example, Message
from whetstone.engine.api import Completion, Request, Timing, Usage
from whetstone.engine.open import Opened
from whetstone.engine.provenance import Provenance
from whetstone.evaluate.evidence import load_evidence
from whetstone.evaluate.metrics.preferred import PREFERRED_METRIC
from whetstone.evaluate.preference import ask_graders, read_choice
from whetstone.evaluate.preference_rows import Preference, preferred_scores, read_preferences
from whetstone.evaluate.sample import BASE, TUNED, Sample
from whetstone.judge_section import Grader, Judge, MustImprove

TEXTS = {BASE: ["long long answer", "x", "same", "{second}"], TUNED: ["short", "longer", "same", "{criteria} more"]}


class Longer:
    """Prefers the longer answer; says TIE where both are as long."""

    def __init__(self) -> None:
        self.prompts: list[str] = []

    def generate(self, requests: Sequence[Request]) -> list[Completion]:
        return [self._answer(request) for request in requests]

    def _answer(self, request: Request) -> Completion:
        prompt = request.messages[-1].content
        self.prompts.append(prompt)
        first = prompt.split("[Answer A]\n")[1].split("\n\n[Answer B]")[0]
        second = prompt.split("[Answer B]\n")[1].split("\n\nWhich")[0]
        said = "TIE" if len(first) == len(second) else "A." if len(first) > len(second) else "The answer is B"
        return Completion((1,), said, "stop", Timing(0.0, (0.1,), 0.1), Usage(1, 1))


class AlwaysFirst(Longer):
    """Likes whatever stands first."""

    def _answer(self, request: Request) -> Completion:
        return replace(super()._answer(request), text="A")


def opened(engine: Any) -> Opened:
    return Opened(engine, None, Provenance("g", "http", "a test"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    examples = [Example(f"e{n}", (Message("user", f"q{n}"),), (), f"q{n}", f"g{n}") for n in range(4)]
    (tmp_path / "examples.jsonl").write_text("".join(json.dumps(one.as_row()) + "\n" for one in examples))
    for arm, texts in TEXTS.items():
        rows = [Sample(f"e{n}", arm, "j", "p", 1, text, (1,), "stop").as_row() for n, text in enumerate(texts)]
        (tmp_path / f"{arm}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def test_what_is_liked_in_both_orders_is_preferred(folder: Path) -> None:
    ask_graders([(Grader(name="g", model="m"), opened(Longer()))], folder, "j")
    evidence = load_evidence(folder, (BASE, TUNED), [PREFERRED_METRIC])
    assert evidence.scores(TUNED, PREFERRED_METRIC).tolist() == [0, 1, 0.5, 1]
    assert evidence.scores(BASE, PREFERRED_METRIC).tolist() == [1, 0, 0.5, 0]


def test_liking_what_stands_first_prefers_nothing(folder: Path) -> None:
    ask_graders([(Grader(name="g", model="m"), opened(AlwaysFirst()))], folder, "j")
    evidence = load_evidence(folder, (BASE, TUNED), [PREFERRED_METRIC])
    assert evidence.scores(TUNED, PREFERRED_METRIC).tolist() == [0.5] * 4


def test_an_interrupted_grading_goes_on(folder: Path) -> None:
    engine = Longer()
    grader = Grader(name="g", model="m")
    ask_graders([(grader, opened(engine))], folder, "j")
    path = folder / "preferences.jsonl"
    whole = read_preferences(folder)
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:3]) + '{"exam')
    again = Longer()
    ask_graders([(grader, opened(again))], folder, "j")
    assert len(again.prompts) == 5
    assert sorted(map(repr, read_preferences(folder))) == sorted(map(repr, whole))
    assert not any("{criteria}" in prompt and "Which" not in prompt for prompt in engine.prompts)


def test_answers_that_look_like_placeholders_stay_what_they_are(folder: Path) -> None:
    engine = Longer()
    ask_graders([(Grader(name="g", model="m"), opened(engine))], folder, "j")
    assert sum("[Answer A]\n{second}\n" in prompt for prompt in engine.prompts) == 1


@pytest.mark.parametrize(
    ("text", "choice"),
    [
        ("A", "first"),
        ("B.", "second"),
        ("TIE", "tie"),
        ("Answer: B", "second"),
        ("I like Apples", "unclear"),
        ("", "unclear"),
    ],
)
def test_choices_are_read(text: str, choice: str) -> None:
    assert read_choice(text) == choice


def test_an_example_that_was_not_asked_in_both_orders_has_no_score() -> None:
    rows = [Preference("e0", "g", BASE, TUNED, "j", "second", "B")]
    assert np.isnan(preferred_scores(rows, ["e0", "e1"], TUNED)).all()
    rows.append(Preference("e0", "g", TUNED, BASE, "j", "first", "A"))
    assert preferred_scores(rows, ["e0"], TUNED).tolist() == [1.0]


def test_a_gate_on_preference_needs_a_grader() -> None:
    with pytest.raises(ValueError, match="give a model that compares answers"):
        Judge(must_improve=(MustImprove(metric="preferred"),))
