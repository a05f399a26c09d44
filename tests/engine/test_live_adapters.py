"""Adapters that come and go while an engine answers: exact, felt by nobody else, and gone when they leave."""

import gc
import shutil
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, PromptTuningConfig, get_peft_model
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.other import AuxiliaryTrainingWrapper
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel

from tiny_decoders import STOP, adapter, generated, made, prompts, template
from whetstone.engine.answer import Answer
from whetstone.engine.api import Completion, Delta, Request
from whetstone.engine.torch_engine import TorchEngine
from whetstone.errors import UserError

PROMPT = tuple(range(8, 40))
PLAIN: dict[str, Any] = {"target_modules": ["q_proj", "v_proj", "down_proj"]}
KINDS: dict[str, dict[str, Any]] = {
    "plain": {"r": 8, "target_modules": "all-linear", "use_rslora": True},
    "dora": {"target_modules": ["q_proj", "k_proj", "down_proj"], "use_dora": True},
    "embedding": {"target_modules": ["embed_tokens", "up_proj"]},
    "saved": {"target_modules": ["gate_proj"], "modules_to_save": ["lm_head"]},
    "tokens": {"target_modules": ["q_proj"], "trainable_token_indices": [9, 10, 11]},
}


def heard(piece: Delta) -> None:
    assert isinstance(piece.text, str)


def opened(
    name: str, adapters: dict[str, Path] | None = None, dtype: torch.dtype = torch.float64
) -> tuple[TorchEngine, PreTrainedModel]:
    model = made(name, dtype)
    return TorchEngine(model, template(), stop_ids=STOP, adapters=adapters, max_rows=8), model


def finished(engine: TorchEngine, answers: list[Answer]) -> list[Completion]:
    while engine.advance():
        pass
    return [answer.completion for answer in answers if answer.completion is not None]


def tuned(name: str, folder: Path, dtype: torch.dtype = torch.float64) -> PeftModel:
    return PeftModel.from_pretrained(made(name, dtype), folder, autocast_adapter_dtype=False).eval()


