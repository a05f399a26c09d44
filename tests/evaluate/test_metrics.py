"""Metrics on hand-made answers."""

import pytest

from whetstone.data.example import Example, Message
from whetstone.evaluate.metrics.catalogue import METRICS, metric
from whetstone.evaluate.sample import Sample
from whetstone.judge_section import MustImprove

WRONG = Example("w", (Message("user", "x"),), ("He goes home .", "He went home ."), "He go home .", "g")
RIGHT = Example("r", (Message("user", "x"),), ("He goes home .",), "He goes home .", "g")


def scores(example: Example, text: str, finish_reason: str = "stop") -> dict[str, float | None]:
    sample = Sample("x", "tuned", "j", "h", 3, text, (1, 2), "stop" if finish_reason == "stop" else "length")
    return {one.name: one.score(example, sample) for one in METRICS}


@pytest.mark.parametrize(
    ("example", "text", "expected"),
    [
        (WRONG, "He goes home .", {"exact_match": 1, "over_edit": None, "copy_rate": 0, "extra_text": 0}),
        (WRONG, "  He  went home .\n", {"exact_match": 1}),
        (WRONG, "he goes home .", {"exact_match": 0}),
        (WRONG, "He go home .", {"exact_match": 0, "copy_rate": 1, "too_short": 0}),
        (WRONG, "Sure : He went home .", {"exact_match": 0, "extra_text": 1}),
        (WRONG, "He", {"too_short": 1, "empty": 0, "length_words": 1}),
        (WRONG, "He goes", {"too_short": 0}),
        (WRONG, " \n", {"empty": 1, "too_short": 1, "length_words": 0, "exact_match": 0}),
        (RIGHT, "He goes home .", {"exact_match": 1, "over_edit": 0, "copy_rate": 1}),
        (RIGHT, "He went home .", {"exact_match": 0, "over_edit": 1, "copy_rate": 0}),
    ],
)
def test_scores(example: Example, text: str, expected: dict[str, float | None]) -> None:
    found = scores(example, text)
    assert {name: found[name] for name in expected} == expected


def test_truncated_is_the_finish_reason() -> None:
    assert scores(WRONG, "He goes", "length")["truncated"] == 1
    assert scores(WRONG, "He goes")["truncated"] == 0


def test_every_gate_metric_exists_and_has_a_better_direction() -> None:
    for name in MustImprove.model_fields["metric"].annotation.__args__:  # type: ignore[union-attr]
        assert metric(name).direction != "neutral"


def test_names_are_unique() -> None:
    assert len({one.name for one in METRICS}) == len(METRICS)
