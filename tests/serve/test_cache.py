"""What is kept, under which name, and what makes way."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whetstone.data.example import Message
from whetstone.engine.api import Constraint, Sampling, Usage
from whetstone.serve.cache import AnswerCache, CachedAnswer, cache_key, cacheable
from whetstone.serve.question import Ending, Piece, Question

QUESTION = Question("demo", (Message("user", "Hello"),), 20, Sampling(), seed=1)


def answer(text: str, ids: int = 3) -> CachedAnswer:
    return CachedAnswer((Piece(text, tuple(range(1000, 1000 + ids))),), Ending("stop", Usage(2, ids)))


@pytest.mark.parametrize(
    ("change", "kept"),
    [
        ({}, True),
        ({"sampling": Sampling(repetition_penalty=1.2)}, True),
        ({"sampling": Sampling(temperature=0.1)}, False),
        ({"logprobs": 0}, False),
    ],
)
def test_which_answers_are_kept(change: dict[str, Any], kept: bool) -> None:
    assert cacheable(replace(QUESTION, **change)) is kept


def test_several_choices_are_not_kept() -> None:
    assert not cacheable(QUESTION, choices=2)


@pytest.mark.parametrize(
    "change",
    [
        {"model": "other"},
        {"prompt": (Message("user", "hello"),)},
        {"prompt": (Message("system", ""), Message("user", "Hello"))},
        {"prompt": (Message("assistant", "Hello"),)},
        {"prompt": "Hello"},
        {"prompt": (1, 2)},
        {"max_new_tokens": 21},
        {"max_new_tokens": None},
        {"sampling": Sampling(repetition_penalty=1.1)},
        {"stop": ("a",)},
        {"constraint": Constraint("regex", "a")},
    ],
)
def test_another_question_has_another_name(change: dict[str, Any]) -> None:
    assert cache_key("a", "f", replace(QUESTION, **change)) != cache_key("a", "f", QUESTION)


def test_another_key_or_another_model_behind_the_name_has_another_name() -> None:
    assert len({cache_key(*who, QUESTION) for who in (("a", "f"), ("b", "f"), ("a", "g"), ("af", ""))}) == 4


def test_seed_and_deadline_do_not_count_and_the_name_is_stable() -> None:
    same = replace(QUESTION, seed=2, deadline_s=5.0)
    assert cache_key("a", "f", same) == cache_key("a", "f", QUESTION)
    assert cache_key("a", "f", QUESTION) == "713771f344cf648bf510f9895a8d9ee494652dac99bafca3edfe9451f785888f"


def test_an_answer_comes_back() -> None:
    cache = AnswerCache(10_000)
    assert cache.get("a") is None
    cache.put("a", answer("hello"))
    assert cache.get("a") == answer("hello")
    assert (cache.hits, cache.misses, len(cache)) == (1, 1, 1)
    assert cache.bytes >= len("hello") + 3 * 28


def test_what_was_not_used_for_longest_makes_way() -> None:
    cache = AnswerCache(1)
    cache.put("a", answer("hello"))
    assert len(cache) == 0
    probe = AnswerCache(10_000)
    probe.put("a", answer("hello"))
    cache = AnswerCache(probe.bytes * 2)
    cache.put("a", answer("hello"))
    cache.put("b", answer("hello"))
    cache.get("a")
    cache.put("c", answer("hello"))
    assert [name for name in "abc" if cache.get(name) is not None] == ["a", "c"]
    assert cache.bytes == probe.bytes * 2


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(0, 400), st.integers(0, 30))), st.integers(0, 4000))
def test_it_never_holds_more_than_it_may(puts: list[tuple[str, int, int]], most: int) -> None:
    cache = AnswerCache(most)
    for name, length, ids in puts:
        cache.put(name, answer("x" * length, ids))
        assert 0 <= cache.bytes <= most
        found = cache.get(name)
        assert found is None or found == answer("x" * length, ids)
    assert (cache.bytes == 0) == (len(cache) == 0)
