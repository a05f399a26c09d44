"""Answers of any model keep to a schema or an expression."""

import json
import re
import sys
from functools import cache

import pytest
import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from whetstone.engine.answer import Answer
from whetstone.engine.api import Completion, Constraint, Request, Sampling
from whetstone.engine.constraint import GrammarMaker
from whetstone.engine.sampling import Chooser, choose
from whetstone.errors import UserError

PROPERTIES = {
    "name": {"type": "string", "maxLength": 8},
    "age": {"type": "integer", "minimum": 0, "maximum": 150},
    "kind": {"enum": ["cat", "dog"]},
}
SCHEMA = {
    "type": "object",
    "properties": PROPERTIES,
    "required": ["name", "age", "kind"],
    "additionalProperties": False,
}


@cache
def tokenizer() -> PreTrainedTokenizerBase:
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, show_progress=False)
    backend.train_from_iterator([json.dumps(SCHEMA), "the cat sat on the mat"], trainer)
    backend.add_special_tokens([AddedToken("<|end|>", special=True), AddedToken("<|other|>", special=True)])
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|end|>")


@cache
def maker() -> GrammarMaker:
    return GrammarMaker(tokenizer(), stop_ids())


def stop_ids() -> frozenset[int]:
    return frozenset(tokenizer().convert_tokens_to_ids(["<|end|>", "<|other|>"]))


def answered(constraint: Constraint, seed: int, sampling: Sampling) -> Completion:
    """What a model of noise answers; its vocabulary is wider than the tokenizer's."""
    request = Request((1,), 300, sampling, seed, constraint=constraint)
    answer = Answer(request, tokenizer(), stop_ids(), lambda piece: None)
    chooser = Chooser(request, maker().make(constraint))
    noise = torch.Generator().manual_seed(seed)
    while answer.completion is None:
        (choice,) = choose(torch.randn(1, len(tokenizer()) + 13, generator=noise), [chooser])
        assert choice.token_id is not None
        answer.add(choice.token_id)
        if chooser.ended:
            answer.finish("stop")
    return answer.completion


@pytest.mark.parametrize("seed", range(8))
def test_noise_answers_json_of_the_schema(seed: int) -> None:
    completion = answered(Constraint("json_schema", json.dumps(SCHEMA)), seed, Sampling(1.0))
    assert completion.finish_reason == "stop"
    answer = json.loads(completion.text)
    assert set(answer) == set(PROPERTIES)
    assert answer["kind"] in ("cat", "dog") and 0 <= answer["age"] <= 150 and len(answer["name"]) <= 8


@pytest.mark.parametrize("pattern", [r"(yes|no), [0-9]{2,5}", r"a/b\n?[^x]", r"[äö]🙂{2}", r"[0-9]{4}(-[0-9][0-9]){2}"])
@pytest.mark.parametrize("sampling", [Sampling(), Sampling(1.0), Sampling(1.0, top_p=0.5, top_k=9)])
def test_noise_answers_what_the_expression_matches(pattern: str, sampling: Sampling) -> None:
    for seed in range(4):
        completion = answered(Constraint("regex", pattern), seed, sampling)
        assert completion.finish_reason == "stop"
        assert re.fullmatch(pattern, completion.text)


def test_only_the_end_may_follow_what_is_complete() -> None:
    grammar = maker().make(Constraint("regex", "ab?"))
    a, b = (tokenizer().convert_tokens_to_ids(token) for token in "ab")

    def allowed() -> set[int]:
        row = torch.zeros(len(tokenizer()) + 40)
        grammar.mask(row)
        return set(row.isfinite().nonzero()[:, 0].tolist())

    def state() -> tuple[bool, bool]:
        return grammar.met, grammar.ended

    assert allowed() == {a} and state() == (False, False)
    grammar.accept(a)
    assert allowed() == {b, *stop_ids()} and state() == (True, False)
    grammar.accept(b)
    assert allowed() == stop_ids() and state() == (True, True)


def test_what_is_not_allowed_leaves_nothing() -> None:
    constraint = Constraint("regex", "ab")
    grammar = maker().make(constraint)
    grammar.accept(tokenizer().convert_tokens_to_ids("b"))
    assert not grammar.ended
    (choice,) = choose(torch.zeros(1, len(tokenizer())), [Chooser(Request((1,), 3), grammar)])
    assert choice.token_id is None and choice.error == "the constraint allows no token here"
    row = torch.zeros(len(tokenizer()))
    maker().make(constraint).mask(row)  # another answer with the same constraint begins anew
    assert bool(row.isfinite().any())


def test_rows_without_a_constraint_are_left_alone() -> None:
    logits = torch.randn(3, len(tokenizer()), generator=torch.Generator().manual_seed(1))
    grammar = maker().make(Constraint("regex", "[a-c]+"))
    free, bound, last = choose(logits, [Chooser(Request((1,), 3), each) for each in (None, grammar, None)])
    assert [free.token_id, last.token_id] == logits[[0, 2]].argmax(-1).tolist()
    assert re.fullmatch("[a-c]+", tokenizer().decode([bound.token_id]))


@pytest.mark.parametrize(
    ("kind", "pattern", "said"),
    [
        ("regex", "a(b", "unclosed group"),
        ("regex", "a(?=b)", "look-around"),
        ("json_schema", "{'a'", "not JSON"),
        ("json_schema", "3", "no schema"),
        ("json_schema", '{"type": "nope"}', "Invalid type"),
        ("json_schema", '{"type": "array", "uniqueItems": true}', "uniqueItems"),
        ("json_schema", "true", "no schema"),
        ("json_schema", '{"enum": []}', "Unsatisfiable"),
    ],
)
def test_a_mistake_is_said_in_one_line(kind: str, pattern: str, said: str) -> None:
    constraint = Constraint("regex" if kind == "regex" else "json_schema", pattern)
    with pytest.raises(UserError, match=f"constraint.{kind}: .*{said}") as caught:
        maker().make(constraint)
    assert "\n" not in str(caught.value)


def test_a_tokenizer_that_is_neither_of_bytes_nor_falls_back_to_them_is_refused() -> None:
    words = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel({"a": 0, "b": 1}, unk_token="a")))
    with pytest.raises(UserError, match="cannot read this tokenizer"):
        GrammarMaker(words, frozenset({1})).make(Constraint("regex", "a"))


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "llguidance", None)
    with pytest.raises(UserError, match=r"whetstone\[constraint\]"):
        GrammarMaker(tokenizer(), stop_ids()).make(Constraint("regex", "a"))
