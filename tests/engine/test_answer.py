"""An answer's pieces, joined, are what the tokenizer says of all its tokens."""

import json
import time
from collections.abc import Callable
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from whetstone.engine.answer import Answer
from whetstone.engine.api import Delta, Logprob, Request

TEXTS = [
    "the cat sat on the mat.",
    "ein schöner Tag, naïve café",
    "über zwölf Boxkämpfer\n\n",
    "żółć ąę",
    "日本語 🙂🙃",
]


def byte_level() -> Tokenizer:
    """GPT-2, Qwen, Llama 3."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=290, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(TEXTS, trainer)
    return tokenizer


def byte_fallback(*, strips: bool) -> Tokenizer:
    """Gemma, and Llama 2, whose first token loses its space."""
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
    trained.train_from_iterator(TEXTS, trainers.BpeTrainer(vocab_size=90, show_progress=False))
    model = json.loads(trained.to_str())["model"]
    tokens = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", "▁▁", *model["vocab"]]
    vocabulary = {token: index for index, token in enumerate(dict.fromkeys(tokens))}
    merges = [tuple(merge) for merge in model["merges"]]
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, unk_token="<unk>", byte_fallback=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    tokenizer.decoder = decoders.Sequence([*steps, decoders.Strip(" ", 1, 0)] if strips else steps)
    return tokenizer


def metaspace() -> Tokenizer:
    """Unigram models such as T5's; text that looks like a byte is text."""
    words = ["▁", "▁the", "▁cat", "s", "▁▁", "<0x41>", "é", "\n"]
    tokenizer = Tokenizer(models.Unigram([(word, -1.0) for word in words], unk_id=3))
    tokenizer.decoder = decoders.Metaspace()
    return tokenizer


