"""How long the rows are, and what the length policy does to them."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from whetstone.data.example import Example
from whetstone.data.finding import EXAMPLES_SHOWN, Finding
from whetstone.data.split import Splits
from whetstone.data.statistics import Bin, Spread, histogram, spread
from whetstone.data_section import Data
from whetstone.judge_section import Judge
from whetstone.train.batch import RowLengths

__all__ = ["PartLengths", "answer_findings", "length_findings", "summarise_lengths"]

_BINS = 12

_LEARNED = ("train", "replay")
"""The parts without which training cannot do what was asked."""


@dataclass(frozen=True, slots=True)
class PartLengths:
    """The rows of one part, before the length policy.

    Attributes:
        part: train, validation, test or replay.
        rows: One for each reference that is learned.
        too_long: Rows longer than ``limit_tokens``.
        tokens: All tokens of all rows.
        loss_tokens: Those that are learned.
        row_tokens: How many tokens a row has; None where there is no row.
        histogram: Of the tokens of a row.
    """

    part: str
    examples: int
    groups: int
    rows: int
    too_long: int
    limit_tokens: int
    tokens: int
    loss_tokens: int
    row_tokens: Spread | None
    histogram: tuple[Bin, ...]

    def as_row(self) -> dict[str, Any]:
        """The JSON object that ``--json`` prints."""
        return asdict(self)


def summarise_lengths(part: str, examples: Sequence[Example], lengths: RowLengths, limit_tokens: int) -> PartLengths:
    """Counts the rows of a part and how long they are."""
    tokens = lengths.prompt_tokens + lengths.answer_tokens
    values = tokens.tolist()
    return PartLengths(
        part=part,
        examples=len(examples),
        groups=len({example.group for example in examples}),
        rows=len(values),
        too_long=int((tokens > limit_tokens).sum()),
        limit_tokens=limit_tokens,
        tokens=int(tokens.sum()),
        loss_tokens=int(lengths.answer_tokens.sum()),
        row_tokens=spread(values) if values else None,
        histogram=histogram(values, _BINS) if values else (),
    )


def length_findings(
    parts: Mapping[str, Sequence[Example]], lengths: Mapping[str, RowLengths], data: Data, limit_tokens: int
) -> list[Finding]:
    """Rows that the length policy concerns, in the parts that are trained or watched."""
    shown: list[str] = []
    over = cut = total = 0
    emptied: list[str] = []
    for part, measured in lengths.items():
        tokens = measured.prompt_tokens + measured.answer_tokens
        long = np.flatnonzero(tokens > limit_tokens)
        kept = long[measured.prompt_tokens[long] < limit_tokens] if data.too_long == "truncate" else long[:0]
        over, cut, total = over + len(long), cut + len(kept), total + len(tokens)
        if part in _LEARNED and len(long) - len(kept) == len(tokens):
            emptied.append(part)
        for row in long[: EXAMPLES_SHOWN - len(shown)]:
            shown.append(f"{parts[part][measured.example[row]].id} ({part}): {tokens[row]:,} tokens")
    if not over:
        return []
    fate = {
        "raise": "training stops at them",
        "drop": "they are left out",
        "truncate": f"{cut:,} lose the end of their answer and teach no end, {over - cut:,} are left out, since "
        "their prompt leaves no room",
    }[data.too_long]
    nothing = f" Nothing is left of {' and '.join(emptied)}." if emptied else ""
    return [
        Finding(
            "too-long",
            "error" if data.too_long == "raise" or emptied else "warning",
            over,
            total,
            f"{over:,} of {total:,} rows are longer than {limit_tokens:,} tokens; {fate}.{nothing}",
            "Raise data.max_tokens, shorten them, or set data.too_long to drop or truncate.",
            tuple(shown),
        )
    ]


def answer_findings(splits: Splits, lengths: RowLengths, judge: Judge, context_tokens: int) -> list[Finding]:
    """Test examples that no answer can match, or whose prompt leaves no room for one.

    Args:
        splits: The parts.
        lengths: Of the test part, a row for every reference.
        judge: Says how many tokens an answer may have.
        context_tokens: The longest sequence that the model takes.
    """
    judged = splits.test[: judge.max_examples]
    asked = np.array([bool(example.messages) for example in judged], dtype=bool)
    allowed = judge.generation.max_new_tokens
    shortest = np.full(len(splits.test), np.iinfo(np.int64).max)
    np.minimum.at(shortest, lengths.example, lengths.answer_tokens)
    prompts = np.zeros(len(splits.test), dtype=np.int64)
    prompts[lengths.example] = lengths.prompt_tokens
    cut = np.flatnonzero((shortest[: len(judged)] > allowed) & asked)
    full = np.flatnonzero(prompts[: len(judged)] + allowed > context_tokens)
    findings = []
    if len(full):
        findings.append(
            Finding(
                "context",
                "error",
                len(full),
                len(judged),
                f"{len(full):,} test prompts and judge.generation.max_new_tokens ({allowed}) exceed the model's "
                f"context of {context_tokens:,} tokens.",
                "Lower judge.generation.max_new_tokens, or shorten the prompts.",
                tuple(f"{judged[i].id}: a prompt of {prompts[i]:,} tokens" for i in full[:EXAMPLES_SHOWN]),
            )
        )
    if len(cut):
        findings.append(
            Finding(
                "answer-limit",
                "warning",
                len(cut),
                len(judged),
                f"{len(cut):,} of {len(judged):,} test examples have no reference that fits into "
                f"judge.generation.max_new_tokens ({allowed}), so no answer can match.",
                f"Raise judge.generation.max_new_tokens to {int(shortest[cut].max())}.",
                tuple(f"{judged[i].id}: {shortest[i]:,} tokens" for i in cut[:EXAMPLES_SHOWN]),
            )
        )
    return findings
