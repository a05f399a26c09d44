"""The engines that whet's is measured beside: generate of transformers, its continuous batching, llama.cpp.

Each is opened once, and answers lists of asks with token ids and text. None of them imports the engine of whet.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from engine_load import CONTEXT_TOKENS, Answered, Ask
from transformers import (
    AutoModelForCausalLM,
    ContinuousBatchingConfig,
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    StoppingCriteriaList,
)

__all__ = ["Answerer", "Setting", "bare_llama_cpp", "continuous", "llama_cpp", "padded", "peer_model", "runner_up_gaps"]

Answerer = Callable[[Sequence[Ask]], list[Answered]]
"""Answers asks, in their order."""


@dataclass(frozen=True, slots=True)
class Setting:
    """One way to answer.

    Attributes:
        engine: ``whet``; ``generate`` and ``continuous`` of transformers; ``llama.cpp`` by llama-cpp-python's own
            ``generate``; ``whet on llama.cpp``; ``bare llama.cpp``, which decodes and chooses nothing.
        batch: Prompts at once: of ``generate`` with left padding, of ``continuous`` at most, of whet ``max_rows``.
        order: How ``generate`` gets its batches: as they come, by the lengths of the prompts, or by those of the
            answers, which nobody knows beforehand.
        attention: Of the model; ``continuous`` knows ``sdpa`` and ``eager``.
        page_tokens: Of a page of ``continuous``; it shares whole pages of equal beginnings.
        batch_tokens: Tokens that ``continuous`` computes at once, at most.
        scheduler: Of ``continuous``.
        float32_cache: Of llama.cpp: keys and values in float32, as whet has it do for float32 weights; it keeps
            float16 if it is not told otherwise.
        adapters: How many adapters whet holds; every other prompt is for one of them.
    """

    engine: Literal["whet", "generate", "continuous", "llama.cpp", "whet on llama.cpp", "bare llama.cpp"]
    batch: int = 1
    order: Literal["as they come", "prompts", "answers"] = "as they come"
    attention: Literal["sdpa", "eager"] = "sdpa"
    page_tokens: int = 32
    batch_tokens: int = 512
    scheduler: Literal["fifo", "prefill_first"] = "fifo"
    float32_cache: bool = False
    adapters: int = 0


def peer_model(folder: Path, setting: Setting, dtype: torch.dtype, options: Mapping[str, Any]) -> PreTrainedModel:
    """The weights as transformers loads them.

    Args:
        folder: Of the model.
        setting: Of the contestant.
        dtype: Of the weights.
        options: Others of ``from_pretrained``: the device, the quantisation.
    """
    return AutoModelForCausalLM.from_pretrained(
        folder, dtype=dtype, attn_implementation=setting.attention, **options
    ).eval()


@contextmanager
def padded(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, setting: Setting) -> Iterator[Answerer]:
    """``generate`` over left-padded batches; each runs to the longest answer in it, and the rest is thrown away."""

    def answer(asks: Sequence[Ask]) -> list[Answered]:
        answers: dict[int, Answered] = {}
        order = sorted(range(len(asks)), key=lambda place: _order(asks[place], setting))
        for start in range(0, len(order), setting.batch):
            places = order[start : start + setting.batch]
            batch = _generate(model, tokenizer, [asks[place] for place in places])
            answers |= zip(places, batch, strict=True)
        return [answers[place] for place in range(len(asks))]

    yield answer


@contextmanager
def continuous(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, setting: Setting) -> Iterator[Answerer]:
    """The continuous batching of transformers, running in its thread until the iterator is closed.

    Its prompts come sorted, as ``generate_batch`` sorts them, to share more pages.
    """
    pages = 2 * setting.batch * (2 * 128 // setting.page_tokens + 2)
    config = ContinuousBatchingConfig(
        page_size=setting.page_tokens,
        num_blocks=pages,
        max_batch_tokens=setting.batch_tokens,
        max_requests_per_batch=setting.batch,
        scheduler_type=setting.scheduler,
    )
    with model.continuous_batching_context_manager(
        generation_config=_greedy(1), continuous_batching_config=config
    ) as manager:

        def answer(asks: Sequence[Ask]) -> list[Answered]:
            names = {}
            for place in sorted(range(len(asks)), key=lambda place: asks[place].prompt, reverse=True):
                ask = asks[place]
                name = manager.add_request(list(ask.prompt), max_new_tokens=ask.new_tokens, eos_token_id=-1)
                names[name] = place
            outputs: dict[int, list[int]] = {}
            while len(outputs) < len(asks):
                result = manager.get_result(timeout=1)
                if result is None and not manager.is_running():
                    raise RuntimeError("the continuous batching of transformers ended early")
                if result is not None and result.is_finished():
                    if result.error is not None:
                        raise RuntimeError(result.error)
                    outputs[names[result.request_id]] = result.generated_tokens
            return [_answered(tokenizer, outputs[place]) for place in range(len(asks))]

        yield answer


@contextmanager
def llama_cpp(file: Path, tokenizer: PreTrainedTokenizerBase, setting: Setting, threads: int) -> Iterator[Answerer]:
    """llama.cpp by llama-cpp-python's own ``generate``, which takes over what the last prompt began alike."""
    llama = _open_llama(file, setting, threads)

    def answer(asks: Sequence[Ask]) -> list[Answered]:
        answers = []
        for ask in asks:
            token_ids: list[int] = []
            token_s = []
            for token_id in llama.generate(list(ask.prompt), top_k=1, temp=0.0):
                token_ids.append(token_id)
                token_s.append(time.monotonic())
                if len(token_ids) == ask.new_tokens:
                    break
            answers.append(_answered(tokenizer, token_ids, token_s))
        return answers

    yield answer
    llama.close()


