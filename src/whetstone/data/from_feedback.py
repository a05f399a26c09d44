"""What people thought of answers becomes a training set.

A conversation whose answer somebody liked is an example with that answer as reference, one whose answer somebody
corrected an example with the correction. Only the rated answer is learned: earlier answers of the conversation, which
nobody rated, stand in the prompt. All examples that begin with the same user's turn are one group, so that neither a
prompt nor a conversation that goes on is on both sides of a split.
"""

import json
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any, Literal, NamedTuple

from whetstone.data.example import normalised
from whetstone.data.feedback_file import reading_feedback
from whetstone.section import stable_hash

__all__ = ["FeedbackSet", "Included", "examples_of_feedback", "pairs_of_feedback"]

Included = Literal["good", "correction"]

Turns = list[dict[str, str]]

_NO_PROMPT = "whose prompt was not kept (serve.store_prompts was off)"
_NO_CHAT = "that continue a text, and are in no conversation"
_DISPUTED = "rated good by one and bad by another"
_BAD = "rated bad, without a correction"
_NOT_INCLUDED = "with a rating that is not included"
_BLANK = "with a blank text"
_CUT_OFF = "rated good, and cut off before they ended"
_NO_PAIR = "without another answer to the same prompt that was rated the other way"


@dataclass(frozen=True, slots=True)
class FeedbackSet:
    """Rows of a training set.

    Attributes:
        rows: In the order of their ids, so that the same feedback gives the same file.
        rated: How many answers have a rating.
        left_out: How many of them are in no row, by reason.
    """

    rows: tuple[dict[str, Any], ...]
    rated: int
    left_out: dict[str, int]


class _Rated(NamedTuple):
    """One answer with what was thought of it: ``text`` is what was said, ``better`` what should have been."""

    turns: Turns
    text: str
    verdict: Literal["good", "bad", "correction"]
    better: str | None


def examples_of_feedback(
    path: Path, include: Iterable[Included] = ("good", "correction"), model: str | None = None
) -> FeedbackSet:
    """Examples to learn from, one for each prompt, in the format ``prompt-completion`` with turns.

    Where a prompt has several answers that count as right, corrections come before good answers, and each kind in the
    order of the texts; the first is the completion, all are references.

    Args:
        path: The file of feedback.
        include: Which ratings make examples.
        model: Only answers of this model; None for those of all.

    Raises:
        UserError: The file cannot be read.
    """
    wanted = frozenset(include)
    read = _Reader(path, model)
    rows = []
    for turns, answers in read.by_prompt():
        right: dict[str, str] = {}
        for category in ("correction", "good"):
            texts = {one.better or one.text for one in answers if one.verdict == category and category in wanted}
            right.update((text, category) for text in sorted(texts) if text not in right)
        for one in answers:
            if one.verdict not in wanted:
                read.left_out[_BAD if one.verdict == "bad" else _NOT_INCLUDED] += 1
        if right:
            completion, *_ = right
            rows.append(
                {
                    "id": f"feedback-{stable_hash(turns)}",
                    "prompt": turns,
                    "completion": [{"role": "assistant", "content": completion}],
                    "references": list(right),
                    **_about(turns, right[completion]),
                }
            )
    return read.result(rows)


def pairs_of_feedback(path: Path, model: str | None = None) -> FeedbackSet:
    """Pairs to learn a preference from: each answer that was bad or corrected, beside one that is right.

    The right one is its own correction; else a correction or a good answer to the same prompt.

    Args:
        path: The file of feedback.
        model: Only answers of this model; None for those of all.

    Raises:
        UserError: The file cannot be read.
    """
    read = _Reader(path, model)
    rows = []
    for turns, answers in read.by_prompt():
        liked = sorted(one.text for one in answers if one.verdict == "good")
        right = [*sorted(one.better for one in answers if one.better is not None), *liked]
        chosen: set[str] = set()
        for one in answers:
            better = one.better or next((text for text in right if text != one.text), None)
            if one.verdict != "good" and (better is None or one.text in right):
                read.left_out[_NO_PAIR] += 1
            elif one.verdict != "good" and better is not None:
                chosen.add(better)
                sides = {"chosen": _answer(better), "rejected": _answer(one.text)}
                name = f"feedback-{stable_hash([turns, better, one.text])}"
                rows.append({"id": name, "prompt": turns, **sides, **_about(turns, one.verdict)})
        read.left_out[_NO_PAIR] += len(set(liked) - chosen)
    return read.result(rows)


