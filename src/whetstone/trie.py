"""A batch is a trie: token sequences that begin alike are computed once where they are alike.

Put the sequences of a batch into a trie (prefix tree). Each node is one token; its depth is its position; it attends to
its ancestors and itself, which are exactly the tokens before it in every sequence that passes through it. So what a
causal decoder computes at a node is what it computes at that token of each of those sequences, and the loss of a token
counts as often as sequences that learn it pass through: loss and gradients equal those of the padded batch to rounding.

Notable: nodes stand in depth-first order, so node ``j`` is an ancestor of ``i`` (or ``i`` itself) exactly when
``j <= i < leave[j]``. One line gives the attention mask. Sorting the sequences puts them in that order already, and the
common prefixes of neighbours are all that is needed to know the size of any part of the trie before it is built.

Four corrections of one sentence share the sentence, and often their first words; all rows share the instruction. The
idea is that of tree attention (Cai et al. 2024, arXiv:2401.10774, for decoding), here for learning.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch

__all__ = ["Trie", "TrieBatch", "build_trie", "pad_tries", "shared_prefixes", "sorted_order"]

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Trie:
    """Sequences as a forest; every array has one entry for each node, in depth-first order.

    Attributes:
        tokens: The node's token id.
        depth: How many tokens stand before it.
        parent: The node before it; -1 where a sequence begins.
        leave: The first node after it that is not below it.
        weight: How many sequences learn its token, given what stands before it.
    """

    tokens: Ints
    depth: Ints
    parent: Ints
    leave: Ints
    weight: Ints


@dataclass(frozen=True, slots=True, eq=False)
class TrieBatch:
    """Tries side by side, as a model takes them.

    Attributes:
        input_ids: ``(rows, tokens)``.
        position_ids: ``(rows, tokens)``, the depths.
        leave: ``(rows, tokens)``.
        predictors: ``(predictors,)``: places, in the flattened batch, whose next tokens are learned.
        pair_predictor: ``(pairs,)``: for each learned (node, next token), the place of the node in ``predictors``;
            ascending.
        pair_target: ``(pairs,)``: the next token.
        pair_weight: ``(pairs,)``: how many sequences learn it.
        first_pair: ``(predictors + 1,)``, on the host: where the pairs of each predictor begin, and where the last end.
    """

    input_ids: torch.Tensor
    position_ids: torch.Tensor
    leave: torch.Tensor
    predictors: torch.Tensor
    pair_predictor: torch.Tensor
    pair_target: torch.Tensor
    pair_weight: torch.Tensor
    first_pair: Ints

    def attends(self, window_tokens: int | None = None) -> torch.Tensor:
        """Who attends to whom: ``(rows, 1, tokens, tokens)``, True where the token in front sees the one behind.

        Args:
            window_tokens: The model's sliding window: a token sees so many, itself included.
        """
        place = torch.arange(self.leave.shape[1], device=self.leave.device)
        seen = (place[:, None] >= place) & (place[:, None] < self.leave[:, None, :])
        if window_tokens is not None:
            seen &= self.position_ids[:, :, None] - self.position_ids[:, None, :] < window_tokens
        return seen[:, None]

    def to(self, device: torch.device) -> "TrieBatch":
        """The same on another device."""
        tensors = (name for name in TrieBatch.__slots__ if name != "first_pair")
        return replace(self, **{name: getattr(self, name).to(device) for name in tensors})

    @property
    def loss_tokens(self) -> int:
        """Tokens that are learned, each as often as there are sequences that learn it."""
        return int(self.pair_weight.sum())


def sorted_order(sequences: Sequence[Sequence[int] | Ints]) -> list[int]:
    """The places of the sequences in lexicographic order, in which a trie has them depth-first."""
    # Big-endian bytes compare like the numbers, and much faster than a list of them.
    keys = [np.asarray(ids, dtype=">u4").tobytes() for ids in sequences]
    return sorted(range(len(keys)), key=keys.__getitem__)


def shared_prefixes(ordered: Sequence[Ints]) -> Ints:
    """How many tokens each sequence has in common, from the start, with the one before it; 0 for the first."""
    shared = np.zeros(len(ordered), dtype=np.int64)
    for place in range(1, len(ordered)):
        shorter = min(len(ordered[place - 1]), len(ordered[place]))
        differs = ordered[place - 1][:shorter] != ordered[place][:shorter]
        shared[place] = int(differs.argmax()) if differs.any() else shorter
    return shared


def build_trie(ordered: Sequence[Ints], learned_from: Sequence[int], shared: Ints) -> Trie:
    """Builds the trie of sequences that are in lexicographic order.

    Args:
        ordered: Token ids of each sequence.
        learned_from: The place of the first token that each sequence learns; its first token of all has nothing before
            it and is never learned.
        shared: Tokens that each sequence shares with the one before it, or fewer; the first entry is not looked at.
            With zeros nothing is shared.
    """
    size = sum(len(ids) for ids in ordered) - int(shared[1:].sum())
    tokens, depth, parent, leave, weight = (np.zeros(size, dtype=np.int64) for _ in range(5))
    path = np.empty(max(map(len, ordered)), dtype=np.int64)
    filled = known = 0
    for place, ids in enumerate(ordered):
        length, common = len(ids), int(shared[place]) if place else 0
        leave[path[common:known]] = filled
        new = slice(filled, filled + length - common)
        tokens[new], depth[new] = ids[common:], np.arange(common, length)
        path[common:length] = np.arange(new.start, new.stop)
        parent[new] = np.concatenate([[path[common - 1] if common else -1], path[common : length - 1]])[
            : length - common
        ]
        weight[path[max(1, learned_from[place]) : length]] += 1
        filled, known = new.stop, length
    leave[path[:known]] = filled
    return Trie(tokens, depth, parent, leave, weight)


def pad_tries(tries: Sequence[Trie]) -> TrieBatch:
    """Puts tries side by side, padded at the right; a padding token sees itself alone and is seen by none."""
    width = max(len(trie.tokens) for trie in tries)
    shape = len(tries), width
    input_ids, position_ids = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.int64)
    leave = np.broadcast_to(np.arange(1, width + 1), shape).copy()
    pairs: list[tuple[Ints, Ints, Ints]] = []
    for row, trie in enumerate(tries):
        size = len(trie.tokens)
        input_ids[row, :size], position_ids[row, :size], leave[row, :size] = trie.tokens, trie.depth, trie.leave
        learned = trie.weight.nonzero()[0]
        pairs.append((row * width + trie.parent[learned], trie.tokens[learned], trie.weight[learned]))
    parents, targets, weights = (np.concatenate(column) for column in zip(*pairs, strict=True))
    order = np.argsort(parents, kind="stable")
    predictors, first, pair_predictor = np.unique(parents[order], return_index=True, return_inverse=True)
    return TrieBatch(
        input_ids=torch.from_numpy(input_ids),
        position_ids=torch.from_numpy(position_ids),
        leave=torch.from_numpy(leave),
        predictors=torch.from_numpy(predictors),
        pair_predictor=torch.from_numpy(pair_predictor),
        pair_target=torch.from_numpy(targets[order]),
        pair_weight=torch.from_numpy(weights[order]),
        first_pair=np.append(first, len(parents)),
    )
