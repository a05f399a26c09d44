"""From examples to rows of tokens, and from rows to padded batches."""

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import Dataset

from whetstone.data.example import Example
from whetstone.data.template import Template
from whetstone.data_section import Data
from whetstone.errors import UserError
from whetstone.tune_section import Tune

__all__ = [
    "IGNORE",
    "ORIGINS",
    "MadeRows",
    "Origin",
    "Row",
    "RowDataset",
    "RowLengths",
    "collate",
    "cut_padding",
    "make_rows",
    "measure_lengths",
]

IGNORE = -100
"""The label of a token that is not learned."""

Origin = Literal["task", "replay"]

ORIGINS: tuple[Origin, ...] = ("task", "replay")
"""Where a row can come from; a batch names an origin by its place in this list."""

_CHUNK_EXAMPLES = 1000

_WORTH_CUTTING = 0.75


@dataclass(frozen=True, slots=True)
class Row:
    """One training sequence: a prompt and one answer.

    Attributes:
        example: The id of the example that it comes from.
        input_ids: Prompt and answer, the end-of-turn token last unless the row is truncated. :func:`make_rows` packs
            them into four bytes each: of 200,000 rows a tuple of integers would take gigabytes.
        prompt_tokens: How many of them are the prompt.
        origin: Whether it belongs to the task or is replayed.
        truncated: Whether the end of the answer, and so the end-of-turn token, is missing.
    """

    example: str
    input_ids: Sequence[int]
    prompt_tokens: int
    origin: Origin = "task"
    truncated: bool = False

    @property
    def labels(self) -> tuple[int, ...]:
        """The answer's ids where they stand in ``input_ids``, ``IGNORE`` over the prompt."""
        return (*[IGNORE] * self.prompt_tokens, *self.input_ids[self.prompt_tokens :])

    @property
    def loss_tokens(self) -> int:
        """How many tokens are learned; the first of all has nothing before it."""
        return len(self.input_ids) - max(1, self.prompt_tokens)


@dataclass(frozen=True, slots=True)
class MadeRows:
    """What became of examples.

    Attributes:
        rows: What can be learned, in the order of the examples.
        dropped: Rows that are left out because they are too long.
        truncated: Rows among ``rows`` that lost the end of their answer.
    """

    rows: list[Row]
    dropped: int
    truncated: int


@dataclass(frozen=True, slots=True)
class RowLengths:
    """How long the rows of some examples are before the length policy; three arrays with one entry for each row.

    Attributes:
        example: The place of the row's example in the sequence that was measured.
        prompt_tokens: Tokens of its prompt.
        answer_tokens: Tokens of its answer, the end-of-turn token included.
    """

    example: npt.NDArray[np.int32]
    prompt_tokens: npt.NDArray[np.int32]
    answer_tokens: npt.NDArray[np.int32]


def make_rows(
    examples: Sequence[Example],
    template: Template,
    data: Data,
    tune: Tune,
    context_tokens: int,
    origin: Origin = "task",
) -> MadeRows:
    """Renders examples for training, a row for each reference that is learned.

    A row that is truncated keeps its prompt and as much of its answer as fits. It does not end with the end-of-turn
    token, since the answer does not end there; where nothing of the answer fits, the row is dropped.

    Raises:
        UserError: A row is longer than allowed and the policy is ``raise``.
    """
    limit = min(data.max_tokens, context_tokens)
    rows: list[Row] = []
    dropped = truncated = 0
    for index, prompt, answer in _encoded(examples, template, tune):
        example = examples[index].id
        tokens = len(prompt) + len(answer)
        if tokens <= limit:
            rows.append(Row(example, array("i", [*prompt, *answer]), len(prompt), origin))
        elif data.too_long == "truncate" and len(prompt) < limit:
            rows.append(Row(example, array("i", [*prompt, *answer][:limit]), len(prompt), origin, truncated=True))
            truncated += 1
        elif data.too_long == "raise":
            raise UserError(
                f"example '{example}': {tokens} tokens, but at most {limit} are allowed; "
                "raise data.max_tokens, set data.too_long to drop or truncate, or shorten it"
            )
        else:
            dropped += 1
    return MadeRows(rows, dropped, truncated)


