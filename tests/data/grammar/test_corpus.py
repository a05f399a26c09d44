"""The seeded corpus: determinism, the share of errors, the split, and no sentence on both sides of it."""

import os
import random
import subprocess
import sys
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from whetstone.data.grammar import corpus
from whetstone.data.grammar.corpus import Cell, clean_sentences, corrections, split_cells
from whetstone.data.grammar.errors import SPELLED_ROLES, misspellings
from whetstone.data.grammar.frames import FRAMES
from whetstone.data.grammar.sentence import ERROR_KINDS
from whetstone.data.grammar.vocabulary import THEMES
from whetstone.errors import UserError

ALL_CELLS = [Cell(frame.name, theme.name) for frame in FRAMES for theme in THEMES]
SEEDS = st.integers(0, 10**9)


@given(seed=SEEDS)
@settings(max_examples=30, deadline=None)
def test_a_source_is_its_own_reference_exactly_when_nothing_was_planted(seed: int) -> None:
    cells = random.Random(seed).sample(ALL_CELLS, 5)
    for one in corrections(cells, 60, seed):
        assert (one.source in one.references) == (not one.errors), one
        assert 1 <= len(one.references) == len(set(one.references)) <= 4
        assert len(one.errors) <= 2
        assert Cell(one.frame, one.theme) in cells
        assert one.errors or one.references == (one.source,)


def test_every_cell_yields_learner_sentences_and_clean_ones() -> None:
    made = corrections(ALL_CELLS, 2 * len(ALL_CELLS), 0)
    assert set(Counter((one.frame, one.theme) for one in made).values()) == {2}
    assert {(one.frame, one.theme) for one in clean_sentences(ALL_CELLS, len(ALL_CELLS), 0)} == set(ALL_CELLS)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_sources_are_distinct_and_every_kind_occurs(seed: int) -> None:
    made = corrections(split_cells(seed).train, 3000, seed)
    assert len({one.source for one in made}) == 3000
    kinds = Counter(kind for one in made for kind in one.errors)
    assert set(kinds) == set(ERROR_KINDS)
    assert min(kinds.values()) > 0.03 * sum(kinds.values())
    assert max(kinds.values()) < 0.2 * sum(kinds.values())


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_an_eighth_of_the_sources_is_right(seed: int) -> None:
    made = corrections(split_cells(seed).train, 2500, seed)
    for start in (0, 333, 1500):
        window = made[start : start + 1000]
        assert 100 <= sum(not one.errors for one in window) <= 150
    errors = Counter(len(one.errors) for one in made)
    assert errors[1] > errors[2] > 0


def test_no_planted_error_makes_a_right_sentence() -> None:
    made = corrections(ALL_CELLS, 15_000, 5)
    right = {text for one in made for text in one.references}
    right |= {one.text for one in clean_sentences(ALL_CELLS, 60_000, 6)}
    assert not [one for one in made if one.errors and one.source in right]


def test_generation_depends_on_the_seed_alone() -> None:
    state = random.getstate()
    first = corrections(ALL_CELLS, 200, 7)
    assert random.getstate() == state
    random.seed(1)
    assert corrections(ALL_CELLS, 200, 7) == first
    assert corrections(ALL_CELLS, 200, 8) != first
    assert clean_sentences(ALL_CELLS, 200, 7) == clean_sentences(ALL_CELLS, 200, 7)
    assert clean_sentences(ALL_CELLS, 200, 7) != clean_sentences(ALL_CELLS, 200, 8)


def test_generation_does_not_depend_on_the_hash_seed() -> None:
    program = (
        "from whetstone.data.grammar.corpus import *\n"
        "cells = split_cells(3)\n"
        "print(cells, corrections(cells.test, 100, 3), clean_sentences(cells.mixed, 100, 3))"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            check=True,
        ).stdout
        for hash_seed in ("1", "2")
    }
    assert len(outputs) == 1


@given(seed=SEEDS)
def test_the_split_shares_no_cell_and_the_test_no_theme(seed: int) -> None:
    cells = split_cells(seed)
    assert cells == split_cells(seed)
    parts = (cells.train, cells.validation, cells.test, cells.mixed)
    assert sorted(cell for part in parts for cell in part) == sorted(ALL_CELLS)
    assert len(cells.validation) == 12
    trained, themes = {cell.frame for cell in cells.train}, {cell.theme for cell in cells.test}
    assert len(themes) == 3
    assert not {cell.theme for cell in cells.train} & themes
    difficulty = {frame.name: frame.difficulty for frame in FRAMES}
    assert sorted(difficulty[frame] for frame in set(difficulty) - trained) == [1, 1, 2, 2, 3, 3]
    unseen = [cell for cell in cells.test if cell.frame not in trained]
    assert (len(unseen), len(cells.test)) == (18, 54)
    readable = {cell.theme for cell in (*cells.mixed, *cells.validation)}
    assert themes <= readable


@pytest.mark.parametrize("seed", [0, 1])
def test_no_sentence_is_in_both_train_and_test(seed: int) -> None:
    cells = split_cells(seed)
    train, test = corrections(cells.train, 20_000, seed), corrections(cells.test, 2_000, seed)
    seen = {text for one in train for text in (one.source, *one.references)}
    assert not [one for one in test if not seen.isdisjoint((one.source, *one.references))]
    unseen = {one.text for one in clean_sentences(cells.test, 20_000, seed)}
    assert seen.isdisjoint(unseen)
    assert unseen.isdisjoint(one.text for one in clean_sentences(cells.train, 20_000, seed))


def test_no_misspelling_is_a_word_of_the_corpus() -> None:
    rng = random.Random(9)
    sentences = [frame.build(theme, rng) for frame in FRAMES for theme in THEMES for _ in range(100)]
    words = {part.lower() for sentence in sentences for token in sentence for part in token.text.split()}
    spelled = {token.text for sentence in sentences for token in sentence if token.role in SPELLED_ROLES}
    assert len(words) < 800
    assert not {wrong for text in spelled for wrong in misspellings(text)} & words


def test_exhausted_cells_are_a_user_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corpus, "MAX_DRAWS", 2)
    with pytest.raises(UserError, match=r"the 1 grammar cells yield only \d+ .* not 100000"):
        corrections([Cell("superlative", "health")], 100_000, 0)
    with pytest.raises(UserError, match="yield only 0"):
        corrections([], 1, 0)
    assert corrections([], 0, 0) == []