class _Reader:
    """Reads the rated answers of a file, and counts what cannot be used.

    Answers to one prompt that are equal to the letter are one: a greedy model says the same to everybody.
    """

    def __init__(self, path: Path, model: str | None) -> None:
        self.rated = 0
        self.left_out: Counter[str] = Counter()
        self._path = path
        self._model = model

    def by_prompt(self) -> Iterator[tuple[Turns, list[_Rated]]]:
        """The prompts, each with its rated answers."""
        with reading_feedback(self._path) as connection:
            for _, rows in groupby(_last_ratings(connection, self._model), key=itemgetter("prompt_sha256")):
                answers = []
                for _, ratings in groupby(rows, key=itemgetter("text_sha256")):
                    self.rated += 1
                    one = _rated(list(ratings))
                    if isinstance(one, str):
                        self.left_out[one] += 1
                    else:
                        answers.append(one)
                if answers:
                    yield answers[0].turns, answers

    def result(self, rows: Iterable[dict[str, Any]]) -> FeedbackSet:
        """What was made, once all was read."""
        return FeedbackSet(tuple(sorted(rows, key=itemgetter("id"))), self.rated, dict(+self.left_out))


def _last_ratings(connection: sqlite3.Connection, model: str | None) -> Iterator[sqlite3.Row]:
    """The last rating by each principal of each answer; answers to one prompt come together."""
    connection.row_factory = sqlite3.Row
    query = """
        WITH rated AS (
            SELECT feedback.id, feedback.principal, rating, correction, prompt, text, prompt_sha256, text_sha256,
                   finish_reason
            FROM feedback JOIN answers USING (answer_id, choice)
            WHERE :model IS NULL OR model = :model
        )
        SELECT * FROM rated
        WHERE id IN (SELECT max(id) FROM rated GROUP BY prompt_sha256, text_sha256, principal)
        ORDER BY prompt_sha256, text_sha256, id
    """
    return iter(connection.execute(query, {"model": model}))


def _rated(ratings: Sequence[sqlite3.Row]) -> _Rated | str:
    """An answer with what all its raters say together, or why it cannot be used.

    Who corrects an answer says more than who only finds it bad; the last correction holds.
    """
    kept = next((row for row in ratings if row["prompt"] is not None), None)
    if kept is None:
        return _NO_PROMPT
    turns = json.loads(kept["prompt"])
    if not isinstance(turns, list) or not any(turn["role"] == "user" for turn in turns):
        return _NO_CHAT
    said = {row["rating"] for row in ratings}
    if "good" in said and len(said) > 1:
        return _DISPUTED
    if "good" in said and all(row["finish_reason"] == "length" for row in ratings):
        return _CUT_OFF
    if "good" in said:
        return _Rated(turns, kept["text"], "good", None) if kept["text"].strip() else _BLANK
    corrections = [row["correction"] for row in ratings if row["correction"] is not None]
    better = corrections[-1] if corrections else None
    return _Rated(turns, kept["text"], "bad" if better is None else "correction", better)


def _answer(text: str) -> Turns:
    return [{"role": "assistant", "content": text}]


def _about(turns: Turns, category: str) -> dict[str, str]:
    opening = next(turn["content"] for turn in turns if turn["role"] == "user")
    return {"group": stable_hash(normalised(opening)), "category": category}