def word_piece() -> Tokenizer:
    """BERT: spaces are between words, and none before what goes on."""
    words = ["[UNK]", "the", "cat", "##s", "##é", ".", "do", "n't", "日"]
    tokenizer = Tokenizer(models.WordPiece({word: index for index, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.decoder = decoders.WordPiece(cleanup=False)
    return tokenizer


MADE: dict[str, Callable[[], Tokenizer]] = {
    "byte-level": byte_level,
    "gemma": lambda: byte_fallback(strips=False),
    "llama": lambda: byte_fallback(strips=True),
    "metaspace": metaspace,
    "word-piece": word_piece,
}


@cache
def tokenizer_of(kind: str) -> PreTrainedTokenizerBase:
    backend = MADE[kind]()
    backend.add_special_tokens([AddedToken("<|begin|>", special=True), AddedToken("<|end|>", special=True)])
    backend.add_tokens([AddedToken("<tool>", special=False, normalized=False)])
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|end|>")


def decoded(tokenizer: PreTrainedTokenizerBase, ids: list[int]) -> str:
    return str(tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))


def answered(
    kind: str, ids: list[int], stop: tuple[str, ...] = (), limit: int | None = None, end_id: int = -1
) -> tuple[Answer, list[Delta]]:
    pieces: list[Delta] = []
    request = Request((1, 2), limit or len(ids), stop=stop)
    answer = Answer(request, tokenizer_of(kind), frozenset({end_id}), pieces.append)
    for token_id in ids:
        if answer.completion is None:
            answer.add(token_id)
    return answer, pieces


@st.composite
def token_sequences(draw: st.DrawFn, kind: str) -> list[int]:
    size = len(tokenizer_of(kind))
    some = draw(st.lists(st.integers(0, size + 1), min_size=1, max_size=4))
    return draw(st.lists(st.one_of(st.sampled_from(some), st.integers(0, size - 1)), min_size=1, max_size=40))


@pytest.mark.parametrize("kind", MADE)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_pieces_joined_are_the_decoded_tokens_up_to_the_first_stop_string(kind: str, data: st.DataObject) -> None:
    ids = data.draw(token_sequences(kind))
    whole = decoded(tokenizer_of(kind), ids)
    words = [
        word for word in (whole[at : at + size] for at in range(len(whole)) for size in (1, 2, 5)) if "�" not in word
    ]
    stop = tuple(data.draw(st.lists(st.sampled_from(words), max_size=2))) if words else ()
    answer, pieces = answered(kind, ids, (*stop, "nowhere"))
    completion = answer.completion
    assert completion is not None
    expected = decoded(tokenizer_of(kind), answer.token_ids)
    places = [expected.find(word) for word in stop if word in expected]
    assert completion.text == expected[: min(places, default=len(expected))]
    assert "".join(piece.text for piece in pieces) == completion.text
    assert completion.finish_reason == ("stop" if places else "length")
    assert [piece.token_id for piece in pieces] == answer.token_ids == ids[: len(answer.token_ids)]
    assert [piece.completion for piece in pieces] == [None] * (len(pieces) - 1) + [completion]


@pytest.mark.parametrize("kind", ["byte-level", "gemma", "llama"])
@settings(max_examples=60, deadline=None)
@given(text=st.text(st.sampled_from("the cat\nüñ日🙂"), min_size=1, max_size=30), data=st.data())
def test_an_answer_ends_with_the_token_that_completes_a_stop_string(kind: str, text: str, data: st.DataObject) -> None:
    tokenizer = tokenizer_of(kind)
    ids = tokenizer.encode(text, add_special_tokens=False)
    at = data.draw(st.integers(0, len(text) - 1))
    stop = text[at : at + data.draw(st.integers(1, 4))]
    answer, _ = answered(kind, ids, (stop,))
    known = len(answer.token_ids)
    if answer.completion is not None and answer.completion.finish_reason == "stop":
        assert stop not in decoded(tokenizer, ids[: known - 1])
    else:
        assert stop not in decoded(tokenizer, ids)


def test_characters_come_whole() -> None:
    ids = tokenizer_of("byte-level").encode("🙂é", add_special_tokens=False)
    assert len(ids) > 2
    _, pieces = answered("byte-level", ids)
    assert [piece.text for piece in pieces if piece.text] == ["🙂", "é"]


def test_what_may_become_a_stop_string_is_told_when_it_does_not() -> None:
    ids = tokenizer_of("byte-level").encode("a\n\nb\nUser:c", add_special_tokens=False)
    answer, pieces = answered("byte-level", ids, ("\nUser:",))
    assert answer.completion is not None and answer.completion.text == "a\n\nb"
    said = ""
    for piece in pieces:
        said += piece.text
        assert "a\n\nb".startswith(said)


def test_the_stop_token_is_kept_and_says_nothing() -> None:
    tokenizer = tokenizer_of("byte-level")
    ids = tokenizer.encode("the cat", add_special_tokens=False)
    for end in ("<|end|>", "<tool>"):
        end_id = tokenizer.convert_tokens_to_ids(end)
        answer, pieces = answered("byte-level", [*ids, end_id, *ids], limit=99, end_id=end_id)
        assert answer.completion is not None
        assert answer.completion.finish_reason == "stop"
        assert answer.completion.text == "the cat"
        assert answer.completion.token_ids == (*ids, end_id)
        assert pieces[-1].token_id == end_id


def test_finishing_early_tells_what_was_held_back_once() -> None:
    ids = tokenizer_of("byte-level").encode("the cat\nUs", add_special_tokens=False)
    answer, pieces = answered("byte-level", ids, ("\nUser:",), limit=99)
    assert pieces[-1].completion is None
    answer.reused_tokens = 1
    answer.finish("error", "it broke")
    answer.finish("cancelled")
    assert answer.completion is not None
    assert (answer.completion.finish_reason, answer.completion.error) == ("error", "it broke")
    assert answer.completion.text == "the cat\nUs" == "".join(piece.text for piece in pieces)
    assert pieces[-1].token_id is None
    usage = answer.completion.usage
    assert (usage.prompt_tokens, usage.new_tokens, usage.reused_tokens) == (2, len(ids), 1)


def test_times_and_logprobs_belong_to_the_tokens() -> None:
    pieces: list[Delta] = []
    before = time.monotonic()
    answer = Answer(Request((1,), 3, logprobs=0), tokenizer_of("byte-level"), frozenset(), pieces.append)
    logprobs = [Logprob(40 + n, -0.5 * n) for n in range(3)]
    for logprob in logprobs:
        answer.add(logprob.token_id, logprob)
    assert answer.completion is not None
    assert answer.completion.logprobs == tuple(logprobs) == tuple(piece.logprob for piece in pieces)
    timing = answer.completion.timing
    times = [before, timing.queued_s, *timing.token_s, timing.end_s, time.monotonic()]
    assert times == sorted(times) and len(timing.token_s) == 3


@pytest.mark.parametrize("kind", ["byte-level", "llama"])
def test_a_token_costs_the_same_in_a_long_answer(kind: str) -> None:
    class Counting:
        """Counts the tokens that are decoded."""

        def __init__(self, inner: PreTrainedTokenizerBase) -> None:
            self.inner, self.decoded = inner, 0

        def __getattr__(self, name: str) -> object:
            return getattr(self.inner, name)

        def __len__(self) -> int:
            return len(self.inner)

        def decode(self, ids: list[int], **options: bool) -> object:
            self.decoded += len(ids)
            return self.inner.decode(ids, **options)

    for ids in ([70], [0xC3], list(range(60, 250))):
        counting = Counting(tokenizer_of(kind))
        answer = Answer(Request((1,), 4000, stop=("\nUser:",)), counting, frozenset(), lambda piece: None)
        for index in range(4000):
            answer.add(ids[index % len(ids)])
        assert answer.completion is not None
        assert counting.decoded < 4000 * 20