def wrapped(model: PreTrainedModel) -> list[torch.nn.Module]:
    """What PEFT has put around layers of a model."""
    return [module for module in model.modules() if isinstance(module, BaseTunerLayer | AuxiliaryTrainingWrapper)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("first", [None, "plain", "dora"])
def test_an_adapter_that_comes_late_answers_as_peft_does_and_nobody_else_notices(
    kind: str, first: str | None, tmp_path: Path
) -> None:
    before = (
        {} if first is None else {"first": adapter(tmp_path / "first", "llama", torch.float64, 0.2, **KINDS[first])}
    )
    late = adapter(tmp_path / "late", "llama", torch.float64, 0.3, **{**KINDS[kind], "r": 2})
    asked = [Request(prompt, 12, adapter=None, logprobs=3) for prompt in prompts(1, 4)]
    asked += [Request(prompt, 12, adapter="first", logprobs=3) for prompt in prompts(2, 4) if first is not None]

    def answered(meanwhile: Callable[[TorchEngine], None]) -> list[Completion]:
        engine, _ = opened("llama", before)
        answers = [engine.begin(request, heard) for request in asked]
        for _ in range(4):
            engine.advance()
        meanwhile(engine)
        completions = finished(engine, answers)
        engine.close()
        return completions

    def load(engine: TorchEngine) -> None:
        engine.load_adapter("late", late)

    alone, beside = answered(lambda engine: None), answered(load)
    for one, other in zip(alone, beside, strict=True):
        assert (one.token_ids, one.logprobs) == (other.token_ids, other.logprobs)

    engine, _ = opened("llama", before)
    engine.load_adapter("late", late)
    models: dict[str | None, torch.nn.Module] = {None: made("llama", torch.float64), "late": tuned("llama", late)}
    if first is not None:
        models["first"] = tuned("llama", before["first"])
    mixed = [Request(prompt, 8, adapter=name) for name in models for prompt in prompts(3, 4)]
    from_the_start, _ = opened("llama", {**before, "late": late})
    for request, completion, other in zip(mixed, engine.generate(mixed), from_the_start.generate(mixed), strict=True):
        assert list(completion.token_ids) == generated(models[request.adapter], request.token_ids, 8)
        assert completion.token_ids == other.token_ids


@pytest.mark.parametrize(
    ("name", "dtype", "options"),
    [
        ("gpt2", torch.float64, {"target_modules": ["c_attn", "c_fc"], "fan_in_fan_out": True}),
        ("opt", torch.float64, {"target_modules": ["fc1", "q_proj"]}),
        ("mixtral", torch.float32, {"target_modules": "all-linear"}),
        ("bloom", torch.float64, {"target_modules": ["query_key_value", "dense"]}),
    ],
)
def test_other_architectures_take_adapters_late_too(
    name: str, dtype: torch.dtype, options: dict[str, Any], tmp_path: Path
) -> None:
    folder = adapter(tmp_path, name, dtype, 0.1, **options)
    engine, model = opened(name, dtype=dtype)
    asked = [Request(prompt, 6, adapter=who) for who in (None, "late") for prompt in prompts(3, 3)]
    models = {None: made(name, dtype), "late": tuned(name, folder, dtype)}
    answers = [engine.begin(request, heard) for request in asked if request.adapter is None]
    engine.advance()
    engine.load_adapter("late", folder)
    for request in asked:
        if request.adapter is not None:
            engine.check(request)
            answers.append(engine.begin(request, heard))
    for request, completion in zip(asked, finished(engine, answers), strict=True):
        assert list(completion.token_ids) == generated(models[request.adapter], request.token_ids, 6)
    late = engine.begin(asked[-1], heard)
    engine.advance()
    engine.unload_adapter("late")
    assert late.completion is not None and late.completion.finish_reason == "cancelled"
    assert not wrapped(model)
    (again,) = engine.generate(asked[:1])
    assert list(again.token_ids) == generated(models[None], asked[0].token_ids, 6)


def test_weights_laid_out_for_the_processor_take_plain_adapters_only(tmp_path: Path) -> None:
    engine, model = opened("llama", dtype=torch.bfloat16)
    if not model.model.layers[0].self_attn.q_proj.weight.isnan().all():
        pytest.skip("this processor has no layout of its own")
    plain = adapter(tmp_path / "plain", "llama", torch.bfloat16, 0.1, **KINDS["plain"])
    engine.load_adapter("plain", plain)
    asked = [Request(prompt, 1, adapter="plain", logprobs=5) for prompt in prompts(3, 4)]
    expected, _ = opened("llama", {"plain": plain}, torch.bfloat16)
    for got, wanted in zip(engine.generate(asked), expected.generate(asked), strict=True):
        assert got.logprobs == wanted.logprobs
    dora = adapter(tmp_path / "dora", "llama", torch.bfloat16, 0.1, **KINDS["dora"])
    with pytest.raises(UserError, match="laid out for this processor take plain LoRA on linear layers only; open"):
        engine.load_adapter("dora", dora)
    engine.forget()
    for got, wanted in zip(engine.generate(asked), expected.generate(asked), strict=True):
        assert got.token_ids == wanted.token_ids


def test_what_an_adapter_answers_or_was_to_answer_is_cancelled_when_it_leaves(tmp_path: Path) -> None:
    engine, _ = opened("llama", {"one": adapter(tmp_path, "llama", torch.float64, 0.2, **PLAIN)})
    told: list[Delta] = []
    running = [engine.begin(Request((*PROMPT, 9 + n), 60, adapter="one"), told.append) for n in range(12)]
    base = engine.begin(Request(PROMPT, 20), heard)
    for _ in range(3):
        engine.advance()
    assert (engine.running, engine.waiting) == (8, 5)
    engine.unload_adapter("one")
    assert [piece.completion.finish_reason for piece in told if piece.completion] == ["cancelled"] * 12
    assert all(answer.completion is not None for answer in running)
    (completion,) = finished(engine, [base])
    assert list(completion.token_ids) == generated(made("llama", torch.float64), PROMPT, 20)
    # It was checked before the adapter left, and is begun afterwards.
    late = engine.begin(Request(PROMPT, 5, adapter="one"), heard)
    assert late.completion is not None and late.completion.finish_reason == "cancelled"
    with pytest.raises(UserError, match=r"no adapter 'one' is loaded \(there: none\)"):
        engine.check(Request(PROMPT, 5, adapter="one"))
    with pytest.raises(UserError, match="no adapter 'one' is loaded; it cannot be unloaded"):
        engine.unload_adapter("one")


def test_prefixes_of_an_adapter_that_left_are_never_used_again(tmp_path: Path) -> None:
    first = adapter(tmp_path / "first", "llama", torch.float64, 0.2, **PLAIN)
    other = adapter(tmp_path / "other", "llama", torch.float64, 0.4, **PLAIN)
    engine, _ = opened("llama", {"named": first, "twin": first})
    request = Request(PROMPT, 4, adapter="named")
    engine.generate([request])
    engine.unload_adapter("named")
    # Another adapter of the same weights is still there.
    assert engine.generate([Request(PROMPT, 4, adapter="twin")])[0].usage.reused_tokens == len(PROMPT) - 1
    engine.unload_adapter("twin")
    for folder in (other, first):
        engine.load_adapter("named", folder)
        (completion,) = engine.generate([request])
        assert completion.usage.reused_tokens == 0
        assert list(completion.token_ids) == generated(tuned("llama", folder), PROMPT, 4)
        engine.unload_adapter("named")


@pytest.mark.parametrize("kept", [{}, {"kept": "plain"}])
def test_fifty_adapters_one_after_the_other_leave_nothing_behind(kept: dict[str, str], tmp_path: Path) -> None:
    folders = [adapter(tmp_path / kind, "llama", torch.float64, 0.2, **options) for kind, options in KINDS.items()]
    there = {name: tmp_path / kind for name, kind in kept.items()}
    engine, model = opened("llama", there)

    def state() -> tuple[list[str], int]:
        return [name for name, _ in model.named_modules()], sum(parameter.numel() for parameter in model.parameters())

    def held() -> int:
        gc.collect()
        return sum(entry.nbytes for entry in gc.get_objects() if isinstance(entry, torch.Tensor))

    before, at_first, gone = state(), held(), []
    for number in range(50):
        engine.load_adapter(f"number{number}", folders[number % len(folders)])
        gone += [weakref.ref(part) for name, part in model.named_parameters() if f"number{number}" in name]
        assert state() != before
        engine.unload_adapter(f"number{number}")
        assert state() == before
    assert held() <= at_first
    assert len(gone) > 200 and not any(part() is not None for part in gone)


def bad(folder: Path, kind: str) -> Path:
    """An adapter that no engine over the Llama can take."""
    if kind == "other model":
        return adapter(folder, "gpt2", torch.float64, 0.1, target_modules=["c_attn"], fan_in_fan_out=True)
    if kind == "prompt":
        prompt = get_peft_model(made("llama"), PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3))
        prompt.save_pretrained(folder)
        return folder
    options: dict[str, dict[str, Any]] = {
        "bias": {"bias": "all"},
        "pissa": {"init_lora_weights": "pissa"},
        "nothing": {"target_modules": ["lm_head"]},
    }
    adapter(
        folder, "llama", torch.float32 if kind == "pissa" else torch.float64, 0.1, **{**PLAIN, **options.get(kind, {})}
    )
    path = folder / "adapter_model.safetensors"
    if kind == "last shape":
        tensors = load_file(path)
        last = sorted(tensors)[-1]
        tensors[last] = tensors[last][:, :-1].contiguous()
        save_file(tensors, path)
    elif kind == "torn":
        path.write_bytes(path.read_bytes()[:-100])
    elif kind == "no configuration":
        (folder / "adapter_config.json").unlink()
    elif kind == "no weights":
        path.unlink()
    elif kind == "garbage":
        (folder / "adapter_config.json").write_text("{")
    elif kind == "nothing":
        text = (folder / "adapter_config.json").read_text().replace("lm_head", "no_such_layer")
        (folder / "adapter_config.json").write_text(text)
    return folder


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("other model", "does not fit the base model"),
        ("last shape", "does not fit the base model"),
        ("torn", "does not fit the base model"),
        ("nothing", "does not fit the base model"),
        ("bias", "would change what the base answers"),
        ("pissa", "would change the weights that the base and other adapters answer with"),
        ("prompt", "puts tokens before the prompt"),
        ("no configuration", "holds no adapter_config.json"),
        ("no weights", r"no \*\.safetensors file"),
        ("garbage", "adapter_config.json cannot be read"),
    ],
)
@pytest.mark.parametrize("first", [None, "plain"])
def test_a_bad_adapter_leaves_the_engine_as_it_was(kind: str, said: str, first: str | None, tmp_path: Path) -> None:
    there = {}
    if first is not None:
        there["first"] = adapter(tmp_path / "first", "llama", torch.float64, 0.2, **KINDS[first])
    engine, model = opened("llama", there)
    request = Request(PROMPT, 10, adapter=None if first is None else "first", logprobs=2)
    before = [id(module) for module in model.modules()]
    (expected,) = engine.generate([request])
    answer = engine.begin(Request((9, *PROMPT), 20), heard)
    engine.advance()
    folder = bad(tmp_path / "bad", kind)
    for _ in range(2):
        with pytest.raises(UserError, match=said):
            engine.load_adapter("bad", folder)
    assert [id(module) for module in model.modules()] == before
    assert finished(engine, [answer])[0].finish_reason in ("stop", "length")
    engine.forget()
    (completion,) = engine.generate([request])
    assert (completion.token_ids, completion.logprobs) == (expected.token_ids, expected.logprobs)
    good = adapter(tmp_path / "good", "llama", torch.float64, 0.3, **PLAIN)
    engine.load_adapter("bad", good)
    (completion,) = engine.generate([Request(PROMPT, 8, adapter="bad")])
    assert list(completion.token_ids) == generated(tuned("llama", good), PROMPT, 8)
    with pytest.raises(UserError, match="an adapter 'bad' is loaded already"):
        engine.load_adapter("bad", good)


