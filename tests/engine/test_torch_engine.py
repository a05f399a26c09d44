"""The engine gives each request the tokens that transformers' own ``generate`` gives it alone."""

import asyncio
import copy
import random
import tempfile
import time
from collections import deque
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM

from tiny_decoders import (
    BATCHED,
    CONTEXT_TOKENS,
    LEAN,
    ONE_BY_ONE,
    STOP,
    VOCABULARY,
    adapter,
    generated,
    made,
    prompts,
    template,
)
from whetstone.engine.answer import Answer
from whetstone.engine.api import Completion, Delta, Request, Sampling
from whetstone.engine.decoder import Batched, batched
from whetstone.engine.torch_core import TorchCore
from whetstone.engine.torch_engine import TorchEngine
from whetstone.errors import UserError


@pytest.fixture(scope="module")
def adapters(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Adapters for the Llama: plain ones of two ranks, on other layers, and one with DoRA."""
    folders = {}
    kinds: dict[str, dict[str, Any]] = {
        "narrow": {"r": 2, "target_modules": ["q_proj", "v_proj"]},
        "wide": {"r": 8, "target_modules": "all-linear", "use_rslora": True},
        "dora": {"r": 4, "target_modules": ["k_proj", "down_proj"], "use_dora": True},
        "head": {"r": 4, "target_modules": ["o_proj", "lm_head"]},
        "embedding": {"r": 4, "target_modules": ["embed_tokens", "up_proj"]},
        "saved": {"r": 4, "target_modules": ["gate_proj"], "modules_to_save": ["lm_head"]},
    }
    for seed, (name, options) in enumerate(kinds.items()):
        tuned = get_peft_model(made("llama"), LoraConfig(lora_alpha=16, task_type="CAUSAL_LM", **options))
        torch.manual_seed(seed)
        for parameter in tuned.parameters():
            if parameter.requires_grad:
                parameter.data.normal_(0, 0.3)
        folders[name] = tmp_path_factory.mktemp("adapters") / name
        tuned.save_pretrained(folders[name])
    return folders


@pytest.mark.parametrize("name", BATCHED)
def test_every_architecture_gives_what_generate_gives(name: str) -> None:
    model = made(name)
    asked = prompts(1, 24)
    rng = random.Random(2)
    lengths = [rng.randrange(1, 16) for _ in asked]
    expected = [generated(model, prompt, length) for prompt, length in zip(asked, lengths, strict=True)]
    engine = TorchEngine(model, template(), stop_ids=STOP, max_rows=10)
    completions = engine.generate([Request(*pair) for pair in zip(asked, lengths, strict=True)])
    assert [list(completion.token_ids) for completion in completions] == expected
    assert sum(completion.usage.reused_tokens for completion in completions) > 200
    for completion, length in zip(completions, lengths, strict=True):
        assert completion.finish_reason == ("stop" if completion.token_ids[-1] in STOP else "length")
        assert completion.usage.new_tokens == len(completion.token_ids) <= length


@pytest.mark.parametrize("name", ONE_BY_ONE)
def test_other_architectures_answer_one_by_one(name: str) -> None:
    model = made(name)
    assert batched(model, {}) is None
    asked = prompts(1, 5)
    expected = [generated(model, prompt, 6) for prompt in asked]
    completions = TorchEngine(model, template(), stop_ids=STOP).generate([Request(prompt, 6) for prompt in asked])
    assert [list(completion.token_ids) for completion in completions] == expected


@pytest.mark.parametrize("name", BATCHED)
def test_the_lean_pass_is_used_where_it_is_known(name: str) -> None:
    opened = batched(made(name), {})
    assert opened is not None
    assert (opened.lean is not None) == (name in LEAN)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize(
    "names", [("narrow", "wide"), ("narrow", "dora"), ("head", "narrow"), ("saved", "narrow"), ("wide", "embedding")]
)
def test_base_and_adapters_share_a_batch(names: tuple[str, ...], dtype: torch.dtype, adapters: dict[str, Path]) -> None:
    chosen = {name: adapters[name] for name in names}
    by_adapter: dict[str | None, torch.nn.Module] = {None: made("llama", dtype)}
    by_adapter |= {
        name: PeftModel.from_pretrained(made("llama", dtype), folder, autocast_adapter_dtype=False).eval()
        for name, folder in chosen.items()
    }
    asked = prompts(3, 18)
    who = [(None, *names)[index % (len(names) + 1)] for index in range(len(asked))]
    base = made("llama", dtype)
    engine = TorchEngine(base, template(), stop_ids=STOP, adapters=chosen, max_rows=12)
    completions = engine.generate([Request(prompt, 8, adapter=name) for prompt, name in zip(asked, who, strict=True)])
    same = sum(
        list(completion.token_ids) == generated(by_adapter[name], prompt, 8)
        for completion, prompt, name in zip(completions, asked, who, strict=True)
    )
    # What bfloat16 rounds otherwise in a batch makes another token of a near tie.
    assert same == len(asked) if dtype == torch.float64 else same >= 0.6 * len(asked)
    plain = TorchEngine(made("llama", dtype), template(), stop_ids=STOP).generate([Request(p, 8) for p in asked])
    assert any(
        completion.token_ids != other.token_ids
        for completion, other, name in zip(completions, plain, who, strict=True)
        if name is not None
    )


def test_a_prefix_of_another_adapter_is_not_reused(adapters: dict[str, Path]) -> None:
    chosen = {name: adapters[name] for name in ("narrow", "wide")}
    engine = TorchEngine(made("llama"), template(), stop_ids=STOP, adapters=chosen)
    prompt = tuple(range(8, 48))
    for name in (None, "narrow", "wide"):
        (completion,) = engine.generate([Request(prompt, 4, adapter=name)])
        assert completion.usage.reused_tokens == 0
    (again,) = engine.generate([Request(prompt, 4, adapter="wide")])
    assert again.usage.reused_tokens == len(prompt) - 1
    engine.forget()
    (anew,) = engine.generate([Request(prompt, 4, adapter="wide")])
    assert anew.usage.reused_tokens == 0
    assert anew.token_ids == again.token_ids


@cache
def exact() -> Batched:
    """A Llama in float64, where rounding cannot turn a choice, with two adapters; all schedules share it."""
    with tempfile.TemporaryDirectory() as folder:
        targets = {"first": ["q_proj", "v_proj"], "second": ["o_proj", "gate_proj", "up_proj", "down_proj"]}
        folders = {
            name: adapter(Path(folder) / name, "llama", torch.float64, 0.3, r=rank, target_modules=modules)
            for rank, (name, modules) in enumerate(targets.items(), 2)
        }
        opened = batched(made("llama", torch.float64), folders)
    assert opened is not None
    return opened


def core(max_rows: int, cache_bytes: int | None = None) -> TorchCore:
    return TorchCore(
        exact(),
        template().tokenizer,
        stop_ids=STOP,
        context_tokens=CONTEXT_TOKENS,
        max_rows=max_rows,
        cache_bytes=cache_bytes,
    )


def heard(piece: Delta) -> None:
    assert isinstance(piece.text, str)


@cache
def alone(request: Request) -> Completion:
    single = core(max_rows=1)
    answer = single.submit(request, heard)
    while single.step():
        pass
    assert answer.completion is not None
    return answer.completion


samplings = st.sampled_from(
    [Sampling(), Sampling(0.9), Sampling(1.2, top_p=0.8), Sampling(1, top_k=5), Sampling(0.7, repetition_penalty=1.3)]
)
SHARED = tuple(range(10, 40))
requests = st.builds(
    lambda shared, own, new, sampling, seed, adapted, stop: Request(
        (*SHARED[:shared], *own), new, sampling, seed, adapted, stop=("w9",) if stop else ()
    ),
    st.sampled_from([0, 5, 20, 30]),
    st.lists(st.integers(8, 14), min_size=1, max_size=30),
    st.integers(1, 12),
    samplings,
    st.integers(0, 3),
    st.sampled_from([None, "first", "second"]),
    st.booleans(),
)
events = st.one_of(
    st.tuples(st.just("arrive"), requests),
    st.tuples(st.just("cancel"), st.integers(0, 20)),
    st.tuples(st.just("step"), st.integers(1, 5)),
    st.tuples(st.just("forget"), st.just(0)),
)


@settings(max_examples=1000)
@given(st.lists(events, max_size=25), st.integers(1, 6), st.sampled_from([None, 3 * 64 * 1024]))
def test_any_schedule_gives_each_request_the_tokens_it_gets_alone(
    schedule: list[tuple[str, Any]], max_rows: int, cache_bytes: int | None
) -> None:
    shared = core(max_rows, cache_bytes)
    answers: list[Answer] = []
    for what, value in schedule:
        if what == "arrive":
            shared.check(value)
            answers.append(shared.submit(value, heard))
        elif what == "cancel" and value < len(answers):
            shared.cancel(answers[value])
        elif what == "forget":
            shared.forget()
        else:
            for _ in range(value):
                shared.step()
    for _ in range(2000):
        if not shared.step():
            break
    for answer in answers:
        assert answer.completion is not None
        expected = alone(answer.request)
        if answer.completion.finish_reason == "cancelled":
            assert expected.token_ids[: len(answer.token_ids)] == answer.completion.token_ids
        else:
            assert answer.completion.token_ids == expected.token_ids
            assert answer.completion.text == expected.text
            assert answer.completion.finish_reason == expected.finish_reason
    assert all(row is None for slab in shared._store.slabs for row in slab.rows)


def test_a_long_prompt_is_computed_in_parts_beside_running_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("whetstone.engine.torch_core._PREFILL_TOKENS", 7)
    asked = [Request(prompt, 9) for prompt in prompts(5, 12)]
    shared = core(max_rows=5)
    answers = [shared.submit(request, heard) for request in asked]
    while shared.step():
        pass
    assert [answer.completion.token_ids for answer in answers if answer.completion] == [
        alone(request).token_ids for request in asked
    ]


def test_a_cancelled_request_frees_its_row_for_the_next() -> None:
    shared = core(max_rows=1)
    first = shared.submit(Request(SHARED, 50), heard)
    second = shared.submit(Request((*SHARED, 9), 3), heard)
    shared.step()
    assert first.token_ids and not second.token_ids
    shared.cancel(first)
    shared.step()
    assert second.token_ids
    assert second.reused_tokens == len(SHARED)


def test_a_deadline_ends_running_and_waiting_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    shared = core(max_rows=1)
    soon = time.monotonic() + 100
    running = shared.submit(Request((9, 12), 200, deadline_s=soon), heard)
    waiting = shared.submit(Request((9, 11), 5, deadline_s=soon), heard)
    patient = shared.submit(Request((9, 10), 5), heard)
    shared.step()
    assert running.token_ids and running.completion is None
    monkeypatch.setattr("time.monotonic", lambda: soon + 1)
    while shared.step():
        pass
    ends = [answer.completion.finish_reason for answer in (running, waiting, patient) if answer.completion]
    assert ends == ["deadline", "deadline", alone(patient.request).finish_reason]
    assert waiting.completion is not None and waiting.completion.timing.first_token_s is None


def test_what_does_not_fit_is_refused_and_nothing_is_truncated() -> None:
    engine = TorchEngine(made("llama"), template(), stop_ids=STOP)
    fits = Request(tuple([9] * 200), 56)
    assert engine.generate([fits])[0].token_ids
    with pytest.raises(UserError, match="prompt of 200 tokens and an answer of 57 exceed the model's context of 256"):
        engine.generate([Request((9,), 2), Request(tuple([9] * 200), 57)])
    with pytest.raises(UserError, match="without tokens"):
        engine.generate([Request((), 5)])
    with pytest.raises(UserError, match="max_new_tokens: 0"):
        engine.generate([Request((9,), 0)])
    with pytest.raises(UserError, match=r"no adapter 'tuned' is loaded \(there: none\)"):
        engine.generate([Request((9,), 5, adapter="tuned")])
    with pytest.raises(UserError, match="max_rows: 0"):
        TorchEngine(made("llama"), template(), stop_ids=STOP, max_rows=0)
    small = TorchEngine(made("llama"), template(), stop_ids=STOP, cache_bytes=50_000)
    assert small.generate([Request((9,), 60)])[0].token_ids
    with pytest.raises(UserError, match=r"need 0\.00 GiB of keys and values.*lower max_new_tokens"):
        small.generate([Request((9,), 250)])


def test_an_adapter_of_no_numbers_breaks_its_own_answers_only(adapters: dict[str, Path], tmp_path: Path) -> None:
    broken = get_peft_model(made("llama"), LoraConfig(r=2, target_modules=["q_proj", "k_proj", "v_proj"]))
    for parameter in broken.parameters():
        if parameter.requires_grad:
            parameter.data.fill_(float("nan"))
    broken.save_pretrained(tmp_path)
    engine = TorchEngine(
        made("llama"), template(), stop_ids=STOP, adapters={"broken": tmp_path, "wide": adapters["wide"]}, max_rows=4
    )
    asked = prompts(7, 12)
    expected = [generated(made("llama"), prompt, 6) for prompt in asked]
    for _ in range(2):
        who = ["broken" if index % 3 == 0 else None for index in range(len(asked))]
        completions = engine.generate([Request(p, 6, adapter=name) for p, name in zip(asked, who, strict=True)])
        for completion, name, tokens in zip(completions, who, expected, strict=True):
            if name == "broken":
                assert completion.finish_reason == "error"
                assert "not numbers" in str(completion.error)
            else:
                assert list(completion.token_ids) == tokens


def test_logprobs_constraints_and_stop_strings_reach_the_answer() -> None:
    engine = TorchEngine(made("llama"), template(), stop_ids=STOP)
    prompt = prompts(9, 1)[0]
    (told,) = engine.generate([Request(prompt, 5, logprobs=2)])
    assert told.logprobs is not None
    assert [entry.token_id for entry in told.logprobs] == list(told.token_ids)
    with torch.inference_mode():
        logits = made("llama")(torch.tensor([prompt])).logits[0, -1]
    assert told.logprobs[0].logprob == pytest.approx(float(logits.log_softmax(-1).max()), abs=1e-4)
    assert len(told.logprobs[0].top) == 2
    word = told.text.split()[1]
    (stopped,) = engine.generate([Request(prompt, 5, stop=(word,))])
    assert stopped.finish_reason == "stop"
    assert word not in stopped.text and told.text.startswith(stopped.text)


def test_streams_and_batches_run_at_once() -> None:
    engine = TorchEngine(made("llama", torch.float64), template(), stop_ids=STOP)
    asked = [Request(prompt, 12) for prompt in prompts(11, 10)]

    async def pieces(request: Request) -> list[Delta]:
        return [piece async for piece in engine.stream(request)]

    async def everything() -> tuple[list[list[Delta]], list[Completion]]:
        batch = asyncio.to_thread(engine.generate, asked)
        streams = asyncio.gather(*map(pieces, asked))
        return await streams, await batch

    streams, completions = asyncio.run(everything())
    engine.close()
    for request, told, completion in zip(asked, streams, completions, strict=True):
        last = told[-1].completion
        assert last is not None
        assert last.token_ids == completion.token_ids == alone(request).token_ids
        assert "".join(piece.text for piece in told) == last.text


def test_adapters_cost_no_second_copy_of_the_weights(adapters: dict[str, Path]) -> None:
    model = made("llama")
    before = {
        parameter.untyped_storage().data_ptr(): parameter.untyped_storage().nbytes() for parameter in model.parameters()
    }
    TorchEngine(model, template(), stop_ids=STOP, adapters={"narrow": adapters["narrow"]})
    after = {
        parameter.untyped_storage().data_ptr(): parameter.untyped_storage().nbytes() for parameter in model.parameters()
    }
    assert sum(after.values()) < 1.1 * sum(before.values())


def test_the_model_stays_as_it_was_where_it_is_refused() -> None:
    model = made("bloom")
    untouched = copy.deepcopy(model.state_dict())
    attention = model.config._attn_implementation
    assert batched(model, {}) is None
    assert model.config._attn_implementation == attention
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in untouched.items())


@pytest.mark.parametrize(
    ("name", "dtype", "size", "options"),
    [
        # Layers that are given tokens without the dimension of the batch.
        ("opt", torch.float32, 0.1, {"target_modules": ["fc1", "fc2", "q_proj"]}),
        ("opt", torch.float32, 0.1, {"target_modules": ["fc1"], "use_dora": True}),
        # So little that a trial takes it for rounding.
        ("llama", torch.bfloat16, 0.02, {"target_modules": ["q_proj", "v_proj", "down_proj"], "use_dora": True}),
        ("llama", torch.float32, 2e-4, {"target_modules": ["q_proj"], "modules_to_save": ["norm"]}),
        ("llama", torch.float32, 0.1, {"target_modules": ["q_proj"], "trainable_token_indices": [9, 10, 11]}),
        ("llama", torch.float32, 0.1, {"target_modules": "all-linear", "rank_pattern": {"up_proj": 7}}),
        ("qwen2", torch.float32, 0.1, {"target_modules": ["q_proj", "v_proj"], "lora_bias": True}),
        # Router and experts.
        ("mixtral", torch.float32, 0.1, {"target_modules": "all-linear"}),
    ],
)
def test_adapters_of_every_kind_are_exact(
    name: str, dtype: torch.dtype, size: float, options: dict[str, Any], tmp_path: Path
) -> None:
    folder = adapter(tmp_path, name, dtype, size, **options)
    engine = TorchEngine(made(name, dtype), template(), stop_ids=STOP, adapters={"tuned": folder})
    models: dict[str | None, torch.nn.Module] = {None: made(name, dtype)}
    models["tuned"] = PeftModel.from_pretrained(made(name, dtype), folder).eval()
    asked = [Request(prompt, 1, adapter=who, logprobs=20) for who in models for prompt in prompts(3, 6)]
    tolerance = 0.05 if dtype == torch.bfloat16 else 1e-4
    for request, completion in zip(asked, engine.generate(asked), strict=True):
        with torch.inference_mode():
            logits = models[request.adapter](torch.tensor([request.token_ids])).logits[0, -1]
        expected = logits.float().log_softmax(-1)
        assert completion.logprobs is not None
        for token_id, logprob in completion.logprobs[0].top:
            assert logprob == pytest.approx(float(expected[token_id]), abs=tolerance)


def test_an_adapter_that_would_change_the_base_is_refused(tmp_path: Path) -> None:
    folder = adapter(tmp_path, "qwen2", torch.float32, 0.1, target_modules=["q_proj"], bias="all")
    with pytest.raises(UserError, match="trained with bias='all', it would change what the base answers"):
        TorchEngine(made("qwen2"), template(), stop_ids=STOP, adapters={"tuned": folder})


@pytest.mark.parametrize(
    "rules",
    [
        {"rope_type": "longrope", "short_factor": [1.0] * 4, "long_factor": [4.0] * 4, "factor": 4.0},
        {"rope_type": "dynamic", "factor": 4.0},
    ],
)
def test_an_answer_does_not_depend_on_a_longer_one_beside_it(rules: dict[str, Any]) -> None:
    model = made("llama", torch.float64)
    settings = model.config.to_dict() | {"rope_parameters": {**rules, "original_max_position_embeddings": 64}}
    settings["rope_parameters"]["rope_theta"] = 10_000.0
    stretched = AutoModelForCausalLM.from_config(type(model.config)(**settings)).double().eval()
    stretched.load_state_dict(model.state_dict())
    engine = TorchEngine(stretched, template(), stop_ids=frozenset())
    short, long = Request(tuple(range(8, 20)), 12), Request(tuple(8 + n % 40 for n in range(150)), 40)
    (alone,) = engine.generate([short])
    engine.forget()
    assert engine.generate([long, short])[1].token_ids == alone.token_ids


def test_two_engines_do_not_share_a_model() -> None:
    model = made("llama")
    TorchEngine(model, template(), stop_ids=STOP)
    with pytest.raises(UserError, match="an engine has taken this model over; load it again"):
        TorchEngine(model, template(), stop_ids=STOP)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"token_ids": (9, VOCABULARY)}, "from 9 to 60 in the prompt, and the model knows 0 to 59"),
        ({"token_ids": (9, -1)}, "from -1 to 9 in the prompt"),
        ({"token_ids": (9, 2**70)}, "in the prompt, and the model knows 0 to 59"),
        ({"logprobs": -1}, "logprobs: -1 is out of range; give 0 or more"),
        ({"sampling": Sampling(-1)}, "temperature: -1 is out of range"),
        ({"sampling": Sampling(1e-40)}, "temperature: 1e-40 is out of range"),
        ({"sampling": Sampling(float("nan"))}, "temperature: nan is out of range"),
        ({"sampling": Sampling(1, top_p=0)}, "top_p: 0 is out of range; give a share above 0, up to 1"),
        ({"sampling": Sampling(1, top_k=0)}, "top_k: 0 is out of range; give 1 or more"),
        ({"sampling": Sampling(1, min_p=2)}, "min_p: 2 is out of range; give a share from 0 to 1"),
        ({"sampling": Sampling(repetition_penalty=0)}, "repetition_penalty: 0 is out of range"),
    ],
)
def test_what_no_token_can_be_chosen_by_is_refused_and_spoils_nothing(options: dict[str, Any], said: str) -> None:
    shared = core(max_rows=2)
    with pytest.raises(UserError, match=said):
        shared.check(Request(**{"token_ids": (9, 10), "max_new_tokens": 3, **options}))
    shared.check(Request((9, 10), 3, sampling=Sampling(1e-6, 1.0, 1, 1.0, 0.1), logprobs=0))


def test_a_prompt_of_no_numbers_that_is_cancelled_half_way_spoils_nobody(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = adapter(tmp_path, "llama", torch.float64, float("nan"), target_modules=["q_proj", "k_proj", "v_proj"])
    monkeypatch.setattr("whetstone.engine.torch_core._PREFILL_TOKENS", 30)
    opened = batched(made("llama", torch.float64), {"broken": folder})
    assert opened is not None
    shared = TorchCore(
        opened, template().tokenizer, stop_ids=STOP, context_tokens=CONTEXT_TOKENS, max_rows=2, cache_bytes=None
    )
    broken = shared.submit(Request(SHARED * 2, 4, adapter="broken"), heard)
    # Beside a longer one, a short one meets what its row held before, with a weight of zero.
    long, short = Request((*SHARED, 9, 9, 9), 20), Request(SHARED[3:9], 50)
    shared.step()
    assert broken.completion is None and not broken.token_ids
    shared.cancel(broken)
    answers = [shared.submit(request, heard) for request in (long, short)]
    while shared.step():
        pass
    for answer in answers:
        assert answer.completion is not None
        assert answer.completion.token_ids == alone(answer.request).token_ids


def test_twenty_thousand_waiting_requests_cost_a_step_nothing() -> None:
    looked = 0

    class Watched(deque[Any]):
        def __iter__(self) -> Iterator[Any]:
            nonlocal looked
            for entry in super().__iter__():
                looked += 1
                yield entry

        def popleft(self) -> Any:
            nonlocal looked
            looked += 1
            return super().popleft()

    shared = core(max_rows=4)
    shared._waiting = Watched()
    request = Request((9, 10), 30, deadline_s=time.monotonic() + 3600)
    answers = [shared.submit(request, heard) for _ in range(20_000)]
    for _ in range(20):
        assert shared.step()
    for answer in answers[50:]:
        shared.cancel(answer)
    assert looked < 200
    while shared.step():
        pass
    assert looked < 21_000
    assert {answer.completion.finish_reason for answer in answers[50:] if answer.completion} == {"cancelled"}
    assert {answer.completion.token_ids for answer in answers[:50] if answer.completion} == {alone(request).token_ids}


def test_closing_gives_the_memory_of_running_requests_back() -> None:
    shared = core(max_rows=2)
    shared.submit(Request(SHARED, 50), heard)
    shared.step()
    (slab,) = shared._store.slabs
    assert slab.bytes > 0
    shared.close()
    assert slab.bytes == 0
