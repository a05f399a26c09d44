"""The loss of general text against a slow reference, and the interval of its change against simulation."""

import math
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from torch.nn import functional
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from whetstone.errors import UserError
from whetstone.files import read_jsonl
from whetstone.models.scratch import train_tokenizer
from whetstone.train.batch import IGNORE, Row
from whetstone.train.retention import TextLosses, compare_losses, general_texts, measure_rows, measure_texts

CONTEXT = 32


def tiny(dtype: torch.dtype = torch.float64) -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=300,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=CONTEXT,
        initializer_range=0.3,
        pad_token_id=0,
    )
    return LlamaForCausalLM(config).to(dtype)


MODEL = tiny()
TOKENIZER: PreTrainedTokenizerFast = train_tokenizer(["one two three four"] * 3, 300)


def slow_loss(input_ids: list[int], first: int) -> float:
    """One sequence alone, all logits, token by token, from the token ``first`` on."""
    with torch.no_grad():
        predicted = functional.log_softmax(MODEL(input_ids=torch.tensor([input_ids])).logits[0], dim=-1)
    return -math.fsum(float(predicted[i - 1, input_ids[i]]) for i in range(first, len(input_ids)))


def slow_text(text: str) -> tuple[float, int, int]:
    start = TOKENIZER.eos_token_id if TOKENIZER.bos_token_id is None else TOKENIZER.bos_token_id
    ids = TOKENIZER(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    windows = max(1, math.ceil(len(ids) / (CONTEXT - 1)))
    size, longer = divmod(len(ids), windows)
    total, at = 0.0, 0
    for number in range(windows):
        end = at + size + (number < longer)
        total += slow_loss([start, *ids[at:end]], 1)
        at = end
    return total, len(ids), len(text.encode())


@settings(max_examples=25)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=60), max_size=6))
def test_texts_equal_the_slow_reference(texts: list[str]) -> None:
    measured = measure_texts(MODEL, TOKENIZER, texts)
    slow = [slow_text(text) for text in texts]
    assert measured.nll == pytest.approx([row[0] for row in slow], rel=1e-9)
    assert measured.tokens.tolist() == [row[1] for row in slow]
    assert measured.bytes.tolist() == [row[2] for row in slow]
    assert measured.windowed == sum(row[1] > CONTEXT - 1 for row in slow)


def test_a_text_that_just_fits_is_not_cut() -> None:
    """The token that it begins after takes one place of the context."""
    texts = ["1" * (CONTEXT - 1), "1" * CONTEXT]
    measured = measure_texts(MODEL, TOKENIZER, texts)
    assert measured.tokens.tolist() == [CONTEXT - 1, CONTEXT]
    assert measured.windowed == 1
    assert measured.nll == pytest.approx([slow_text(text)[0] for text in texts], rel=1e-9)


def test_batches_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = general_texts()[:12]
    whole = measure_texts(MODEL, TOKENIZER, texts)
    assert whole.windowed == len(texts)
    monkeypatch.setattr("whetstone.train.retention._BATCH_TOKENS", CONTEXT)
    alone = measure_texts(MODEL, TOKENIZER, texts)
    assert whole.nll == pytest.approx(alone.nll, rel=1e-12)


def test_a_special_token_in_a_text_is_text() -> None:
    end = TOKENIZER.eos_token
    assert measure_texts(MODEL, TOKENIZER, [end]).tokens[0] > 1


sequences = st.lists(
    st.tuples(st.lists(st.integers(1, 299), min_size=2, max_size=20), st.integers(0, 19)).map(
        lambda parts: Row("e", tuple(parts[0]), min(parts[1], len(parts[0])))
    ),
    max_size=6,
)


@settings(max_examples=25)
@given(sequences)
def test_rows_equal_the_slow_reference_on_their_labels(rows: list[Row]) -> None:
    measured = measure_rows(MODEL, TOKENIZER, rows)
    slow = [slow_loss(list(row.input_ids), max(1, row.prompt_tokens)) for row in rows]
    assert measured.nll == pytest.approx(slow, rel=1e-9)
    assert measured.tokens.tolist() == [sum(label != IGNORE for label in row.labels[1:]) for row in rows]


