"""Where keys and values of running and earlier requests are kept.

Memory is taken in slabs: some rows of equal length, for all layers in one tensor. A request has a row to itself, as
long as its prompt and its longest answer, so it can never run out of memory half-way. A row that is done keeps what it
holds until another request needs it: requests that begin alike (one system prompt, one conversation) find what they
share in any row, running or done, and copy it instead of computing it.

Notable: what is shared is looked up by tokens *and* by the digest of the adapter that computed them; keys and values of
the same text under another adapter are others.
"""

import itertools
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch

from whetstone.errors import UserError

__all__ = ["KeyValueShape", "KeyValueStore", "Match", "Row", "Slab"]

_SHORTEST_TOKENS = 64

_WORTH_WAITING_TOKENS = 16
"""A prompt that shares so many tokens with one that is being computed right now waits for them."""


@dataclass(frozen=True, slots=True)
class KeyValueShape:
    """What the attention layers of a model keep for each token."""

    layers: int
    heads: int
    head_dim: int
    dtype: torch.dtype
    device: torch.device

    @property
    def token_bytes(self) -> int:
        """Memory of one token."""
        return 2 * self.layers * self.heads * self.head_dim * self.dtype.itemsize


class Slab:
    """Rows of one length.

    Attributes:
        cache: ``(layers, 2, rows, heads, tokens, head_dim)``: keys and values.
        ids: ``(rows, tokens)``: the tokens that each row holds or, while it computes a prompt, will hold.
        held: ``(rows,)``: how many of them are computed.
        planned: ``(rows,)``: how many will be, while a prompt is being computed.
        owners: The digest of the adapter that computed them; empty for the base.
        rows: The requests that run; None where a row is free.
        used: ``(rows,)``: when each was last needed, in ticks of the store.
    """

    def __init__(self, shape: KeyValueShape, rows: int, tokens: int) -> None:
        # Zeros, not what memory happens to hold: a masked key still meets its value, and 0 times NaN is NaN.
        size = (shape.layers, 2, rows, shape.heads, tokens, shape.head_dim)
        self.cache = torch.zeros(size, dtype=shape.dtype, device=shape.device)
        self.tokens = tokens
        self.ids = np.zeros((rows, tokens), dtype=np.int64)
        self.held = np.zeros(rows, dtype=np.int64)
        self.planned = np.zeros(rows, dtype=np.int64)
        self.owners: list[str] = [""] * rows
        self.rows: list[Row | None] = [None] * rows
        self.used = np.zeros(rows, dtype=np.int64)

    @property
    def bytes(self) -> int:
        """Memory of keys and values."""
        return self.cache.numel() * self.cache.element_size()

    @property
    def running(self) -> int:
        """How many rows are taken."""
        return sum(row is not None for row in self.rows)

    @property
    def span(self) -> int:
        """One more than the last row that is taken."""
        return max((index + 1 for index, row in enumerate(self.rows) if row is not None), default=0)

    def shared(self, prompt: npt.NDArray[np.int64], owner: str) -> npt.NDArray[np.int64]:
        """How many tokens each row has in common with a prompt, from the start, computed or not: ``(rows,)``."""
        width = min(len(prompt), self.tokens)
        # One column that always differs ends what is equal up to the last token.
        differs = np.ones((len(self.ids), width + 1), dtype=bool)
        differs[:, :width] = self.ids[:, :width] != prompt[:width]
        common = differs.argmax(axis=1)
        return np.where([name == owner for name in self.owners], common, 0)

    def copy(self, source: "Slab", source_row: int, row: int, tokens: int) -> None:
        """Takes the first tokens of a row over into another."""
        self.cache[:, :, row, :, :tokens] = source.cache[:, :, source_row, :, :tokens]

    def is_finite(self, row: int) -> bool:
        """Whether all that a row holds are numbers."""
        return bool(self.cache[:, :, row, :, : self.held[row]].isfinite().all())

    def give_up(self) -> None:
        """Gives the memory back at once, whoever still points at this slab."""
        self.cache = self.cache.new_empty(0)

    def close_ranks(self) -> None:
        """Moves running rows to the front when most before the last are free: attention works on all up to the last."""
        while self.span > 2 * self.running + 2:
            last, free = self.span - 1, self.rows.index(None)
            length = int(max(self.held[last], self.held[free]))
            pair, turned = [free, last], [last, free]
            self.cache[:, :, pair, :, :length] = self.cache[:, :, turned, :, :length]
            for column in (self.ids, self.held, self.planned, self.used):
                column[pair] = column[turned]
            self.owners[free], self.owners[last] = self.owners[last], self.owners[free]
            self.rows[free], self.rows[last] = self.rows[last], None
            moved = self.rows[free]
            if moved is not None:
                moved.index = free


