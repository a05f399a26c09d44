"""How the rows of a micro-batch are laid out as tries: how much shares a row of the batch, by what it costs.

A long row of the batch shares more (an instruction that all examples begin with is computed once for each row), but
attention takes the square of its length. The cost model counts floating-point operations of both; what attention loses
on top, on a dense mask, is one measured factor.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from transformers import PreTrainedModel

from whetstone.train.batch import Row
from whetstone.trie import Ints, TrieBatch, build_trie, pad_tries, shared_prefixes, sorted_order

__all__ = ["CostModel", "pack"]

_GROWTH = 1.25
_LONGEST_TOKENS = 8192

_ATTENTION_WASTE = 1.5
"""Time of an operation of attention over a dense mask against one of a matrix product, forward and backward (two cores,
bfloat16, 15 M and 135 M parameters: 1.3 to 1.7)."""


@dataclass(frozen=True, slots=True)
class CostModel:
    """What a layout costs, in floating-point operations of a layer.

    Attributes:
        token: Of a token, forward and backward.
        pair: Of two tokens of one row of the batch, whether they see each other or not.
    """

    token: float
    pair: float

    @classmethod
    def of(cls, model: PreTrainedModel) -> "CostModel":
        """The costs of an architecture, from its sizes."""
        config = model.config.get_text_config()
        embeddings = {id(module.weight) for module in (model.get_input_embeddings(), model.get_output_embeddings())}
        inside = sum(weight.numel() for weight in model.parameters() if id(weight) not in embeddings)
        # A product forward and one for the gradient of its input; attention has two forward and five backward.
        return cls(4 * inside / config.num_hidden_layers, _ATTENTION_WASTE * 14 * config.hidden_size)

    def cost(self, rows: int, width: int) -> float:
        """Of a batch of that shape."""
        return rows * width * (self.token + width * self.pair)


def pack(rows: Sequence[Row], costs: CostModel, *, share: bool) -> TrieBatch:
    """Lays rows out at the least cost.

    Args:
        rows: What is learned together.
        costs: Of the model.
        share: Compute common tokens once; without it rows are only put one behind the other.
    """
    order = sorted_order([row.input_ids for row in rows])
    ordered = [np.asarray(rows[place].input_ids, dtype=np.int64) for place in order]
    starts = [rows[place].prompt_tokens for place in order]
    shared = shared_prefixes(ordered) if share else np.zeros(len(rows), dtype=np.int64)
    lengths = np.array([len(ids) for ids in ordered])
    cuts = _cheapest_cuts(lengths, shared, costs)
    return pad_tries([build_trie(ordered[a:b], starts[a:b], shared[a:b]) for a, b in cuts])


def _cheapest_cuts(lengths: Ints, shared: Ints, costs: CostModel) -> list[tuple[int, int]]:
    """Where to cut the ordered rows, such that no part has more tokens than the best of some budgets."""
    together = int(lengths.sum() - shared[1:].sum())
    best, cheapest = [(0, len(lengths))], np.inf
    budget = int(lengths.max())
    while True:
        cuts, width = _cuts(lengths, shared, budget)
        cost = costs.cost(len(cuts), width)
        if cost < cheapest:
            best, cheapest = cuts, cost
        if budget >= min(together, _LONGEST_TOKENS):
            return best
        budget = int(budget * _GROWTH) + 1


def _cuts(lengths: Ints, shared: Ints, budget: int) -> tuple[list[tuple[int, int]], int]:
    """Fills parts with rows, one after the other, up to a budget of tokens; gives the largest part's tokens, too."""
    cuts: list[tuple[int, int]] = []
    start = filled = width = 0
    for place, (length, common) in enumerate(zip(lengths.tolist(), shared.tolist(), strict=True)):
        new = length - common if place > start else length
        if place > start and filled + new > budget:
            cuts.append((start, place))
            start, filled, new = place, 0, length
        filled += new
        width = max(width, filled)
    return [*cuts, (start, len(lengths))], width
