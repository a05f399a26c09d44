"""Near duplicates: what is reported is true, and hardly anything is missed."""

import random
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from whetstone.data.lint.near import SLOTS, Near, NearSearch, candidate_probability, slots_per_band

WORDS = ["".join(random.Random(seed).choices("etaoinshrdlucmfwyp", k=3 + seed % 7)) for seed in range(400)]


def shingles(text: str) -> set[str]:
    plain = " ".join(text.lower().split())
    return {plain[i : i + 5] for i in range(max(len(plain) - 4, 1))}


def jaccard(first: set[str], second: set[str]) -> float:
    return len(first & second) / len(first | second)


def search(texts: list[str], threshold: float, groups: list[int] | None = None, pool: int | None = None) -> list[Near]:
    labels = np.array(groups or range(len(texts)), dtype=np.int64)
    return NearSearch(len(texts), texts.__getitem__).pairs(threshold, labels, len(texts) if pool is None else pool)


def sentence(draw: random.Random, words: int = 15) -> list[str]:
    return draw.choices(WORDS, k=words)


@given(
    texts=st.lists(st.text("ab é\n", max_size=14), min_size=1, max_size=25),
    threshold=st.sampled_from([0.3, 0.5, 0.8, 0.95]),
    data=st.data(),
)
def test_every_pair_is_true_and_allowed(texts: list[str], threshold: float, data: st.DataObject) -> None:
    groups = data.draw(st.lists(st.integers(0, 3), min_size=len(texts), max_size=len(texts)))
    pool = data.draw(st.integers(0, len(texts)))
    found = search(texts, threshold, groups, pool)
    assert [pair.text for pair in found] == sorted({pair.text for pair in found})
    for pair in found:
        assert pair.similarity == pytest.approx(jaccard(shingles(texts[pair.text]), shingles(texts[pair.partner])))
        assert pair.similarity >= threshold
        assert pair.partner < pool
        assert groups[pair.text] != groups[pair.partner]


@pytest.mark.parametrize(("threshold", "words"), [(0.5, 15), (0.8, 15), (0.8, 40)])
def test_recall_against_brute_force(threshold: float, words: int) -> None:
    draw = random.Random(1)
    texts = []
    for _ in range(150):
        text = sentence(draw, words)
        texts.append(" ".join(text))
        for place in draw.sample(range(words), draw.randint(1, max(words // 8, 1))):
            text[place] = draw.choice(WORDS)
        texts.append(" ".join(text))
    sets = [shingles(text) for text in texts]
    near = [
        pair for pair in combinations(range(len(texts)), 2) if jaccard(*(sets[i] for i in pair)) >= threshold + 0.05
    ]
    has_near = {text for pair in near for text in pair}
    found = {pair.text for pair in search(texts, threshold)}
    assert len(has_near) > 60
    assert len(found & has_near) >= 0.95 * len(has_near)


def test_a_crowd_of_near_duplicates_is_found_without_comparing_all_with_all() -> None:
    draw = random.Random(2)
    kinds = [sentence(draw, 30) for _ in range(20)]
    texts = [" ".join([*kinds[number % 20], str(number)]) for number in range(2000)]
    looks = 0

    def text_at(number: int) -> str:
        nonlocal looks
        looks += 1
        return texts[number]

    found = NearSearch(len(texts), text_at).pairs(0.8, np.arange(len(texts)), len(texts))
    assert len(found) == len(texts)
    assert looks < 6 * len(texts)


def test_what_most_texts_share_does_not_make_them_near_duplicates() -> None:
    draw = random.Random(3)
    instruction = (
        "Say in one word whether the writer of this review liked the film or did not like it at all. "
        "Do not explain your answer, and add nothing that is not in the review. The review: "
    )
    texts = [instruction + " ".join(sentence(draw, 2)) for _ in range(300)]
    assert search(texts, 0.8) == []
    assert len(search(texts[:50], 0.8)) == 50


def test_only_the_pool_is_searched() -> None:
    text = " ".join(WORDS[:20])
    texts = [text, f"{text} now", " ".join(WORDS[50:70]), f"{text} too"]
    assert [(pair.text, pair.partner) for pair in search(texts, 0.8, [0, 0, 1, -1], 3)] == [(3, 0)]
    assert search(texts, 0.8, pool=0) == []


def test_unpaired_surrogates_and_no_texts_at_all() -> None:
    assert search([], 0.8) == []
    assert [pair.text for pair in search(["\ud800 abcdefghijklmnop", "\ud800 abcdefghijklmnopq"], 0.8)] == [0, 1]


@given(threshold=st.floats(0.3, 0.99))
def test_bands_keep_their_promise(threshold: float) -> None:
    slots = slots_per_band(threshold)
    assert 1 <= slots <= 8
    assert candidate_probability(min(threshold + 0.05, 1.0), slots) >= 0.97


def test_the_curve() -> None:
    assert candidate_probability(1.0, 8) == 1.0
    assert candidate_probability(0.5, 1) == pytest.approx(1 - 0.5**SLOTS)
    assert candidate_probability(0.8, 8) == pytest.approx(0.947, abs=0.001)