def measure_lengths(examples: Sequence[Example], template: Template, tune: Tune) -> RowLengths:
    """Counts the tokens of every row that :func:`make_rows` would make if no row were too long; keeps no row."""
    counts = array("i")
    for index, prompt, answer in _encoded(examples, template, tune):
        counts.extend((index, len(prompt), len(answer)))
    table = np.array(counts, dtype=np.int32).reshape(-1, 3)
    return RowLengths(*(np.ascontiguousarray(column) for column in table.T))


def _encoded(examples: Sequence[Example], template: Template, tune: Tune) -> Iterator[tuple[int, list[int], list[int]]]:
    """Place of the example, prompt ids and answer ids of each row; tokenizers are fastest on many texts at once."""
    for start in range(0, len(examples), _CHUNK_EXAMPLES):
        chunk = examples[start : start + _CHUNK_EXAMPLES]
        learned = [example.references if tune.references == "all" else example.references[:1] for example in chunk]
        prompts = template.prompt_ids_many([example.messages for example in chunk])
        answers = iter(template.answer_ids_many([reference for references in learned for reference in references]))
        for index, (prompt, references) in enumerate(zip(prompts, learned, strict=True), start):
            for _ in references:
                yield index, prompt, next(answers)


class RowDataset(Dataset[Row]):
    """A list of rows in the shape that the Trainer takes."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Row:
        return self._rows[index]


def collate(rows: Sequence[Row], pad_id: int) -> dict[str, torch.Tensor]:
    """Pads rows on the right.

    Returns:
        ``input_ids``, ``attention_mask`` and ``labels``, each ``(batch, tokens)``, and ``origins``, ``(batch,)``: the
        place of each row's origin in ``ORIGINS``.
    """
    shape = (len(rows), max(len(row.input_ids) for row in rows))
    input_ids = np.full(shape, pad_id, dtype=np.int64)
    labels = np.full(shape, IGNORE, dtype=np.int64)
    attention_mask = np.zeros(shape, dtype=np.int64)
    for i, row in enumerate(rows):
        length = len(row.input_ids)
        input_ids[i, :length] = row.input_ids
        labels[i, row.prompt_tokens : length] = input_ids[i, row.prompt_tokens : length]
        attention_mask[i, :length] = 1
    return {
        "input_ids": torch.from_numpy(input_ids),
        "attention_mask": torch.from_numpy(attention_mask),
        "origins": torch.tensor([ORIGINS.index(row.origin) for row in rows]),
        "labels": torch.from_numpy(labels),
    }


def cut_padding(batch: dict[str, torch.Tensor], lengths: Sequence[int]) -> list[dict[str, torch.Tensor]]:
    """Cuts a batch into its short and its long rows where together they are less than three quarters of its size.

    Replayed rows can be many times as long as those of the task. They belong into the same optimiser step, but the
    short rows need not be computed as wide as the long ones. The loss is a sum over tokens, so it stays the same.

    Args:
        batch: What :func:`collate` gives.
        lengths: Tokens of each row.

    Returns:
        The batch as it is, or two smaller ones.
    """
    shortest_first = sorted(range(len(lengths)), key=lengths.__getitem__)
    widths = [lengths[row] for row in shortest_first]
    count, whole = len(widths), len(widths) * widths[-1]
    size, cut = min(((k * widths[k - 1] + (count - k) * widths[-1], k) for k in range(1, count)), default=(whole, 0))
    if size >= _WORTH_CUTTING * whole:
        return [batch]
    halves = (shortest_first[:cut], widths[cut - 1]), (shortest_first[cut:], widths[-1])
    names = "input_ids", "attention_mask", "labels"
    return [{name: batch[name][rows, :width] for name in names} for rows, width in halves]
