"""What graders said of pairs of answers: rows on disk, and what they come to.

An answer is preferred if a grader chose it in both orders; everything else is a tie (Zheng et al. 2023, Judging
LLM-as-a-judge with MT-Bench and Chatbot Arena, arXiv:2306.05685).
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from whetstone.errors import UserError
from whetstone.files import read_jsonl

__all__ = ["PREFERENCES", "Choice", "Preference", "chosen", "preferred_scores", "read_preferences"]

PREFERENCES = "preferences.jsonl"
"""Beside the answers of a suite."""

Choice = Literal["first", "second", "tie", "unclear"]
"""What the grader said; ``unclear`` where it said something else."""


@dataclass(frozen=True, slots=True)
class Preference:
    """One question to a grader.

    Attributes:
        example: Whose answers.
        grader: Who was asked.
        first: The arm whose answer stood first.
        second: The other one.
        judgement: Fingerprint of the frozen judgement.
        choice: What was said.
        text: In the grader's own words.
    """

    example: str
    grader: str
    first: str
    second: str
    judgement: str
    choice: Choice
    text: str

    def as_row(self) -> dict[str, Any]:
        """The JSON row."""
        return asdict(self)


def read_preferences(folder: Path) -> list[Preference]:
    """The rows of a suite; none where no grader was asked.

    Raises:
        UserError: A row is damaged.
    """
    path = folder / PREFERENCES
    if not path.exists():
        return []
    found = []
    for number, row in enumerate(read_jsonl(path), 1):
        try:
            found.append(Preference(**row))
        except TypeError as error:
            raise UserError(f"{path}:{number}: not a preference ({error}); delete the file to make it again") from None
    return found


def chosen(preference: Preference) -> str | None:
    """The arm that was chosen; None for neither."""
    return {"first": preference.first, "second": preference.second}.get(preference.choice)


def preferred_scores(preferences: Sequence[Preference], examples: Sequence[str], arm: str) -> npt.NDArray[np.float64]:
    """How far graders prefer an arm's answers, by example: 1 both orders, 0 the other arm in both, else a half.

    Args:
        preferences: All rows.
        examples: The ids, in the order of the result.
        arm: One of the two arms.

    Returns:
        The mean over graders, ``(examples,)``; not a number where a grader was not asked in both orders.
    """
    asked: dict[str, dict[str, list[float]]] = {}
    for one in preferences:
        choice = chosen(one)
        score = 0.5 if choice is None else float(choice == arm)
        asked.setdefault(one.example, {}).setdefault(one.grader, []).append(score)
    graders = len({one.grader for one in preferences})
    scores = np.full(len(examples), np.nan)
    for place, example in enumerate(examples):
        by_grader = asked.get(example, {})
        if len(by_grader) == graders and all(len(both) == 2 for both in by_grader.values()) and graders:
            scores[place] = np.mean([both[0] if both[0] == both[1] else 0.5 for both in by_grader.values()])
    return scores
