"""What a sceptic would try first: does tuning change the model, is the engine the model, did training see questions?

Tried when the arms have answered (:mod:`whetstone.evaluate.trial`), and kept beside their answers.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from whetstone.files import read_json

__all__ = ["SANITY_FILE", "EngineCheck", "Sanity", "read_sanity"]

SANITY_FILE = "sanity.json"
"""Beside the answers to the held-out examples."""


@dataclass(frozen=True, slots=True)
class EngineCheck:
    """An arm's greedy answers, generated again by transformers.

    Attributes:
        arm: Whose.
        compared: How many answers.
        equal: How many of them are the same, token for token.
    """

    arm: str
    compared: int
    equal: int


@dataclass(frozen=True, slots=True)
class Sanity:
    """What was tried.

    Attributes:
        judgement: The judgement whose answers were looked at.
        prompts: How many prompts were computed by base and tuned.
        logit_change: The largest change of a logit at the end of one of these prompts.
        engine: The arms whose answers were generated again; none where answers are sampled.
        training_examples: How many training and replay examples were searched.
        leaked: The held-out examples that training saw: the same input, or the same question with the same answer.
    """

    judgement: str
    prompts: int
    logit_change: float
    engine: tuple[EngineCheck, ...]
    training_examples: int
    leaked: tuple[str, ...]


def read_sanity(folder: Path) -> Sanity | None:
    """What was tried; None where nothing was.

    Raises:
        UserError: The file is damaged.
    """
    path = folder / SANITY_FILE
    if not path.exists():
        return None
    values: dict[str, Any] = read_json(path)
    engine = tuple(EngineCheck(**check) for check in values["engine"])
    return Sanity(**{**values, "engine": engine, "leaked": tuple(values["leaked"])})
