"""The bytes of an answer's tokens, joined, are the bytes of its text."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from whetstone.engine.api import Logprob
from whetstone.serve.worker.spelling import Scorer, Speller


def of_bytes() -> PreTrainedTokenizerFast:
    """As GPT-2 writes tokens, with some merges, a special token and one that was added."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {character: index for index, character in enumerate(alphabet)} | {"he": 256, "Ġt": 257, "Ġthe": 258}
    merges = [("h", "e"), ("Ġ", "t"), ("Ġt", "he")]
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken("<end>", special=True)])
    backend.add_tokens([AddedToken("a token", special=False)])
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<end>")


def of_sentencepiece() -> PreTrainedTokenizerFast:
    """As Llama 2 writes tokens: marks for spaces, bytes for what is no token, and no space before the first word."""
    pieces = ["<unk>", "<end>", *(f"<0x{byte:02X}>" for byte in range(256)), *"▁abcdeht", "he", "▁t", "▁the"]
    vocabulary = {piece: index for index, piece in enumerate(pieces)}
    merges = [("h", "e"), ("▁", "t"), ("▁t", "he")]
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, unk_token="<unk>", byte_fallback=True))
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    backend.add_special_tokens([AddedToken("<end>", special=True), AddedToken("<unk>", special=True)])
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<end>", unk_token="<unk>")


TOKENIZERS = {"bytes": of_bytes(), "sentencepiece": of_sentencepiece()}


def joined(tokenizer: PreTrainedTokenizerFast, token_ids: Sequence[int]) -> bytes:
    scorer = Scorer(Speller(tokenizer))
    scores = [scorer.score(Logprob(token_id, -1.0)) for token_id in token_ids]
    return b"".join(bytes(score.bytes) for score in scores if score.bytes is not None)


@pytest.mark.parametrize("name", TOKENIZERS)
@given(st.text(alphabet=st.sampled_from("the abc\n éß漢😀")))
def test_joined_bytes_are_those_of_the_text(name: str, text: str) -> None:
    tokenizer = TOKENIZERS[name]
    token_ids = tokenizer(text, add_special_tokens=False)["input_ids"] + [tokenizer.eos_token_id]
    decoded = tokenizer.decode(token_ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    assert joined(tokenizer, token_ids) == decoded.encode()


def test_a_part_of_a_character_has_bytes_and_a_replaced_text() -> None:
    tokenizer = TOKENIZERS["bytes"]
    first, *_ = tokenizer("漢")["input_ids"]
    score = Scorer(Speller(tokenizer)).score(Logprob(first, -1.0))
    assert (score.token, score.bytes) == ("\N{REPLACEMENT CHARACTER}", (0xE6,))


@pytest.mark.parametrize("name", TOKENIZERS)
def test_special_tokens_have_a_name_and_say_nothing(name: str) -> None:
    tokenizer = TOKENIZERS[name]
    end = tokenizer.eos_token_id
    score = Scorer(Speller(tokenizer)).score(Logprob(end, -1.0, ((end, -1.0),)))
    assert (score.token, score.bytes, score.token_id) == ("<end>", None, end)
    assert score.top == (score.__class__("<end>", None, end, -1.0),)


def test_an_added_token_is_text_as_it_stands() -> None:
    tokenizer = TOKENIZERS["bytes"]
    added = tokenizer.convert_tokens_to_ids("a token")
    assert Speller(tokenizer).token_bytes(added) == b"a token"


def test_an_id_beyond_the_vocabulary_says_nothing() -> None:
    tokenizer = TOKENIZERS["bytes"]
    assert Speller(tokenizer).token_bytes(5000) is None