@dataclass(slots=True, eq=False)
class Row:
    """A request's place.

    Attributes:
        slab: Where.
        index: Which row of it.
        reused: How many tokens of the prompt were there already.
    """

    slab: Slab
    index: int
    reused: int

    @property
    def held(self) -> int:
        """Tokens whose keys and values are there."""
        return int(self.slab.held[self.index])

    def extend(self, token_ids: list[int]) -> None:
        """Notes that these tokens, the next ones, are computed."""
        start = self.held
        self.slab.ids[self.index, start : start + len(token_ids)] = token_ids
        self.slab.held[self.index] = start + len(token_ids)


class KeyValueStore:
    """All slabs, within a budget of memory."""

    def __init__(self, shape: KeyValueShape, *, max_rows: int, budget_bytes: int) -> None:
        """Takes no memory yet.

        Args:
            shape: Of the model.
            max_rows: How many requests may run at once.
            budget_bytes: What all slabs may take.
        """
        self._shape = shape
        self._max_rows = max_rows
        self._budget_bytes = budget_bytes
        self._ticks = itertools.count(1)
        self.slabs: list[Slab] = []

    @property
    def full(self) -> bool:
        """Whether as many requests run as may."""
        return self.running >= self._max_rows

    @property
    def running(self) -> int:
        """How many rows are taken."""
        return sum(slab.running for slab in tuple(self.slabs))

    @property
    def bytes(self) -> int:
        """Memory of all slabs; may be asked while another thread steps."""
        return sum(slab.bytes for slab in tuple(self.slabs))

    @property
    def held_tokens(self) -> int:
        """Tokens whose keys and values are there, of running and earlier requests; may be asked as ``bytes`` may."""
        return sum(int(slab.held.sum()) for slab in tuple(self.slabs))

    def check(self, tokens: int) -> None:
        """Refuses what would not fit if it were alone.

        Raises:
            UserError: A row of this length is more than the whole budget.
        """
        if row_tokens(tokens) * self._shape.token_bytes > self._budget_bytes:
            raise UserError(
                f"a prompt and answer of {tokens:,} tokens need {tokens * self._shape.token_bytes / 2**30:.2f} GiB of "
                f"keys and values, and {self._budget_bytes / 2**30:.2f} GiB are there; lower max_new_tokens"
            )

    def match(self, prompt: npt.NDArray[np.int64], owner: str) -> "Match":
        """Finds the row that begins most like a prompt; the last token of a prompt is always computed."""
        best = _NOTHING
        for slab in self.slabs:
            common = slab.shared(prompt[:-1], owner)
            held = np.minimum(common, slab.held)
            promised = np.minimum(common, np.maximum(slab.held, slab.planned))
            row = int(held.argmax())
            coming = max(best.promised_tokens, int(promised.max()))
            if held[row] > best.held_tokens:
                best = Match(slab, row, int(held[row]), coming)
            else:
                best = replace(best, promised_tokens=coming)
        return best

    def place(self, prompt: npt.NDArray[np.int64], owner: str, tokens: int, match: "Match") -> "Row | None":
        """Gives a request a row, with what it shares with another already in it.

        Args:
            prompt: Its token ids.
            owner: Digest of its adapter.
            tokens: The longest that it and its answer may become.
            match: What :meth:`match` found for it, just now.

        Returns:
            Its row; None when it has to wait until another request is done.
        """
        if self.full:
            return None
        found = self._free_row(tokens, match)
        if found is None:
            return None
        slab, index = found
        if match.slab is not None and match.slab not in self.slabs:
            match = _NOTHING
        if match.slab is not None and (slab, index) != (match.slab, match.row):
            slab.copy(match.slab, match.row, index, match.held_tokens)
        slab.ids[index, : len(prompt)] = prompt
        slab.held[index], slab.planned[index] = match.held_tokens, len(prompt)
        slab.used[index] = next(self._ticks)
        if match.slab is not None:
            match.slab.used[match.row] = slab.used[index]
        slab.owners[index] = owner
        row = slab.rows[index] = Row(slab, index, match.held_tokens)
        return row

    @torch.inference_mode()
    def release(self, row: Row, *, proven: bool = True) -> None:
        """Frees a row; what it holds stays until the place is needed.

        Args:
            row: Whose request is done.
            proven: Whether logits that are numbers came of all that it holds. If not, it is looked through, and wiped
                where it holds what is no number: that stays none in every product, even with a weight of zero, and so
                would spoil whoever has the row next.
        """
        slab, index = row.slab, row.index
        slab.rows[index] = None
        if not proven and not slab.is_finite(index):
            slab.held[index] = 0
            slab.cache[:, :, index] = 0
        slab.planned[index] = slab.held[index]

    def forget(self, owner: str | None = None) -> None:
        """Forgets what rows hold that are done; running ones keep theirs.

        Args:
            owner: Digest of the adapter whose rows are meant; None for all.
        """
        for slab in self.slabs:
            for index, row in enumerate(slab.rows):
                if row is None and owner in (None, slab.owners[index]):
                    slab.held[index] = slab.planned[index] = slab.used[index] = 0

    def close(self) -> None:
        """Gives all memory back."""
        for slab in self.slabs:
            slab.give_up()
        self.slabs.clear()

    def _free_row(self, tokens: int, match: "Match") -> tuple[Slab, int] | None:
        slab = match.slab
        # In place, unless most of what the row holds would be lost for a little.
        idle = slab is not None and slab.rows[match.row] is None and slab.tokens >= tokens
        if slab is not None and idle and match.held_tokens * 2 >= slab.held[match.row]:
            return slab, match.row
        length = row_tokens(tokens)
        fitting = [slab for slab in self.slabs if slab.tokens >= length and slab.running < len(slab.rows)]
        exact = [slab for slab in fitting if slab.tokens == length]
        chosen = next(iter(exact), None) or self._new_slab(length, match.slab) or next(iter(fitting), None)
        if chosen is None:
            return None
        free = [index for index, row in enumerate(chosen.rows) if row is None]
        return chosen, min(free, key=lambda index: (chosen.used[index], index))

    def _new_slab(self, length: int, matched: Slab | None) -> Slab | None:
        """Takes memory for rows of this length; idle slabs give theirs back when there is not enough.

        The one that holds what the request could take over is the last to go.
        """
        row_bytes = length * self._shape.token_bytes
        idle = [slab for slab in self.slabs if not slab.running]
        free_bytes = self._budget_bytes - sum(slab.bytes for slab in self.slabs)
        if free_bytes + sum(slab.bytes for slab in idle) < row_bytes:
            return None
        for slab in sorted(idle, key=lambda slab: (slab is matched, int(slab.used.max()))):
            if free_bytes >= row_bytes:
                break
            free_bytes += slab.bytes
            self.slabs.remove(slab)
            slab.give_up()
        # Half of what is left at most: requests of other lengths come, too.
        rows = min(self._max_rows, max(1, free_bytes // (2 * row_bytes)))
        made = Slab(self._shape, rows, length)
        self.slabs.append(made)
        return made


@dataclass(frozen=True, slots=True)
class Match:
    """What a prompt has in common with the rows that are there.

    Attributes:
        slab: Where the row is that holds most of it; None if none does.
        row: Which.
        held_tokens: How many tokens it holds.
        promised_tokens: How many some row holds or will hold soon, because it is being computed.
    """

    slab: Slab | None
    row: int
    held_tokens: int
    promised_tokens: int

    @property
    def worth_waiting(self) -> bool:
        """Whether waiting saves computing what another request is computing right now."""
        return self.promised_tokens - self.held_tokens >= _WORTH_WAITING_TOKENS


_NOTHING = Match(None, 0, 0, 0)


def row_tokens(tokens: int) -> int:
    """The length of the rows for so many tokens: 64, 96, 128, 192, 256, 384 and so on, so that few lengths are made."""
    length = _SHORTEST_TOKENS
    while length < tokens:
        length = length * 3 // 2 if length & (length - 1) == 0 else length * 4 // 3
    return length
