"""Lengths by part, and what the length policy and the judge's limits do to them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from whetstone.data.example import Example, Message
from whetstone.data.split import Splits
from whetstone.data_section import Data
from whetstone.judge_section import Generation, Judge
from whetstone.train.batch import RowLengths
from whetstone.train.lengths import answer_findings, length_findings, summarise_lengths


def examples(count: int) -> tuple[Example, ...]:
    return tuple(Example(f"e{n}", (Message("user", "x"),), ("y",), "x", f"g{n // 2}") for n in range(count))


def lengths(*rows: tuple[int, int, int]) -> RowLengths:
    columns = np.array(rows, dtype=np.int32).reshape(-1, 3).T
    return RowLengths(columns[0], columns[1], columns[2])


def test_a_part_is_summarised() -> None:
    part = summarise_lengths("train", examples(3), lengths((0, 5, 5), (1, 6, 10), (2, 20, 30), (2, 20, 4)), 24)
    assert (part.examples, part.groups, part.rows, part.too_long) == (3, 2, 4, 1)
    assert part.row_tokens is not None
    assert (part.tokens, part.loss_tokens, part.row_tokens.minimum, part.row_tokens.maximum) == (100, 49, 10, 50)
    assert part.as_row()["row_tokens"]["maximum"] == 50


@given(st.lists(st.integers(1, 5000), min_size=1, max_size=200))
def test_every_row_is_in_one_bin(tokens: list[int]) -> None:
    measured = lengths(*((0, 0, count) for count in tokens))
    bins = summarise_lengths("train", examples(1), measured, 24).histogram
    assert sum(one.count for one in bins) == len(tokens)
    assert len(bins) <= 13
    assert bins[0].start == min(tokens)
    assert bins[-1].end >= max(tokens)


@pytest.mark.parametrize(
    ("policy", "severity", "words"),
    [("raise", "error", "training stops"), ("drop", "warning", "left out"), ("truncate", "warning", "lose the end")],
)
def test_the_policy_decides_what_a_long_row_does(policy: str, severity: str, words: str) -> None:
    data = Data.model_validate({"source": "x", "too_long": policy})
    (finding,) = length_findings({"train": examples(3)}, {"train": lengths((0, 5, 5), (2, 9, 9), (1, 5, 6))}, data, 10)
    assert (finding.code, finding.severity, finding.count, finding.total) == ("too-long", severity, 2, 3)
    assert words in finding.message
    assert finding.examples == ("e2 (train): 18 tokens", "e1 (train): 11 tokens")


def test_nothing_is_said_of_rows_that_fit() -> None:
    assert length_findings({"train": examples(1)}, {"train": lengths((0, 5, 5))}, Data(source="x"), 10) == []


def test_answers_that_cannot_be_given_are_found() -> None:
    splits = Splits((), (), examples(3))
    judge = Judge(generation=Generation(max_new_tokens=8))
    # The second example has one reference that fits; the third has none, and its prompt leaves no room either.
    tested = lengths((0, 4, 8), (1, 4, 30), (1, 4, 7), (2, 40, 9), (2, 40, 12))
    full, cut = answer_findings(splits, tested, judge, context_tokens=45)
    assert (full.code, full.severity, full.count, full.examples) == (
        "context",
        "error",
        1,
        ("e2: a prompt of 40 tokens",),
    )
    assert (cut.code, cut.severity, cut.count, cut.total) == ("answer-limit", "warning", 1, 3)
    assert cut.mend == "Raise judge.generation.max_new_tokens to 9."
    assert answer_findings(splits, tested, judge.model_copy(update={"max_examples": 2}), 45) == []