@contextmanager
def bare_llama_cpp(file: Path, setting: Setting, threads: int) -> Iterator[Answerer]:
    """llama.cpp's own speed: ``llama_decode`` of one token after the other; none is chosen, no logits are read."""
    import llama_cpp as api  # an optional package

    llama = _open_llama(file, setting, threads)
    context = llama.ctx

    def decode(token_ids: Sequence[int]) -> None:
        ids = (api.llama_token * len(token_ids))(*token_ids)
        if api.llama_decode(context, api.llama_batch_get_one(ids, len(token_ids))):
            raise RuntimeError("llama_decode failed")
        api.llama_synchronize(context)

    def answer(asks: Sequence[Ask]) -> list[Answered]:
        answers = []
        for ask in asks:
            api.llama_memory_clear(api.llama_get_memory(context), True)
            decode(ask.prompt)
            token_s = [time.monotonic()]
            for _ in range(ask.new_tokens - 1):
                decode(ask.prompt[-1:])
                token_s.append(time.monotonic())
            answers.append(Answered([], "", tuple(token_s)))
        return answers

    yield answer
    llama.close()


@torch.inference_mode()
def runner_up_gaps(model: PreTrainedModel, ask: Ask, token_ids: Sequence[int]) -> list[float]:
    """How much larger the largest logit was than the next, at each token of an answer: where answers may differ."""
    ids = torch.tensor([[*ask.prompt, *token_ids[:-1]]], device=model.device)
    logits = model(input_ids=ids, use_cache=False, logits_to_keep=len(token_ids)).logits[0].float()
    largest = logits.topk(2).values
    gaps: list[float] = (largest[:, 0] - largest[:, 1]).tolist()
    return gaps


def _open_llama(file: Path, setting: Setting, threads: int) -> Any:
    from llama_cpp import GGML_TYPE_F32, Llama  # an optional package

    cache = GGML_TYPE_F32 if setting.float32_cache else None
    return Llama(
        str(file),
        n_ctx=CONTEXT_TOKENS,
        n_threads=threads,
        n_threads_batch=threads,
        type_k=cache,
        type_v=cache,
        verbose=False,
    )


def _order(ask: Ask, setting: Setting) -> int:
    return {"as they come": 0, "prompts": len(ask.prompt), "answers": ask.new_tokens}[setting.order]


def _generate(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, asks: Sequence[Ask]) -> list[Answered]:
    """One batch, to the longest answer; the times are those of the whole batch."""
    width = max(len(ask.prompt) for ask in asks)
    pad = tokenizer.pad_token_id
    ids = [[pad] * (width - len(ask.prompt)) + list(ask.prompt) for ask in asks]
    mask = [[0] * (width - len(ask.prompt)) + [1] * len(ask.prompt) for ask in asks]
    token_s: list[float] = []

    def clock(input_ids: torch.Tensor, scores: object, **kwargs: object) -> torch.Tensor:
        token_s.append(time.monotonic())
        return torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)

    output = model.generate(
        input_ids=torch.tensor(ids, device=model.device),
        attention_mask=torch.tensor(mask, device=model.device),
        generation_config=_greedy(max(ask.new_tokens for ask in asks)),
        stopping_criteria=StoppingCriteriaList([clock]),
    )
    new = output[:, width:].tolist()
    return [
        _answered(tokenizer, row[: ask.new_tokens], token_s[: ask.new_tokens])
        for row, ask in zip(new, asks, strict=True)
    ]


def _greedy(new_tokens: int) -> GenerationConfig:
    """To exactly this length, the likeliest token each time."""
    return GenerationConfig(max_new_tokens=new_tokens, do_sample=False, eos_token_id=-1, pad_token_id=0)


def _answered(tokenizer: PreTrainedTokenizerBase, token_ids: Sequence[int], token_s: Sequence[float] = ()) -> Answered:
    return Answered(list(token_ids), tokenizer.decode(list(token_ids), skip_special_tokens=True), tuple(token_s))
