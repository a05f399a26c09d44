"""One step of many requests as one flat row of tokens, through transformers' own forward pass.

Every layer but attention treats tokens alike, so the new tokens of all requests stand side by side in one row, without
padding. Attention is ours (transformers' ``AttentionInterface``): it writes the new keys and values into the rows of
the slabs and lets each request see its own.

Notable: query heads that share a key head are laid out as more queries of that head, so keys are never repeated in
memory; requests with one new token each, the common case, read the slab where it stands.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import torch
from torch import nn
from torch.nn import functional
from transformers import AttentionInterface

from whetstone.engine.slab import Slab

__all__ = [
    "ATTENTION",
    "Attends",
    "AttentionRule",
    "Group",
    "Piece",
    "States",
    "Step",
    "attend",
    "attending",
    "flat_step",
]

ATTENTION = "whetstone"
"""The name of our attention among those of transformers."""

States = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
"""Queries, keys and values."""


@dataclass(frozen=True, slots=True)
class AttentionRule:
    """How a layer attends.

    Attributes:
        scale: Of the products of queries and keys.
        window: How many tokens, itself included, a token sees; None for all.
        softcap: Bound of the products, by a hyperbolic tangent; None for none.
    """

    scale: float
    window: int | None
    softcap: float | None


@dataclass(frozen=True, slots=True)
class Piece:
    """New tokens of one request.

    Attributes:
        slab: Where its keys and values are.
        row: In which row.
        start: Their first position.
        token_ids: What is computed in this step.
    """

    slab: Slab
    row: int
    start: int
    token_ids: Sequence[int]


@dataclass(frozen=True, slots=True, eq=False)
class _Index:
    """Where the tokens of a group go, each ``(tokens,)``.

    Attributes:
        entry: Which of the group's rows.
        offset: Which of its queries.
        row: Which row of the slab.
        position: Which place of it.
    """

    entry: torch.Tensor
    offset: torch.Tensor
    row: torch.Tensor
    position: torch.Tensor


class Group:
    """Pieces of one slab with about equally many tokens, which attend together.

    The queries of a group are padded to ``(rows, heads, queries, head_dim)``. A group of single tokens takes all rows
    of the slab from its first to its last, so that keys are read where they stand; rows between that are not asked
    compute nonsense that nobody reads.
    """

    def __init__(self, pieces: Sequence[Piece], device: torch.device) -> None:
        self._slab = pieces[0].slab
        counts = [len(piece.token_ids) for piece in pieces]
        rows = [piece.row for piece in pieces]
        self.tokens = sum(counts)
        self._queries = max(counts)
        self._keys = max(piece.start + count for piece, count in zip(pieces, counts, strict=True))
        self._masks: dict[int | None, torch.Tensor | None] = {}
        # Views of all layers are made at once: one by one they take a step longer than what is done with them.
        layers = self._slab.cache.flatten(0, 1)
        self._seen: Sequence[torch.Tensor] = ()
        self._new: Sequence[torch.Tensor] = ()
        self._rows = rows
        if self._queries == 1 or len(rows) == 1:
            self._seen = layers[:, rows[0] : rows[-1] + 1, :, : self._keys].unbind(0)
        if len(rows) == 1:
            self._new = layers[:, rows[0], :, pieces[0].start : self._keys].unbind(0)
        if self._queries == 1:
            self._count = rows[-1] + 1 - rows[0]
            entry = [row - rows[0] for row in rows]
        else:
            self._count = len(rows)
            entry = [index for index, count in enumerate(counts) for _ in range(count)]
        self._dense = self._count * self._queries == self.tokens
        offsets = [offset for count in counts for offset in range(count)]
        starts = [piece.start for piece, count in zip(pieces, counts, strict=True) for _ in range(count)]
        place = [row for row, count in zip(rows, counts, strict=True) for _ in range(count)]
        self._columns, self._device = (entry, offsets, starts, place), device
        self._level = self._queries == 1 and min(starts) == max(starts) and self._dense

    @cached_property
    def _index(self) -> "_Index":
        """Made only where it is needed: a single token of a single request needs none."""
        entry, offset, start, row = torch.tensor(self._columns, device=self._device)
        return _Index(entry, offset, row, start + offset)

    def attend(self, layer: int, states: States, rule: AttentionRule) -> torch.Tensor:
        """Keeps the new keys and values and gives what the queries see: ``(tokens, heads, head_dim)``.

        Args:
            layer: Which.
            states: Queries, keys and values, each ``(tokens, heads, head_dim)``.
            rule: How the layer attends.
        """
        query, new_keys, new_values = states
        self._keep(2 * layer, new_keys)
        self._keep(2 * layer + 1, new_values)
        keys, values = self._held(2 * layer), self._held(2 * layer + 1)
        key_heads, shared = keys.shape[1], query.shape[1] // keys.shape[1]
        mask = self._mask(rule.window, shared, query.dtype)
        asked = self._laid_out(query, key_heads, shared)
        if rule.softcap is None:
            seen = functional.scaled_dot_product_attention(asked, keys, values, attn_mask=mask, scale=rule.scale)
        else:
            seen = _capped(asked, keys, values, mask, rule.scale, rule.softcap)
        if self._queries > 1:
            seen = seen.view(self._count, key_heads, shared, self._queries, -1).permute(0, 3, 1, 2, 4)
        if self._dense:
            return seen.reshape(query.shape)
        return seen.reshape(self._count, self._queries, *query.shape[1:])[self._index.entry, self._index.offset]

    def _laid_out(self, query: torch.Tensor, key_heads: int, shared: int) -> torch.Tensor:
        """Queries as ``(rows, key heads, query heads that share one x queries, head_dim)``."""
        dim = query.shape[-1]
        if not self._dense:
            padded = query.new_zeros(self._count, self._queries, *query.shape[1:])
            padded[self._index.entry, self._index.offset] = query
            query = padded
        if self._queries == 1:
            return query.reshape(self._count, key_heads, shared, dim)
        query = query.reshape(self._count, self._queries, key_heads, shared, dim)
        return query.permute(0, 2, 3, 1, 4).flatten(2, 3)

    def _keep(self, which: int, new: torch.Tensor) -> None:
        """Writes new keys or values of a layer, ``(tokens, heads, head_dim)``, to their places."""
        if self._new:
            self._new[which].copy_(new.transpose(0, 1))
        else:
            self._slab.cache[which // 2, which % 2, self._index.row, :, self._index.position] = new

    def _held(self, which: int) -> torch.Tensor:
        """Keys or values of a layer, ``(rows, heads, keys, head_dim)``."""
        if self._seen:
            return self._seen[which]
        return self._slab.cache[which // 2, which % 2, self._rows, :, : self._keys]

    def _mask(self, window: int | None, shared: int, dtype: torch.dtype) -> torch.Tensor | None:
        """What is added to the products, ``(rows, 1, shared x queries, keys)``; None where everything is seen."""
        if window not in self._masks:
            self._masks[window] = self._make_mask(window, shared, dtype)
        return self._masks[window]

    def _make_mask(self, window: int | None, shared: int, dtype: torch.dtype) -> torch.Tensor | None:
        if self._level and (window is None or self._keys <= window):
            return None
        position = torch.zeros(self._count, self._queries, dtype=torch.long, device=self._device)
        position[self._index.entry, self._index.offset] = self._index.position
        key = torch.arange(self._keys, device=self._device)
        seen = key <= position[..., None]
        if window is not None:
            seen &= position[..., None] - key < window
        added = torch.zeros(seen.shape, dtype=dtype, device=self._device).masked_fill_(~seen, float("-inf"))
        return added.repeat(1, shared, 1)[:, None]


def _capped(
    query: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    mask: torch.Tensor | None,
    scale: float,
    softcap: float,
) -> torch.Tensor:
    """Attention whose products are bounded before the softmax (Gemma 2, arXiv:2408.00118)."""
    products = (query @ keys.transpose(-1, -2)) * scale
    products = torch.tanh(products / softcap) * softcap
    if mask is not None:
        products = products + mask
    precise = torch.promote_types(torch.float32, query.dtype)
    return torch.softmax(products, dim=-1, dtype=precise).to(query.dtype) @ values


@dataclass(frozen=True, slots=True)
class Step:
    """What a model computes at once.

    Attributes:
        input_ids: ``(1, tokens)``: the new tokens of all requests, group after group.
        position_ids: ``(1, tokens)``.
        groups: Who attends with whom.
        order: For each piece, in the order of the flat row, its place among the pieces that were given.
        last: ``(pieces,)``: where the last token of each piece stands, in that order.
    """

    input_ids: torch.Tensor
    position_ids: torch.Tensor
    groups: tuple[Group, ...]
    order: tuple[int, ...]
    last: torch.Tensor


def flat_step(pieces: Sequence[Piece], device: torch.device) -> Step:
    """Puts the new tokens of requests side by side."""
    buckets: dict[tuple[int, int], list[int]] = {}
    for index, piece in enumerate(pieces):
        # Lengths that differ by less than a factor of two are padded to the longest of them.
        buckets.setdefault((id(piece.slab), (len(piece.token_ids) - 1).bit_length()), []).append(index)
    for members in buckets.values():
        members.sort(key=lambda index: pieces[index].row)
    order = [index for members in buckets.values() for index in members]
    ids = [token for index in order for token in pieces[index].token_ids]
    positions = [pieces[index].start + offset for index in order for offset in range(len(pieces[index].token_ids))]
    ends, end = [], 0
    for index in order:
        end += len(pieces[index].token_ids)
        ends.append(end - 1)
    return Step(
        input_ids=torch.tensor([ids], device=device),
        position_ids=torch.tensor([positions], device=device),
        groups=tuple(Group([pieces[index] for index in members], device) for members in buckets.values()),
        order=tuple(order),
        last=torch.tensor(ends, device=device),
    )


class Attends(Protocol):
    """Some tokens of a flat row, and what they see."""

    @property
    def tokens(self) -> int:
        """How many."""
        ...

    def attend(self, layer: int, states: States, rule: AttentionRule) -> torch.Tensor:
        """See :meth:`Group.attend`."""
        ...


def attend(groups: Sequence[Attends], layer: int, states: States, rule: AttentionRule) -> torch.Tensor:
    """What each token of a flat row sees, ``(tokens, heads, head_dim)``; its keys and values are kept.

    Args:
        groups: Who attends with whom, in the order of the row.
        layer: Which.
        states: Queries, keys and values, each ``(tokens, heads, head_dim)``.
        rule: How the layer attends.
    """
    if len(groups) == 1:
        return groups[0].attend(layer, states, rule)
    seen, first = [], 0
    for group in groups:
        part = slice(first, first + group.tokens)
        seen.append(group.attend(layer, (states[0][part], states[1][part], states[2][part]), rule))
        first += group.tokens
    return torch.cat(seen)


_CURRENT: ContextVar[Sequence[Attends]] = ContextVar("groups")


@contextmanager
def attending(groups: Sequence[Attends]) -> Iterator[None]:
    """Says whose tokens the forward pass inside this block computes."""
    token = _CURRENT.set(groups)
    try:
        yield
    finally:
        _CURRENT.reset(token)


def _attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **unused: Any,
) -> tuple[torch.Tensor, None]:
    """The attention of transformers' layers: states are ``(1, heads, tokens, head_dim)``."""
    states = query[0].transpose(0, 1), key[0].transpose(0, 1), value[0].transpose(0, 1)
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    layer = int(module.layer_idx)  # type: ignore[arg-type]
    seen = attend(_CURRENT.get(), layer, states, AttentionRule(scale, sliding_window, softcap))
    return seen[None], None


AttentionInterface.register(ATTENTION, _attention)