@pytest.mark.parametrize("order", [("head", "saved"), ("saved", "head")])
def test_a_module_that_one_adapter_replaces_and_another_adapts_is_refused(
    order: tuple[str, str], tmp_path: Path
) -> None:
    kinds = {**KINDS, "head": {"target_modules": ["o_proj", "lm_head"]}}
    first, second = (adapter(tmp_path / kind, "llama", torch.float64, 0.2, **kinds[kind]) for kind in order)
    engine, model = opened("llama", {"first": first})
    before = [id(module) for module in model.modules()]
    with pytest.raises(UserError):
        engine.load_adapter("second", second)
    assert [id(module) for module in model.modules()] == before
    (completion,) = engine.generate([Request(PROMPT, 8, adapter="first")])
    assert list(completion.token_ids) == generated(tuned("llama", first), PROMPT, 8)


def test_adapters_come_and_go_from_other_threads_while_answers_run(tmp_path: Path) -> None:
    folder = adapter(tmp_path, "llama", torch.float64, 0.2, **PLAIN)
    engine, _ = opened("llama")
    asked = [Request(prompt, 60) for prompt in prompts(7, 6)]
    expected = [generated(made("llama", torch.float64), request.token_ids, 60) for request in asked]
    answers: list[Completion] = []
    stepping = threading.Thread(target=lambda: answers.extend(engine.generate(asked)))
    stepping.start()
    for number in range(5):
        engine.load_adapter(f"number{number}", folder)
        assert len(engine.embed(PROMPT, f"number{number}")) == 32
        engine.unload_adapter(f"number{number}")
    stepping.join(60)
    assert [list(completion.token_ids) for completion in answers] == expected


