"""The order in which rows are learned: shuffled passes over the task, replay mixed in, similar lengths together.

Experience replay (Rolnick et al. 2019, arXiv:1811.11682; for tuning language models Scialom et al. 2022,
arXiv:2205.12393) learns general examples between those of the task, so that the model keeps what it could do.

Notable: the order is endless and a pure function of rows, share and seed. Any process computes what is learned at
optimiser step k without having learned, or listed, the steps before it: a run that was killed goes on with exactly the
rows that it would have learned.
"""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, count, islice
from math import ceil

import numpy as np
import numpy.typing as npt
from torch.utils.data import Sampler

from whetstone.train.batch import Row

__all__ = ["RowOrder", "RowSampler"]

Indices = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

_POOL_STEPS = 50
_TASK, _REPLAY, _POOLS = 0, 1, 2


def _midpoints(amounts: npt.NDArray[np.int64] | Floats) -> Floats:
    """The middle of each amount when they are laid end to end."""
    return np.asarray(np.cumsum(amounts) - amounts / 2, dtype=np.float64)


@dataclass(frozen=True, slots=True, eq=False)
class _Stream:
    """Endless passes over some rows, each pass in another order.

    A row is due when the middle of its tokens is, on a clock that counts the loss tokens of all streams together.
    Taking rows of several streams as they fall due keeps the share of each within a row of what it should be: the rule
    of fair queueing (Demers, Keshav and Shenker 1989), which divides a line between packets of unequal length.

    Attributes:
        rows: The rows, by index.
        example: The number of each row's example; the rows of one follow one another in ``rows``, and in every pass.
        loss_tokens: Of each of them.
        share: Of all loss tokens.
        seed: Of the orders.
    """

    rows: Indices
    example: Indices
    loss_tokens: Indices
    share: float
    seed: tuple[int, int]

    @property
    def pass_tokens(self) -> float:
        """The loss tokens of all streams while this one makes a pass."""
        return float(self.loss_tokens.sum()) / self.share

    def one_pass(self, number: int) -> tuple[Indices, Floats]:
        """The rows of a pass in their order, and when each is due."""
        turns = np.random.default_rng((*self.seed, number)).permutation(int(self.example[-1]) + 1)
        # The inverse permutation, so that where every example has one row the order is the permutation itself.
        rank = np.empty_like(turns)
        rank[turns] = np.arange(len(turns))
        order = np.argsort(rank[self.example], kind="stable")
        return self.rows[order], number * self.pass_tokens + _midpoints(self.loss_tokens[order]) / self.share

    def between(self, start: float, end: float) -> tuple[Indices, Floats]:
        """The rows that are due from ``start`` to before ``end``, and when."""
        passes = range(int(start // self.pass_tokens), int(end // self.pass_tokens) + 1)
        rows, due = (np.concatenate(parts) for parts in zip(*map(self.one_pass, passes), strict=True))
        inside = (start <= due) & (due < end)
        return rows[inside], due[inside]

    def count_before(self, end: float) -> int:
        """How many rows are due before ``end``."""
        whole = int(end // self.pass_tokens)
        return whole * len(self.rows) + int((self.one_pass(whole)[1] < end).sum())


def _numbered(rows: Sequence[Row]) -> Indices:
    """The number of each row's example, counted in the order of the rows."""
    names = [(row.example, row.origin) for row in rows]
    begins = [place == 0 or name != names[place - 1] for place, name in enumerate(names)]
    return np.cumsum(np.array(begins, dtype=np.int64)) - 1


def _stream(rows: Indices, examples: Indices, tokens: Indices, share: float, seed: tuple[int, int]) -> _Stream:
    """The stream of the rows of one origin."""
    return _Stream(rows, np.unique(examples[rows], return_inverse=True)[1], tokens[rows], share, seed)


class RowOrder:
    """Which rows every optimiser step learns, for ever.

    An epoch is one pass over the task rows, each exactly once. Replayed rows are drawn from passes of their own, which
    run on from epoch to epoch, so none is seen twice before all are seen once; they are put between the task rows such
    that their share of the loss tokens is right all along, to within a row. The rows of one example follow one another:
    they have their prompt in common, and what rows of a step have in common is computed once.

    Then rows of similar length are brought together, so that little padding is computed: an epoch is cut into pools of
    50 steps, and within a pool the rows of one origin change places until those of a step are about equally long. Every
    step keeps its numbers of task and of replayed rows: the loss is a mean over the tokens of a step, so replayed rows
    in steps of their own would weigh as their steps, not as their tokens. Every step has as many rows as every other;
    the step that an epoch ends in is filled from the next epoch. The order of the steps of a pool is random, but that
    those with more than their share of replay alternate with those with less.

    Attributes:
        rows: What is learned, of both origins.
        step_rows: Rows of an optimiser step.
        seed: Of all shuffles.
        fraction: The share of all loss tokens that comes from replayed rows.
    """

    def __init__(self, rows: Sequence[Row], step_rows: int, seed: int, replay_fraction: float = 0.0) -> None:
        """Prepares the order.

        Args:
            rows: What is learned, of both origins.
            step_rows: Rows of an optimiser step: batch size times accumulation.
            seed: Of all shuffles.
            replay_fraction: The share of all loss tokens that comes from replayed rows; 0 when there are none.
        """
        self.rows = rows
        self.step_rows = step_rows
        self.seed = seed
        self.fraction = replay_fraction
        self._lengths = np.array([len(row.input_ids) for row in rows], dtype=np.int64)
        tokens = np.array([row.loss_tokens for row in rows], dtype=np.int64)
        self._replayed = np.array([row.origin == "replay" for row in rows], dtype=bool)
        self._surplus = tokens * (self._replayed - replay_fraction)
        task, replay = np.flatnonzero(~self._replayed), np.flatnonzero(self._replayed)
        examples = _numbered(rows)
        self._longest = np.maximum.reduceat(self._lengths, np.flatnonzero(np.diff(examples, prepend=-1)))[examples]
        self._task = _stream(task, examples, tokens, 1 - replay_fraction, (seed, _TASK))
        self._replay = _stream(replay, examples, tokens, replay_fraction, (seed, _REPLAY)) if len(replay) else None

    def steps(self, epochs: float) -> int:
        """Optimiser steps in which every task row is learned ``epochs`` times; replayed rows come on top."""
        whole = int(epochs)
        start, end = self._rows_before(whole), self._rows_before(whole + 1)
        rows = round(start + (epochs - whole) * (end - start))
        return max(1, ceil(rows / self.step_rows))

    def epochs(self, steps: int) -> float:
        """Passes over the task rows that so many optimiser steps make."""
        rows = steps * self.step_rows
        epoch = self._epoch_of(rows)
        start, end = self._rows_before(epoch), self._rows_before(epoch + 1)
        return epoch + (rows - start) / (end - start)

    def batches(self, start_step: int = 0) -> Iterator[list[int]]:
        """The rows of each optimiser step from ``start_step`` on, as indices into ``rows``, for ever."""
        start_row = start_step * self.step_rows
        epoch = self._epoch_of(start_row)
        rows = chain.from_iterable(self.epoch(number).tolist() for number in count(epoch))
        ahead = islice(rows, start_row - self._rows_before(epoch), None)
        while True:
            yield list(islice(ahead, self.step_rows))

    def epoch(self, number: int) -> Indices:
        """One pass over the task rows, with the replayed rows that fall into it, in the order of learning.

        The rows before the first whole step belong to a step that began in the epoch before.
        """
        rows = self._mixed(number)
        size = self.step_rows
        head = min(-self._rows_before(number) % size, len(rows))
        tail = len(rows) - (len(rows) - head) % size
        random = np.random.default_rng((self.seed, _POOLS, number))
        pools = [rows[at : min(at + size * _POOL_STEPS, tail)] for at in range(head, tail, size * _POOL_STEPS)]
        return np.concatenate([rows[:head], *(self._grouped(pool, random) for pool in pools), rows[tail:]])

    def _mixed(self, number: int) -> Indices:
        """The rows of an epoch before they are grouped by length."""
        rows, due = self._task.one_pass(number)
        if self._replay is None:
            return rows
        replayed, replay_due = self._replay.between(self._begin(number), self._begin(number + 1))
        return np.concatenate([rows, replayed])[np.argsort(np.concatenate([due, replay_due]), kind="stable")]

    def _grouped(self, pool: Indices, random: np.random.Generator) -> Indices:
        """Brings rows of similar length into the same step; each step keeps its number of rows of each origin."""
        size = self.step_rows
        places = random.permutation(len(pool) // size)[:, None] * size + np.arange(size)
        grouped = np.empty_like(pool)
        for origin in (self._replayed, ~self._replayed):
            own = places.ravel()[origin[pool[places.ravel()]]]
            grouped[own] = pool[own][np.argsort(self._longest[pool[own]], kind="stable")]
        within = np.argsort(self._longest[grouped].reshape(-1, size), axis=1, kind="stable")
        return self._alternating(np.take_along_axis(grouped.reshape(-1, size), within, axis=1)).ravel()

    def _alternating(self, steps: Indices) -> Indices:
        """Steps with more than their share of replay in turn with steps with less; their order is kept otherwise."""
        surplus = self._surplus[steps].sum(axis=1)
        due = np.empty(len(steps))
        for side in (surplus > 0, surplus <= 0):
            due[side] = _midpoints(np.abs(surplus[side]))
        return steps[np.argsort(due, kind="stable")]

    def _begin(self, epoch: int) -> float:
        """When an epoch begins, on the clock of :class:`_Stream`."""
        return epoch * self._task.pass_tokens

    def _rows_before(self, epoch: int) -> int:
        replayed = 0 if self._replay is None else self._replay.count_before(self._begin(epoch))
        return epoch * len(self._task.rows) + replayed

    def _epoch_of(self, row: int) -> int:
        """The epoch that a place in the endless order belongs to."""
        return bisect_right(range(row // len(self._task.rows) + 2), row, key=self._rows_before) - 1


class RowSampler(Sampler[int]):
    """The first optimiser steps of an order, in the shape that the Trainer takes.

    The Trainer is shown one long epoch: its own epochs must all be of one length, and those of an order are not. To
    resume, it skips the batches that were learned, and they are the same in every process.
    """

    def __init__(self, order: RowOrder, steps: int) -> None:
        self._order = order
        self._steps = steps

    def __len__(self) -> int:
        return self._steps * self._order.step_rows

    def __iter__(self) -> Iterator[int]:
        return chain.from_iterable(islice(self._order.batches(), self._steps))
