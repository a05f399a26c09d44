"""Texts as vectors: the mean of what transformers itself says are the last hidden states."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel

from tiny_decoders import BATCHED, CONTEXT_TOKENS, ONE_BY_ONE, STOP, adapter, made, prompts, template
from whetstone.engine.api import Delta, Request
from whetstone.engine.torch_engine import TorchEngine
from whetstone.errors import UserError

TEXT = tuple(range(8, 41))


def expected(model: torch.nn.Module, token_ids: Sequence[int]) -> torch.Tensor:
    """By the definition, on a model that no engine has touched."""
    with torch.inference_mode():
        states = model(torch.tensor([token_ids]), output_hidden_states=True).hidden_states[-1][0]
    return torch.nn.functional.normalize(states.float().mean(dim=0), dim=0)


def assert_same(vector: list[float], other: torch.Tensor, tolerance: float = 1e-4) -> None:
    assert math.isclose(sum(value * value for value in vector), 1, abs_tol=1e-5)
    assert torch.allclose(torch.tensor(vector), other, atol=tolerance, rtol=0)


@pytest.mark.parametrize("name", [*BATCHED, *ONE_BY_ONE])
def test_every_architecture_gives_the_mean_of_its_last_hidden_states(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = expected_of = made(name)
    wanted = [expected(expected_of, text) for text in (TEXT, (9,))]
    engine = TorchEngine(model, template(), stop_ids=STOP)
    assert_same(engine.embed(TEXT), wanted[0])
    assert_same(engine.embed((9,)), wanted[1])
    monkeypatch.setattr("whetstone.engine.torch_core._PREFILL_TOKENS", 7)
    assert_same(engine.embed(TEXT), wanted[0])


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("llama", {"target_modules": ["q_proj", "v_proj", "down_proj"]}),
        ("llama", {"target_modules": ["q_proj", "down_proj"], "use_dora": True}),
        ("llama", {"target_modules": ["q_proj"], "modules_to_save": ["norm"]}),
        ("gpt2", {"target_modules": ["c_attn"], "fan_in_fan_out": True}),
        ("bloom", {"target_modules": ["query_key_value"]}),
    ],
)
def test_an_adapter_reads_otherwise_than_the_base(name: str, options: dict[str, Any], tmp_path: Path) -> None:
    folder = adapter(tmp_path, name, torch.float32, 0.3, **options)
    engine = TorchEngine(made(name), template(), stop_ids=STOP, adapters={"tuned": folder})
    tuned = PeftModel.from_pretrained(made(name), folder).eval()
    assert_same(engine.embed(TEXT, "tuned"), expected(tuned, TEXT))
    assert_same(engine.embed(TEXT), expected(made(name), TEXT))


def test_a_text_is_read_between_the_steps_of_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("whetstone.engine.torch_core._PREFILL_TOKENS", 10)
    engine = TorchEngine(made("llama", torch.float64), template(), stop_ids=frozenset())

    def heard(piece: Delta) -> None:
        assert isinstance(piece.text, str)

    answers = [engine.begin(Request(prompt, 30), heard) for prompt in prompts(3, 4)]
    for _ in range(5):
        engine.advance()
    held = engine.cache_tokens
    assert_same(engine.embed(TEXT), expected(made("llama", torch.float64), TEXT))
    assert engine.cache_tokens == held
    while engine.advance():
        pass
    alone = TorchEngine(made("llama", torch.float64), template(), stop_ids=frozenset())
    for answer, completion in zip(answers, alone.generate([answer.request for answer in answers]), strict=True):
        assert tuple(answer.token_ids) == completion.token_ids


def test_what_cannot_be_read_is_refused() -> None:
    engine = TorchEngine(made("llama"), template(), stop_ids=STOP)
    assert len(engine.embed([9] * CONTEXT_TOKENS)) == 32
    with pytest.raises(UserError, match=r"257 tokens exceed the model's context of 256; shorten the text"):
        engine.embed([9] * (CONTEXT_TOKENS + 1))
    with pytest.raises(UserError, match="without tokens"):
        engine.embed(())
    with pytest.raises(UserError, match="in the prompt, and the model knows"):
        engine.embed((9, 10_000))
    with pytest.raises(UserError, match="no adapter 'tuned' is loaded"):
        engine.embed(TEXT, "tuned")
    engine.close()
    with pytest.raises(UserError, match="closed"):
        engine.embed(TEXT)
