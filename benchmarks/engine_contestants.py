"""Answers a load, or one stream, by one contestant and prints what it took; the worker of engine_vs_peers.py.

Run as: python benchmarks/engine_contestants.py '{"task": "load", "setting": {...}, "folder": "...", ...}'

Imports, loading and a first small load that warms up are left out for all. Everybody hands over token ids and text.
"""

import json
import resource
import statistics
import sys
import time
import warnings
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from engine_load import Answered, Ask, draw_load, draw_prompts
from engine_peers import (
    Answerer,
    Setting,
    bare_llama_cpp,
    continuous,
    llama_cpp,
    padded,
    peer_model,
    runner_up_gaps,
)
from transformers import AutoTokenizer, BitsAndBytesConfig
from transformers.utils import logging

WARM_UP_SEED = 1_000_000
REPEATS = 3
BANDWIDTH_BYTES, BANDWIDTH_REPEATS = 1_600_000_000, 5


@dataclass(frozen=True, slots=True)
class Job:
    """What a worker is asked to do.

    Attributes:
        task: ``load`` answers many prompts, ``stream`` a batch of equal ones, ``bandwidth`` reads memory.
        folder: With ``model/``, ``adapters/`` and one GGUF file for each type.
        seed: Of the prompts.
        threads: Of PyTorch and llama.cpp.
        setting: Who answers.
        prompts: How many at once.
        sample: Of a load, so many are answered by who answers one by one, and compared.
        tokens: Of the prompts and of the answers of a stream.
        dtype: Of the weights.
        device: Where they are.
        nf4: Whether they are quantised.
    """

    task: Literal["load", "stream", "bandwidth"]
    folder: Path
    seed: int
    threads: int
    setting: Setting
    prompts: int = 1
    sample: int = 1
    tokens: tuple[int, int] = (64, 128)
    dtype: Literal["float32", "bfloat16"] = "float32"
    device: str = "cpu"
    nf4: bool = False

    @property
    def model(self) -> Path:
        """Weights and tokenizer."""
        return self.folder / "model"

    @property
    def adapters(self) -> dict[str, Path]:
        """The adapters that the setting asks for, by name."""
        found = sorted((self.folder / "adapters").glob("*"))[: self.setting.adapters]
        return {folder.name: folder for folder in found}

    @property
    def gguf(self) -> Path:
        """The weights for llama.cpp."""
        return self.folder / f"{self.dtype}.gguf"

    @property
    def quantisation(self) -> BitsAndBytesConfig | None:
        """NF4, computed in the type of the other weights."""
        if not self.nf4:
            return None
        return BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=getattr(torch, self.dtype)
        )


def main() -> None:
    """Does the task and prints one JSON object."""
    warnings.simplefilter("ignore")
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    asked = json.loads(sys.argv[1])
    job = Job(**{**asked, "setting": Setting(**asked["setting"]), "folder": Path(asked["folder"])})
    torch.set_num_threads(job.threads)
    result = {"load": _load, "stream": _stream, "bandwidth": _bandwidth}[job.task](job)
    sys.stdout.write(f"\n{json.dumps(result)}\n")


def _load(job: Job) -> dict[str, Any]:
    """Seconds for the whole load; who answers one by one does a part of it, and its seconds are scaled by tokens."""
    tokenizer = AutoTokenizer.from_pretrained(job.model)
    asks = draw_load(tokenizer, job.prompts, job.seed, tuple(job.adapters))
    warm_up = draw_load(tokenizer, min(max(8, job.setting.batch), job.prompts), WARM_UP_SEED, tuple(job.adapters))
    asked = asks[: job.sample] if _one_by_one(job.setting) else asks
    with _opened(job) as answer:
        weights_bytes = _weights_bytes(job)
        answer(warm_up)
        wall_s, processor_s = time.perf_counter(), time.process_time()
        answers = answer(asked)
        wall_s, processor_s = time.perf_counter() - wall_s, time.process_time() - processor_s
    _require_whole(asked, answers)
    tokens, all_tokens = (sum(ask.new_tokens for ask in some) for some in (asked, asks))
    compared = range(min(job.sample, len(asks)))
    return {
        "seconds": wall_s * all_tokens / tokens,
        "processor_seconds": processor_s * all_tokens / tokens,
        "tokens_per_s": tokens / wall_s,
        "answered": len(asked),
        "tokens": all_tokens,
        "weights_bytes": weights_bytes,
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "answers": {row: answers[row].token_ids for row in compared if asks[row].adapter is None},
        "gaps": _gaps(job, asks, answers) if _is_reference(job.setting) else {},
    }