def test_an_adapter_of_no_numbers_that_comes_late_breaks_its_own_answers_only(tmp_path: Path) -> None:
    config = LoraConfig(r=2, target_modules=["q_proj", "k_proj", "v_proj"], task_type="CAUSAL_LM")
    broken = get_peft_model(made("llama", torch.float64), config)
    for parameter in broken.parameters():
        if parameter.requires_grad:
            parameter.data.fill_(float("nan"))
    broken.save_pretrained(tmp_path)
    engine, _ = opened("llama")
    engine.load_adapter("broken", tmp_path)
    asked = [Request(prompt, 6, adapter="broken" if place % 2 else None) for place, prompt in enumerate(prompts(7, 8))]
    for request, completion in zip(asked, engine.generate(asked), strict=True):
        if request.adapter is None:
            assert list(completion.token_ids) == generated(made("llama", torch.float64), request.token_ids, 6)
        else:
            assert completion.finish_reason == "error"
    with pytest.raises(UserError, match="what are not numbers"):
        engine.embed(PROMPT, "broken")


def test_a_copied_folder_is_the_same_adapter(tmp_path: Path) -> None:
    folder = adapter(tmp_path / "one", "llama", torch.float64, 0.2, **PLAIN)
    shutil.copytree(folder, tmp_path / "copy")
    engine, _ = opened("llama", {"one": folder})
    engine.generate([Request(PROMPT, 2, adapter="one")])
    engine.load_adapter("copy", tmp_path / "copy")
    assert engine.generate([Request(PROMPT, 2, adapter="copy")])[0].usage.reused_tokens == len(PROMPT) - 1


def test_counts_tell_what_is_held() -> None:
    engine, _ = opened("llama")
    assert (engine.cache_bytes, engine.cache_tokens, engine.running, engine.waiting) == (0, 0, 0, 0)
    answer = engine.begin(Request(PROMPT, 5), heard)
    assert (engine.running, engine.waiting) == (0, 1)
    engine.advance()
    assert (engine.running, engine.waiting, engine.cache_tokens) == (1, 0, len(PROMPT))
    # Two layers of keys and values, two heads of eight numbers of eight bytes; rows of 64 tokens.
    assert engine.cache_bytes is not None and engine.cache_bytes % (64 * 2 * 2 * 2 * 8 * 8) == 0 < engine.cache_bytes
    assert answer.token_ids
    finished(engine, [answer])
    assert (engine.running, engine.waiting) == (0, 0)
    engine.close()
    assert (engine.cache_bytes, engine.cache_tokens) == (0, 0)
    one_by_one, _ = opened("bloom")
    waiting = [one_by_one.begin(Request(PROMPT, 3), heard) for _ in range(2)]
    one_by_one.advance()
    assert (one_by_one.running, one_by_one.waiting, one_by_one.cache_tokens) == (1, 1, None)
    assert len(finished(one_by_one, waiting)) == 2
