"""Rows of keys and values: whose they are, what they hold, and that they never take more memory than they may."""

import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from whetstone.engine import slab as slab_module
from whetstone.engine.slab import KeyValueShape, KeyValueStore, Row, Slab, row_tokens
from whetstone.errors import UserError

SHAPE = KeyValueShape(layers=1, heads=1, head_dim=1, dtype=torch.float64, device=torch.device("cpu"))
OWNERS = ("", "one", "other")


def meaning(owner: str, tokens: Sequence[int]) -> float:
    """Stands for keys and values: they follow from all tokens so far and from the adapter."""
    return float(zlib.crc32(repr((owner, [int(token) for token in tokens])).encode()))


class Asked:
    """A request that has a row."""

    def __init__(self, row: Row, prompt: list[int], owner: str, longest: int) -> None:
        self.row, self.prompt, self.owner, self.longest = row, prompt, owner, longest

    def compute(self, count: int) -> None:
        start = self.row.held
        new = self.prompt[start : start + count] or [7] * min(count, self.longest - start)
        self.row.extend(new)
        ids = self.row.slab.ids[self.row.index]
        for place in range(start, start + len(new)):
            self.row.slab.cache[:, :, self.row.index, :, place] = meaning(self.owner, ids[: place + 1])

    def spoil(self) -> None:
        if self.row.held:
            self.row.slab.cache[:, :, self.row.index, :, self.row.held - 1] = float("nan")


def common(one: Sequence[int], other: Sequence[int]) -> int:
    count = 0
    while count < min(len(one), len(other)) and one[count] == other[count]:
        count += 1
    return count


def most_held(store: KeyValueStore, prompt: list[int], owner: str) -> int:
    """By the definition: the longest beginning of a prompt, its last token excepted, that some row holds."""
    return max(
        (
            common(prompt[:-1], slab.ids[index, : slab.held[index]].tolist())
            for slab in store.slabs
            for index in range(len(slab.rows))
            if slab.owners[index] == owner
        ),
        default=0,
    )


def check_contents(store: KeyValueStore, running: list[Asked]) -> None:
    places = [(id(asked.row.slab), asked.row.index) for asked in running]
    assert len(set(places)) == len(places)
    assert sum(slab.running for slab in store.slabs) == len(running)
    for asked in running:
        assert asked.row.slab in store.slabs
        assert asked.row.slab.rows[asked.row.index] is asked.row
        assert asked.row.slab.tokens >= asked.longest
    for slab in store.slabs:
        for index in range(len(slab.rows)):
            ids = slab.ids[index]
            for place in range(int(slab.held[index])):
                assert (slab.cache[:, :, index, :, place] == meaning(slab.owners[index], ids[: place + 1])).all()


operations = st.one_of(
    st.tuples(
        st.just("place"),
        st.tuples(
            st.sampled_from([0, 3, 30, 60]),
            st.lists(st.integers(0, 2), min_size=1, max_size=40),
            st.sampled_from(OWNERS),
            st.sampled_from([1, 5, 60, 150]),
        ),
    ),
    st.tuples(st.just("compute"), st.tuples(st.integers(0, 9), st.integers(1, 70))),
    st.tuples(st.sampled_from(["done", "given up", "spoilt"]), st.integers(0, 9)),
    st.tuples(st.sampled_from(["close ranks", "forget"]), st.none()),
)


