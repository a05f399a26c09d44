"""From examples to rows of tokens, and from rows to padded batches."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch.utils.data import Dataset, Sampler

from whetstone.data.example import Example
from whetstone.data.template import Template
from whetstone.data_section import Data
from whetstone.errors import UserError
from whetstone.experiment import Tune

__all__ = ["IGNORE", "LengthGroupedSampler", "Row", "RowDataset", "collate", "make_rows"]

IGNORE = -100
"""The label of a token that is not learned."""

_POOL_BATCHES = 50


@dataclass(frozen=True, slots=True)
class Row:
    """One training sequence: a prompt and one answer.

    Attributes:
        example: The id of the example that it comes from.
        input_ids: Prompt and answer, the end-of-turn token last.
        labels: The answer's ids where they stand in ``input_ids``, ``IGNORE`` over the prompt.
    """

    example: str
    input_ids: tuple[int, ...]
    labels: tuple[int, ...]

    @property
    def loss_tokens(self) -> int:
        """How many tokens are learned."""
        return sum(label != IGNORE for label in self.labels)


def make_rows(
    examples: Sequence[Example], template: Template, data: Data, tune: Tune, context_tokens: int
) -> tuple[list[Row], int]:
    """Renders examples for training, a row for each reference that is learned.

    Returns:
        The rows, and how many were dropped because they are too long.

    Raises:
        UserError: A row is longer than allowed and the policy is ``raise``, or no row is left.
    """
    limit = min(data.max_tokens, context_tokens)
    rows, dropped = [], 0
    for example in examples:
        prompt = template.prompt_ids(example.messages)
        references = example.references if tune.references == "all" else example.references[:1]
        for reference in references:
            answer = template.answer_ids(reference)
            if len(prompt) + len(answer) <= limit:
                rows.append(Row(example.id, (*prompt, *answer), (*[IGNORE] * len(prompt), *answer)))
            elif data.too_long == "drop":
                dropped += 1
            else:
                raise UserError(
                    f"example '{example.id}': {len(prompt) + len(answer)} tokens, but at most {limit} are allowed; "
                    "raise data.max_tokens, set data.too_long to drop, or shorten it"
                )
    if not rows:
        raise UserError(f"data.max_tokens: every row is longer than {limit} tokens; nothing is left to train on")
    return rows, dropped


class RowDataset(Dataset[Row]):
    """A list of rows in the shape that the Trainer takes."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Row:
        return self._rows[index]


class LengthGroupedSampler(Sampler[int]):
    """A random order in which the rows of a batch are about equally long, so that little padding is computed.

    Rows are shuffled, cut into pools of 50 batches, sorted by length within a pool, and the batches of a pool are
    shuffled again: unlike transformers' sampler of this name, long and short batches come in no order. Every epoch
    draws another order from the same random stream.
    """

    def __init__(self, rows: Sequence[Row], batch_size: int, seed: int) -> None:
        self._lengths = [len(row.input_ids) for row in rows]
        self._batch_size = batch_size
        self._generator = torch.Generator().manual_seed(seed)

    def __len__(self) -> int:
        return len(self._lengths)

    def __iter__(self) -> Iterator[int]:
        order = self._permutation(len(self._lengths))
        size = self._batch_size
        for start in range(0, len(order), size * _POOL_BATCHES):
            pool = sorted(order[start : start + size * _POOL_BATCHES], key=self._lengths.__getitem__)
            batches = [pool[i : i + size] for i in range(0, len(pool), size)]
            for batch in self._permutation(len(batches)):
                yield from batches[batch]

    def _permutation(self, count: int) -> list[int]:
        order: list[int] = torch.randperm(count, generator=self._generator).tolist()
        return order


def collate(rows: Sequence[Row], pad_id: int) -> dict[str, torch.Tensor]:
    """Pads rows on the right.

    Returns:
        ``input_ids``, ``attention_mask`` and ``labels``, each ``(batch, tokens)``.
    """
    width = max(len(row.input_ids) for row in rows)
    shape = (len(rows), width)
    input_ids = torch.full(shape, pad_id, dtype=torch.long)
    labels = torch.full(shape, IGNORE, dtype=torch.long)
    attention_mask = torch.zeros(shape, dtype=torch.long)
    for i, row in enumerate(rows):
        length = len(row.input_ids)
        input_ids[i, :length] = torch.tensor(row.input_ids)
        labels[i, :length] = torch.tensor(row.labels)
        attention_mask[i, :length] = 1
    return {"input_ids": input_ids, "attention_mask": attention_mask, "labels": labels}