def test_the_end_of_a_turn_has_no_bytes() -> None:
    ids = TOKENIZER("two three", add_special_tokens=False)["input_ids"]
    measured = measure_rows(MODEL, TOKENIZER, [Row("e", (7, *ids, TOKENIZER.eos_token_id), 1)])
    assert measured.tokens.tolist() == [len(ids) + 1]
    assert measured.bytes.tolist() == [len("two three")]


def test_an_adapter_that_learned_nothing_forgets_nothing() -> None:
    model = get_peft_model(tiny(), LoraConfig(r=2, target_modules="all-linear", lora_dropout=0.5)).train()
    base, drawn = tiny(), torch.get_rng_state()
    texts = general_texts()[:5]
    before = measure_texts(model, TOKENIZER, texts)
    kept = compare_losses("general text", before, measure_texts(model, TOKENIZER, texts))
    assert (kept.difference, kept.standard_error, kept.low, kept.high) == (0, 0, 0, 0)
    assert before.nll == pytest.approx(measure_texts(base, TOKENIZER, texts).nll)
    assert model.training
    assert torch.equal(drawn, torch.get_rng_state())


def test_numbers_are_what_they_are_called() -> None:
    tokens, size = np.array([10, 30]), np.array([50, 110])
    before = TextLosses(np.array([20.0, 40.0]), tokens, size, windowed=1)
    kept = compare_losses("general text", before, TextLosses(np.array([21.0, 47.0]), tokens, size, windowed=1))
    assert (kept.texts, kept.tokens, kept.bytes, kept.windowed) == (2, 40, 160, 1)
    assert (kept.nll_before, kept.nll_after) == (60 / 40, 68 / 40)
    assert kept.difference == pytest.approx(8 / 40)
    assert kept.bits_per_byte_before == pytest.approx(60 / math.log(2) / 160)
    # Changes 1 and 7, expected 2 and 6: residuals of 1; sqrt(2 / 1 * (1 + 1)) / 40.
    assert kept.standard_error == pytest.approx(2 / 40)
    assert kept.low is not None
    assert kept.low == pytest.approx(8 / 40 - 12.7062 * 2 / 40, rel=1e-5)


def test_one_text_has_no_interval_and_none_is_refused() -> None:
    one = TextLosses(np.array([20.0]), np.array([10]), np.array([50]))
    kept = compare_losses("general text", one, one)
    assert (kept.difference, kept.standard_error, kept.low, kept.high) == (0, None, None, None)
    with pytest.raises(UserError, match="replay: retention has nothing to measure"):
        nothing = measure_texts(MODEL, TOKENIZER, [""])
        compare_losses("replay", nothing, nothing)
    with pytest.raises(ValueError, match="same texts"):
        compare_losses("x", one, TextLosses(np.array([20.0]), np.array([11]), np.array([50])))


@pytest.mark.parametrize(("skewed", "least"), [(False, 0.94), (True, 0.91)])
def test_the_interval_covers_the_truth_about_as_often_as_it_says(skewed: bool, least: float) -> None:
    """Sixty texts a world, longer ones changing more; skewed changes are those of a few texts that are forgotten."""
    random = np.random.default_rng(0)
    covered, worlds, truth = 0, 1500, 0.1
    for _ in range(worlds):
        tokens = random.integers(40, 110, 60)
        spread = random.exponential(1, 60) - 1 if skewed else random.normal(0, 1, 60)
        before = TextLosses(tokens.astype(np.float64), tokens, tokens * 4)
        after = TextLosses(before.nll + tokens * (truth + 0.1 * spread), tokens, before.bytes)
        kept = compare_losses("x", before, after)
        assert kept.low is not None
        assert kept.high is not None
        covered += kept.low <= truth <= kept.high
    assert least <= covered / worlds <= 0.965


def test_the_shipped_text_is_what_it_says() -> None:
    rows = read_jsonl(Path(str(files("whetstone") / "assets" / "general-text.jsonl")))
    assert len({row["id"] for row in rows}) == len({row["text"] for row in rows}) == len(rows) == 60
    assert len({row["category"] for row in rows}) >= 9
    assert all(set(row) == {"id", "category", "text"} for row in rows)
    assert all(40 <= len(row["text"].split()) <= 90 for row in rows)
    assert general_texts() == [row["text"] for row in rows]
