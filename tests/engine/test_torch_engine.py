"""The engine gives each request the tokens that transformers' own ``generate`` gives it alone."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import (
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from whetstone.engine.api import Request, Sampling
from whetstone.engine.torch_engine import TorchEngine
from whetstone.errors import UserError

SHAPE = {
    "vocab_size": 40,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 3,
}


def made(kind: str) -> PreTrainedModel:
    torch.manual_seed(5)
    if kind == "llama":
        model: PreTrainedModel = LlamaForCausalLM(LlamaConfig(**SHAPE))
    elif kind == "qwen2":
        model = Qwen2ForCausalLM(Qwen2Config(num_key_value_heads=1, **SHAPE))
    else:
        model = GPTNeoXForCausalLM(GPTNeoXConfig(**SHAPE))
    for parameter in model.parameters():
        # Wider weights than at initialisation, so that logits are not nearly equal and greedy choices are not ties.
        parameter.data.normal_(0, 0.4)
    return model.eval()


MODELS = {kind: made(kind) for kind in ("llama", "qwen2", "neox")}
STOP = frozenset({3, 7, 11})

prompts = st.lists(st.lists(st.integers(1, 39), min_size=1, max_size=12), min_size=1, max_size=6)


def reference(model: PreTrainedModel, prompt: list[int], max_new_tokens: int) -> list[int]:
    ids = torch.tensor([prompt])
    output = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=max_new_tokens,
        do_sample=False,
        eos_token_id=sorted(STOP),
        pad_token_id=0,
    )
    tokens: list[int] = output[0, len(prompt) :].tolist()
    return tokens


@pytest.mark.parametrize("kind", MODELS)
@settings(max_examples=15, deadline=None)
@given(batch=prompts, limit=st.integers(1, 14))
def test_greedy_equals_generate_in_any_batch(kind: str, batch: list[list[int]], limit: int) -> None:
    engine = TorchEngine(MODELS[kind], STOP, pad_id=0)
    completions = engine.generate([Request(tuple(prompt), limit) for prompt in batch])
    for prompt, completion in zip(batch, completions, strict=True):
        assert list(completion.token_ids) == reference(MODELS[kind], prompt, limit)
        stopped = completion.token_ids[-1] in STOP
        assert completion.finish_reason == ("stop" if stopped else "length")
        assert stopped or len(completion.token_ids) == limit


@settings(max_examples=20, deadline=None)
@given(batch=prompts, seed=st.integers(0, 1000))
def test_a_sampled_answer_does_not_depend_on_its_neighbours(batch: list[list[int]], seed: int) -> None:
    engine = TorchEngine(MODELS["llama"], STOP, pad_id=0)
    sampling = Sampling(temperature=0.9, top_p=0.95)
    requests = [Request(tuple(prompt), 8, sampling, seed + n) for n, prompt in enumerate(batch)]
    together = engine.generate(requests)
    alone = [engine.generate([request])[0] for request in requests]
    assert [c.token_ids for c in together] == [c.token_ids for c in alone]


def test_times_are_in_order() -> None:
    (completion,) = TorchEngine(MODELS["llama"], frozenset(), pad_id=0).generate([Request((5, 6), 5)])
    timing = completion.timing
    assert len(timing.token_s) == 5
    assert list(timing.token_s) == sorted(timing.token_s)
    assert timing.queued_s < timing.first_token_s < timing.end_s


def test_what_does_not_fit_the_context_is_refused() -> None:
    with pytest.raises(UserError, match="context of 64"):
        TorchEngine(MODELS["llama"], STOP, pad_id=0).generate([Request((5,) * 60, 5)])
