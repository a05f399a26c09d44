"""Generation by mlx-lm: the tokens of transformers, from any thread, whatever was asked before."""

import asyncio
import importlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PreTrainedModel
from transformers.utils import logging

from whetstone.data.example import Message
from whetstone.data.template import Template
from whetstone.engine.api import Completion, Delta, Request
from whetstone.engine.worker import Worker
from whetstone.errors import UserError
from whetstone.models.load import BUILTIN_BASE, load_model, load_template, locate
from whetstone.models.mlx import load_mlx

pytest.importorskip("mlx_lm")
mlx_engine: Any = importlib.import_module("whetstone.engine.mlx_engine")

CONTEXT = 1200
SHAPE = {
    "hidden_size": 32,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": CONTEXT,
    "pad_token_id": 0,
    "eos_token_id": 1,
    "bos_token_id": None,
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500.0,
    "factor": 2.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
KINDS: dict[str, dict[str, Any]] = {
    "llama": {"rope_parameters": LLAMA3},
    "qwen2": {"num_key_value_heads": 2},
    "phi": {},
    "gpt_neox": {"hidden_act": "gelu_new"},
}
PROMPTS = [[5, 6, 7, 8, 9], [5, 6, 7, 11], [5, 6, 7, 8, 9, 10, 11], [40], list(range(20, 60)), [20, 21, 22]]


@pytest.fixture(scope="module")
def template() -> Template:
    return load_template(locate(BUILTIN_BASE), "auto")[0]


def make(folder: Path, kind: str, template: Template) -> PreTrainedModel:
    logging.disable_progress_bar()
    torch.manual_seed(0)
    config = CONFIG_MAPPING[kind](**SHAPE, **KINDS[kind], vocab_size=len(template.tokenizer))
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    for parameter in model.parameters():
        parameter.data.add_(torch.randn_like(parameter), alpha=0.2)
    model.save_pretrained(folder)
    return model


def adapt(model: PreTrainedModel, folder: Path) -> PreTrainedModel:
    adapted = get_peft_model(model, LoraConfig(r=4, lora_alpha=12, target_modules="all-linear"))
    for name, parameter in adapted.named_parameters():
        if "lora_" in name:
            parameter.data.add_(torch.randn_like(parameter), alpha=0.2)
    adapted.eval().save_pretrained(folder)
    return adapted


def expected(model: PreTrainedModel, prompt: list[int], template: Template, new: int = 12) -> tuple[int, ...]:
    stop_ids = sorted(template.stop_ids([1]))
    answer = model.generate(
        input_ids=torch.tensor([prompt]), max_new_tokens=new, do_sample=False, eos_token_id=stop_ids, pad_token_id=0
    )
    return tuple(answer[0, len(prompt) :].tolist())


def ask(engine: Worker, prompt: list[int], new: int = 12) -> Completion:
    (completion,) = engine.generate([Request(tuple(prompt), new)])
    return completion


@pytest.mark.parametrize("kind", KINDS)
def test_greedy_tokens_are_those_of_transformers(kind: str, template: Template, tmp_path: Path) -> None:
    model = make(tmp_path, kind, template)
    engine = mlx_engine.mlx_engine(tmp_path, template)
    assert [ask(engine, prompt).token_ids for prompt in PROMPTS] == [expected(model, p, template) for p in PROMPTS]
    engine.close()


@pytest.mark.parametrize("kind", KINDS)
def test_greedy_tokens_with_an_adapter_are_those_of_peft(kind: str, template: Template, tmp_path: Path) -> None:
    model = make(tmp_path / "base", kind, template)
    bare = [expected(model, p, template) for p in PROMPTS]
    adapted = adapt(model, tmp_path / "adapter")
    engine = mlx_engine.mlx_engine(tmp_path / "base", template, adapter=tmp_path / "adapter")
    answers = [ask(engine, prompt).token_ids for prompt in PROMPTS]
    assert answers == [expected(adapted, p, template) for p in PROMPTS]
    assert answers != bare
    engine.close()


@pytest.fixture(scope="module")
def llama(template: Template, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, PreTrainedModel]:
    folder = tmp_path_factory.mktemp("llama")
    return folder, make(folder, "llama", template)


@pytest.fixture
def engine(llama: tuple[Path, PreTrainedModel], template: Template) -> Iterator[Worker]:
    opened = mlx_engine.mlx_engine(llama[0], template)
    yield opened
    opened.close()


def test_what_a_prompt_shares_with_the_last_sequence_is_not_computed_again(
    engine: Worker, llama: tuple[Path, PreTrainedModel], template: Template
) -> None:
    first = ask(engine, [5, 6, 7, 8, 9])
    # The last token of an answer is never read by the model.
    for prompt, reused in [
        ([5, 6, 7, 8, 9, *first.token_ids[:-1], 30, 31], 5 + len(first.token_ids) - 1),
        ([5, 6, 7, 40, 41], 3),
        ([5, 6, 7, 40, 41], 4),
        ([60, 61], 0),
    ]:
        answer = ask(engine, prompt)
        assert answer.usage.reused_tokens == reused
        assert answer.token_ids == expected(llama[1], prompt, template)


def test_a_prompt_longer_than_what_is_computed_at_once(
    engine: Worker, llama: tuple[Path, PreTrainedModel], template: Template
) -> None:
    prompt = torch.randint(2, 500, (1100,), generator=torch.Generator().manual_seed(0)).tolist()
    assert ask(engine, prompt, 3).token_ids == expected(llama[1], prompt, template, 3)
    again = ask(engine, [*prompt[:-1], 3], 3)
    assert again.usage.reused_tokens == 1099
    assert again.token_ids == expected(llama[1], [*prompt[:-1], 3], template, 3)


def test_more_than_the_allowed_bytes_is_not_kept(llama: tuple[Path, PreTrainedModel], template: Template) -> None:
    engine = mlx_engine.mlx_engine(llama[0], template, cache_bytes=1)
    for _ in range(2):
        answer = ask(engine, PROMPTS[0])
        assert answer.usage.reused_tokens == 0
        assert answer.token_ids == expected(llama[1], PROMPTS[0], template)
    engine.close()


def test_the_longest_sequence(engine: Worker) -> None:
    assert ask(engine, [5] * (CONTEXT - 2), 2).token_ids
    with pytest.raises(UserError, match="exceed the context of 1200"):
        ask(engine, [5] * (CONTEXT - 2), 3)


def test_any_thread_may_step(engine: Worker, llama: tuple[Path, PreTrainedModel], template: Template) -> None:
    """The weights were read in this thread; others step, with the cache that one of them left."""

    async def stream(prompt: list[int]) -> tuple[int, ...]:
        deltas = [delta async for delta in engine.stream(Request(tuple(prompt), 12))]
        assert deltas[-1].completion is not None
        return deltas[-1].completion.token_ids

    answers: dict[int, tuple[int, ...]] = {}

    def in_a_thread(index: int, prompt: list[int]) -> None:
        answers[index] = ask(engine, prompt).token_ids

    for index, prompt in enumerate(PROMPTS):
        if index % 3 == 0:
            answers[index] = asyncio.run(stream(prompt))
        elif index % 3 == 1:
            in_a_thread(index, prompt)
        else:
            thread = threading.Thread(target=in_a_thread, args=(index, prompt))
            thread.start()
            thread.join()
    assert [answers[index] for index in range(len(PROMPTS))] == [expected(llama[1], p, template) for p in PROMPTS]


def test_the_first_step_may_be_in_another_thread(llama: tuple[Path, PreTrainedModel], template: Template) -> None:
    engine = mlx_engine.mlx_engine(llama[0], template)
    answers: list[Completion] = []
    thread = threading.Thread(target=lambda: answers.append(ask(engine, PROMPTS[4])))
    thread.start()
    thread.join()
    assert answers[0].token_ids == expected(llama[1], PROMPTS[4], template)
    engine.close()


def test_an_answer_that_is_left_leaves_no_trace(
    engine: Worker, llama: tuple[Path, PreTrainedModel], template: Template
) -> None:
    async def leave_early() -> None:
        pieces: Any = engine.stream(Request(tuple(PROMPTS[4]), 1000))
        seen: list[Delta] = []
        async for piece in pieces:
            seen.append(piece)
            if len(seen) == 3:
                break
        await pieces.aclose()

    asyncio.run(leave_early())
    for prompt in (PROMPTS[4], [*PROMPTS[4][:10], 7]):
        assert ask(engine, prompt).token_ids == expected(llama[1], prompt, template)


def test_a_step_that_fails_leaves_no_trace(
    llama: tuple[Path, PreTrainedModel], template: Template, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some layers have taken the token then, and others not."""
    loaded = load_mlx(llama[0])
    source = mlx_engine.MlxSource(loaded)
    source.start(PROMPTS[4])
    layer_type = type(loaded.model.layers[1])

    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(layer_type, "__call__", interrupted)
        with pytest.raises(KeyboardInterrupt):
            source.advance(3)
    logits = source.start([*PROMPTS[4], 3])
    assert source.reused_tokens == 0
    with torch.inference_mode():
        wanted = llama[1](torch.tensor([[*PROMPTS[4], 3]])).logits[0, -1]
    torch.testing.assert_close(logits, wanted, atol=1e-4, rtol=0)
    source.close()


def test_bfloat16_weights_give_float32_logits(
    llama: tuple[Path, PreTrainedModel], template: Template, tmp_path: Path
) -> None:
    make(tmp_path, "llama", template).to(torch.bfloat16).save_pretrained(tmp_path)
    logits = mlx_engine.MlxSource(load_mlx(tmp_path)).start(PROMPTS[4])
    assert (logits.dtype, logits.shape) == (torch.float32, (len(template.tokenizer),))
    wide = mlx_engine.MlxSource(load_mlx(tmp_path, dtype="float32")).start(PROMPTS[4])
    assert not torch.equal(logits, wide)


def test_the_shipped_model_answers_as_in_transformers(template: Template) -> None:
    """Where a token differs, the two were all but equally likely."""
    folder = locate(BUILTIN_BASE)
    model = load_model(folder, template="auto", dtype="float32", device=torch.device("cpu")).model
    engine = mlx_engine.mlx_engine(folder, template)
    subjects, ends = (
        ("She go", "The cats sits", "My brother have", "We was"),
        ("to school .", "in a old house .", "happy"),
    )
    prompts = [template.prompt_ids([Message("user", f"{one} {two}")]) for one in subjects for two in ends]
    same = 0
    for prompt in prompts:
        ours, theirs = ask(engine, prompt, 20).token_ids, expected(model, prompt, template, 20)
        same += ours == theirs
        for place, (one, other) in enumerate(zip(ours, theirs, strict=False)):
            if one != other:
                with torch.inference_mode():
                    logits = model(torch.tensor([[*prompt, *theirs[:place]]])).logits[0, -1]
                assert abs(float(logits[one] - logits[other])) < 1e-3
                break
    assert same >= 0.95 * len(prompts)
    engine.close()
