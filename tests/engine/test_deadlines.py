"""Late answers are found without looking at the others."""

import random
from typing import Any

import pytest

from whetstone.engine.answer import Answer
from whetstone.engine.api import Request
from whetstone.engine.deadlines import Deadlines


class Said(Answer):
    """An answer that needs no tokenizer."""

    def __init__(self, deadline_s: float | None) -> None:
        self.request = Request((1,), 5, deadline_s=deadline_s)
        self.completion: Any = None
        self.ends: list[str] = []

    def finish(self, reason: Any, error: str | None = None) -> None:
        self.ends.append(reason)
        self.completion = reason


def test_who_is_late_is_ended_once_and_nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(0)
    answers = [Said(rng.choice([None, float(rng.randrange(100))])) for _ in range(200)]
    deadlines = Deadlines()
    for answer in answers:
        deadlines.add(answer)
    answers[3].finish("stop")
    now = 0.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    for now in (0.0, 30.0, 30.5, 60.0):
        before = sum(len(answer.ends) for answer in answers)
        assert deadlines.end_late() == (sum(len(answer.ends) for answer in answers) > before)
        for answer in answers:
            at = answer.request.deadline_s
            late = at is not None and at < now
            assert answer.ends == (["stop"] if answer is answers[3] else ["deadline"] * late)
