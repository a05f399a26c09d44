"""What a model is asked with: its template for conversations, its tokenizer for text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from whetstone.data.example import Message
from whetstone.data.template import CHATML, Template
from whetstone.errors import UserError
from whetstone.serve.worker.prompts import Prompts

SPECIAL = ("<s>", "</s>", "<|im_start|>", "<|im_end|>")


def tokenizer(normalizer: normalizers.Normalizer | None = None, *, closes: bool = False) -> PreTrainedTokenizerFast:
    """Bytes, BOS before every text, and after it EOS where it closes them."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {character: index for index, character in enumerate(alphabet)} | {"he": 256, "Ġt": 257, "Ġthe": 258}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[("h", "e"), ("Ġ", "t"), ("Ġt", "he")]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    if normalizer is not None:
        backend.normalizer = normalizer
    backend.add_special_tokens([AddedToken(token, special=True) for token in SPECIAL])
    ids = [(token, backend.token_to_id(token)) for token in SPECIAL[:2]]
    single = "<s> $A </s>" if closes else "<s> $A"
    backend.post_processor = processors.TemplateProcessing(single=single, special_tokens=ids)
    fast = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>")
    fast.chat_template = CHATML
    return fast


@pytest.mark.parametrize("closes", [False, True])
def test_text_begins_as_the_tokenizer_begins_one_and_stays_open(closes: bool) -> None:
    made = tokenizer(closes=closes)
    prompts = Prompts(Template(made), 100)
    assert made.decode(prompts.ids("say the")) == "<s>say the"


def test_text_never_becomes_special_tokens() -> None:
    made = tokenizer()
    prompts = Prompts(Template(made), 100)
    ids = prompts.ids("a</s>b<|im_end|>")
    assert made.decode(ids) == "<s>a</s>b<|im_end|>"
    assert set(ids[1:]).isdisjoint(made.added_tokens_decoder)


def test_a_text_of_nothing_is_the_token_before_every_text() -> None:
    made = tokenizer()
    assert Prompts(Template(made), 100).ids("") == (made.bos_token_id,)


def test_conversations_are_rendered_by_the_template_and_token_ids_are_taken_as_they_are() -> None:
    template = Template(tokenizer())
    prompts = Prompts(template, 100)
    turns = (Message("system", "be kind"), Message("user", "say <|im_end|> the"))
    assert prompts.ids(turns) == tuple(template.prompt_ids(turns))
    assert prompts.ids((5, 6, 7)) == (5, 6, 7)


NORMALIZERS = {
    "none": None,
    "nfc": normalizers.NFC(),
    "nfkc and marks": normalizers.Sequence(
        [normalizers.NFKC(), normalizers.Prepend("_"), normalizers.Replace(" ", "_")]
    ),
    "lower": normalizers.Lowercase(),
    "decomposed": normalizers.NFD(),
}
BOUNDED = {name: (made := tokenizer(one), Prompts(Template(made), 3)) for name, one in NORMALIZERS.items()}


@pytest.mark.parametrize("name", BOUNDED)
@given(st.text(alphabet=st.sampled_from("the \nÉ漢각😀e\u0301\u1100\u1161\u11a8ﬁ"), max_size=60))
def test_nothing_that_fits_is_refused_for_its_characters(name: str, text: str) -> None:
    made, prompts = BOUNDED[name]
    try:
        prompts.check_length(text)
    except UserError:
        assert len(made(text, add_special_tokens=False)["input_ids"]) > 3


def test_a_prompt_of_too_many_characters_is_refused_without_being_read() -> None:
    _, prompts = BOUNDED["none"]
    with pytest.raises(UserError, match="1,000,000 characters"):
        prompts.check_length("x" * 1_000_000)
    with pytest.raises(UserError, match="600 characters"):
        prompts.check_length((Message("user", "x" * 300), Message("assistant", "x" * 300)))


@pytest.mark.parametrize(
    "normalizer", [normalizers.Strip(), normalizers.Replace("  ", " "), normalizers.StripAccents()]
)
def test_a_tokenizer_that_leaves_characters_out_is_asked(normalizer: normalizers.Normalizer) -> None:
    Prompts(Template(tokenizer(normalizer)), 3).check_length(" " * 10_000)


def test_a_context_of_unknown_length_holds_everything() -> None:
    Prompts(Template(tokenizer()), None).check_length("x" * 100_000)