def _stream(job: Job) -> dict[str, Any]:
    """Time to the first token and speed from there to the last, the medians of several goes with other prompts."""
    tokenizer = AutoTokenizer.from_pretrained(job.model)
    first_s, decode_s = [], []
    with _opened(job) as answer:
        weights_bytes = _weights_bytes(job)
        answer(draw_prompts(tokenizer, job.prompts, (job.tokens[0], 8), WARM_UP_SEED))
        for repeat in range(REPEATS):
            asks = draw_prompts(tokenizer, job.prompts, job.tokens, job.seed * REPEATS + repeat)
            begin_s = time.monotonic()
            answers = answer(asks)
            # Of a batch, the answers that began last and ended last.
            began_s = max(answered.token_s[0] for answered in answers)
            first_s.append(began_s - begin_s)
            decode_s.append(max(answered.token_s[-1] for answered in answers) - began_s)
    seconds = statistics.median(decode_s)
    return {
        "seconds": seconds,
        "weights_bytes": weights_bytes,
        "first_token_s": statistics.median(first_s),
        "tokens_per_s": job.prompts * (job.tokens[1] - 1) / seconds,
    }


def _bandwidth(job: Job) -> dict[str, Any]:
    """The best of several sums over a tensor that no cache holds; a GPU is asked for as much again, ten times."""
    repeated = 1 if job.device == "cpu" else 10
    tensor = torch.ones(repeated * BANDWIDTH_BYTES // 4, device=job.device)
    seconds = []
    for _ in range(BANDWIDTH_REPEATS):
        begin_s = time.perf_counter()
        float(tensor.sum())
        seconds.append(time.perf_counter() - begin_s)
    return {"seconds": min(seconds), "bytes_per_s": tensor.numel() * 4 / min(seconds)}


def _opened(job: Job) -> AbstractContextManager[Answerer]:
    setting, tokenizer = job.setting, AutoTokenizer.from_pretrained(job.model)
    match setting.engine:
        case "whet":
            # Not for its peers: what it sets up on import should not be theirs.
            from engine_whet import Machine, open_whet

            machine = Machine(torch.device(job.device), getattr(torch, job.dtype), job.quantisation)
            return open_whet(job.model, machine, job.adapters, setting.batch)
        case "whet on llama.cpp":
            from engine_whet import open_whet_on_llama_cpp

            return open_whet_on_llama_cpp(job.gguf, job.model, job.threads)
        case "llama.cpp":
            return llama_cpp(job.gguf, tokenizer, setting, job.threads)
        case "bare llama.cpp":
            return bare_llama_cpp(job.gguf, setting, job.threads)
    options: dict[str, Any] = {"device_map": {"": job.device}} if job.device != "cpu" else {}
    if job.quantisation is not None:
        options["quantization_config"] = job.quantisation
    model = peer_model(job.model, setting, getattr(torch, job.dtype), options)
    return (padded if setting.engine == "generate" else continuous)(model, tokenizer, setting)


def _weights_bytes(job: Job) -> int | None:
    """What is in memory before the first prompt; of whet alone, whose adapters share a base."""
    if job.setting.engine != "whet":
        return None
    from engine_whet import tensor_bytes

    return tensor_bytes()


def _one_by_one(setting: Setting) -> bool:
    return setting.batch == 1


def _is_reference(setting: Setting) -> bool:
    return setting.engine == "generate" and setting.batch == 1


def _gaps(job: Job, asks: Sequence[Ask], answers: Sequence[Answered]) -> Mapping[int, list[float]]:
    model = peer_model(job.model, job.setting, getattr(torch, job.dtype), {})
    return {row: runner_up_gaps(model, asks[row], answered.token_ids) for row, answered in enumerate(answers)}


def _require_whole(asks: Sequence[Ask], answers: Sequence[Answered]) -> None:
    """An answer that ended early would be work left out.

    Raises:
        RuntimeError: One did.
    """
    for ask, answered in zip(asks, answers, strict=True):
        if len(answered.token_ids) != ask.new_tokens:
            raise RuntimeError(f"an answer of {len(answered.token_ids)} tokens instead of {ask.new_tokens}")


if __name__ == "__main__":
    main()