@settings(max_examples=400, deadline=None)
@given(st.lists(operations, max_size=40), st.integers(1, 6), st.sampled_from([300, 700, 2000]))
def test_rows_hold_what_was_computed_in_them_whatever_happens(
    schedule: list[tuple[str, Any]], max_rows: int, budget_tokens: int
) -> None:
    budget_bytes = budget_tokens * SHAPE.token_bytes
    made: list[Slab] = []

    class Counted(Slab):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            made.append(self)
            # Those that were given up count, too: somebody may still point at them.
            assert sum(slab.bytes for slab in made) <= budget_bytes

    store = KeyValueStore(SHAPE, max_rows=max_rows, budget_bytes=budget_bytes)
    running: list[Asked] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(slab_module, "Slab", Counted)
        for what, value in schedule:
            if what == "place":
                shared, own, owner, new = value
                prompt = [5] * shared + own
                if row_tokens(len(prompt) + new) > budget_tokens:
                    continue
                match = store.match(np.array(prompt), owner)
                assert match.held_tokens == most_held(store, prompt, owner) <= match.promised_tokens
                row = store.place(np.array(prompt), owner, len(prompt) + new, match)
                # A request that is alone always has a place.
                assert row is not None or running
                if row is not None:
                    assert row.reused in (match.held_tokens, 0)
                    running.append(Asked(row, prompt, owner, len(prompt) + new))
            elif what == "close ranks":
                for slab in store.slabs:
                    slab.close_ranks()
                    assert slab.span <= 2 * slab.running + 2
            elif what == "forget":
                store.forget()
            elif what == "compute" and running:
                which, count = value
                running[which % len(running)].compute(count)
            elif running:
                asked = running.pop(value % len(running)) if isinstance(value, int) else running.pop()
                if what == "spoilt":
                    asked.spoil()
                store.release(asked.row, proven=what == "done")
            check_contents(store, running)
            assert all(bool(slab.cache.isfinite().all()) for slab in store.slabs)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.sampled_from(OWNERS), st.integers(1, 50)), min_size=5, max_size=12))
def test_closing_ranks_moves_rows_with_all_that_belongs_to_them(rows: list[tuple[bool, str, int]]) -> None:
    store = KeyValueStore(SHAPE, max_rows=12, budget_bytes=4096 * SHAPE.token_bytes)
    asked = []
    for index, (_, owner, length) in enumerate(rows):
        prompt = np.array([index] * length)
        row = store.place(prompt, owner, 60, store.match(prompt, owner))
        assert row is not None
        asked.append(Asked(row, prompt.tolist(), owner, 60))
        asked[-1].compute(length)
    running = []
    for one, (stays, _, _) in zip(asked, rows, strict=True):
        if stays:
            running.append(one)
        else:
            store.release(one.row)
    (slab,) = store.slabs
    slab.close_ranks()
    assert slab.span <= 2 * slab.running + 2
    check_contents(store, running)
    for index, (_, owner, length) in enumerate(rows):
        assert store.match(np.array([index] * (length + 1)), owner).held_tokens == length
    for one in running:
        one.compute(3)
    check_contents(store, running)


def test_a_row_whose_slab_had_to_go_is_not_reused() -> None:
    """Memory for 96 tokens: a longer row replaces the one that the request begins like."""
    store = KeyValueStore(SHAPE, max_rows=2, budget_bytes=96 * SHAPE.token_bytes)
    prompt = list(range(40))
    first = store.place(np.array(prompt), "", 50, store.match(np.array(prompt), ""))
    assert first is not None
    Asked(first, prompt, "", 50).compute(40)
    store.release(first)
    match = store.match(np.array(prompt), "")
    assert match.held_tokens == 39 and match.slab is not None
    second = store.place(np.array(prompt), "", 90, match)
    assert second is not None and second.reused == second.held == 0
    assert match.slab.bytes == 0
    assert sum(slab.bytes for slab in store.slabs) == 96 * SHAPE.token_bytes


def test_nothing_is_given_up_for_a_request_that_has_to_wait_all_the_same() -> None:
    store = KeyValueStore(SHAPE, max_rows=4, budget_bytes=320 * SHAPE.token_bytes)
    rows = [
        store.place(np.array([index] * 20), "", tokens, store.match(np.array([index] * 20), ""))
        for index, tokens in enumerate((190, 60))
    ]
    assert rows[0] is not None and rows[1] is not None
    assert [slab.tokens for slab in store.slabs] == [192, 64]
    rows[1].extend([1] * 20)
    store.release(rows[1])
    prompt = np.array([9] * 20)
    assert store.place(prompt, "", 190, store.match(prompt, "")) is None
    assert store.match(np.array([1] * 20), "").held_tokens == 19


@given(st.integers(1, 200_000))
def test_a_row_is_at_most_half_as_long_again_as_what_it_is_for(tokens: int) -> None:
    length = row_tokens(tokens)
    assert length >= tokens
    assert length == 64 or length <= 1.5 * tokens


def test_what_never_fits_is_refused() -> None:
    store = KeyValueStore(SHAPE, max_rows=2, budget_bytes=100 * SHAPE.token_bytes)
    store.check(96)
    with pytest.raises(UserError, match=r"97 tokens need .* lower max_new_tokens"):
        store.check(97)
