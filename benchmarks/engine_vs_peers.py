"""Answering with a Llama: Whetstone's engine against transformers and llama.cpp.

Run as: .venv/bin/python benchmarks/engine_vs_peers.py            (a load and one stream, at 15 M and 135 M)
        .venv/bin/python benchmarks/engine_vs_peers.py --load --search   (every setting of the peers, once)
        .venv/bin/python benchmarks/engine_vs_peers.py --soak 20000
        .venv/bin/python benchmarks/engine_vs_peers.py --cuda

The load: 256 prompts that share an instruction of 60 tokens, each with 10 to 40 tokens of its own and an answer of 16
to 48, greedy, in float32. Everybody gets the same token ids and the same weights, hands over token ids and text, and is
timed once loaded and warm. A padded batch runs to its longest answer; the wanted tokens count. Who answers one prompt
after the other answers a sample, and its seconds are scaled by tokens. The answers to the sample are compared with
those of ``generate``; where one differs, the gap says by how much the two likeliest tokens differed in their logits.
llama.cpp keeps keys and values in float16 if it is not told otherwise, so it also runs with float32.

One stream: the speed from the first token to the last, beside the most that reading all weights for each token allows.
"""

import argparse
import importlib.util
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from engine_load import SHAPES, weights_file, write_adapters, write_model
from engine_peers import Setting
from engine_tables import agreement, bound_line, load_table, memory_lines, soak_line, stream_table
from harness import Round, benchmark_parser, finish, median_ratio, run_worker, take_turns

WORKER = Path(__file__).with_name("engine_contestants.py")
SOAK = Path(__file__).with_name("engine_soak.py")

WHET, AGAIN, ADAPTERS = "whet", "whet again", "whet, two adapters"
OURS = {WHET: Setting("whet", 64), AGAIN: Setting("whet", 64), ADAPTERS: Setting("whet", 64, adapters=2)}
REFERENCE = "generate, one by one"
LLAMA_CPP = {
    "llama.cpp, one by one, float16 cache": Setting("llama.cpp"),
    "llama.cpp, one by one, float32 cache": Setting("llama.cpp", float32_cache=True),
}

CONTINUOUS = Setting("continuous", 16, page_tokens=16)
PEERS = {
    REFERENCE: Setting("generate"),
    **{f"generate, padded {batch}": Setting("generate", batch, "prompts") for batch in (16, 32, 64)},
    "continuous batching": CONTINUOUS,
}
SEARCHED = {
    **PEERS,
    **{f"generate, padded {batch}, sorted by answers": Setting("generate", batch, "answers") for batch in (16, 32, 64)},
    **{f"continuous, batch {batch}": replace(CONTINUOUS, batch=batch) for batch in (8, 24, 32, 64)},
    **{f"continuous, page {page}": replace(CONTINUOUS, page_tokens=page) for page in (12, 20, 32, 60, 256)},
    **{f"continuous, at most {most} tokens": replace(CONTINUOUS, batch_tokens=most) for most in (128, 256, 1024, 4096)},
    "continuous, eager attention": replace(CONTINUOUS, attention="eager"),
    "continuous, prefill first": replace(CONTINUOUS, scheduler="prefill_first"),
}
"""Of which :data:`PEERS` has the fastest."""

SLOW_TO_START = (AGAIN, "generate, padded 16", "generate, padded 64", "llama.cpp, one by one, float16 cache")
"""Every process takes seconds to start; these are left out of a quick look, since others are alike."""

STREAMS = {
    "generate": Setting("generate"),
    WHET: Setting("whet"),
    AGAIN: Setting("whet"),
    "whet on llama.cpp": Setting("whet on llama.cpp"),
    "bare llama.cpp, float16 cache": Setting("bare llama.cpp"),
    "bare llama.cpp, float32 cache": Setting("bare llama.cpp", float32_cache=True),
}
DTYPES = ("float32", "bfloat16")
PROMPT_TOKENS = 64
NEW_TOKENS = {"tiny": 16, "15 M": 128, "135 M": 64}

CUDA_SHAPES, CUDA_BATCHES, CUDA_NEW_TOKENS = ("Llama-3.2-3B", "Phi-2"), (1, 32), 128


def main() -> None:
    """Runs the sections that were chosen."""
    arguments = _arguments()
    result: dict[str, Any] = {"ratios": {}, "agreement": {}, "rounds": {}}
    with tempfile.TemporaryDirectory() as temporary:
        for name in arguments.shapes if arguments.load or arguments.stream else ():
            folder = Path(temporary) / name
            _write(folder, name)
            if arguments.load:
                _load(arguments, folder, name, result)
            if arguments.stream:
                _stream(arguments, folder, name, result)
        if arguments.soak:
            _soak(arguments, Path(temporary) / "soak", result)
        if arguments.cuda:
            _cuda(arguments, Path(temporary), result)
    finish(arguments, result, ("tokenizers", *(("llama_cpp_python",) if _has_llama_cpp() else ())))


def _arguments() -> argparse.Namespace:
    parser = benchmark_parser(__doc__)
    parser.add_argument("--load", action="store_true", help="many prompts; with --stream what is done without a choice")
    parser.add_argument("--stream", action="store_true", help="one prompt at a time")
    parser.add_argument("--soak", type=int, default=0, metavar="REQUESTS", help="short answers, streamed; memory")
    parser.add_argument("--cuda", action="store_true", help="Llama-3.2-3B and Phi-2 on a GPU, in bfloat16 and NF4")
    parser.add_argument(
        "--shape", dest="shapes", action="append", choices=("tiny", "15 M", "135 M"), help="15 M and 135 M without"
    )
    parser.add_argument("--prompts", type=int, default=256, help="of the load")
    parser.add_argument("--sample", type=int, default=32, help="prompts that are answered one by one, and compared")
    parser.add_argument("--rounds", type=int, default=4, help="an even number: as often forwards as backwards")
    parser.add_argument("--threads", type=int, default=2, help="of every contestant")
    parser.add_argument("--search", action="store_true", help="one round of every setting of the peers")
    arguments = parser.parse_args()
    if not (arguments.load or arguments.stream or arguments.soak or arguments.cuda):
        arguments.load = arguments.stream = True
    arguments.shapes = arguments.shapes or ["15 M", "135 M"]
    if arguments.search:
        arguments.rounds = 1
    if arguments.quick:
        arguments.rounds, arguments.prompts, arguments.sample, arguments.shapes = 1, 24, 8, ["tiny"]
        arguments.soak = min(arguments.soak, 1000)
    arguments.dtypes = DTYPES[:1] if arguments.quick else DTYPES
    return arguments


def _write(folder: Path, name: str) -> None:
    write_model(folder / "model", SHAPES[name])
    write_adapters(folder / "adapters", folder / "model", ("first", "second"))
    if _has_llama_cpp():
        from whetstone.models.gguf import export_gguf  # needs an optional package

        for dtype in ("float32", "bfloat16"):
            export_gguf(folder / "model", folder / f"{dtype}.gguf", dtype)


def _load(arguments: argparse.Namespace, folder: Path, name: str, result: dict[str, Any]) -> None:
    peers = {**(SEARCHED if arguments.search else PEERS), **(LLAMA_CPP if _has_llama_cpp() else {})}
    job = {"task": "load", "prompts": arguments.prompts, "sample": arguments.sample}
    contestants = {**OURS, **peers}
    if arguments.quick:
        contestants = {who: setting for who, setting in contestants.items() if who not in SLOW_TO_START}
    rounds = _rounds(arguments, folder, contestants, job)
    load = f"{arguments.prompts} prompts, {rounds[0][WHET]['tokens']} new tokens"
    sys.stdout.write(f"\nLoad, {name}: {load}, {arguments.threads} threads\n\n{load_table(rounds, WHET, REFERENCE)}")
    sys.stdout.write(memory_lines(rounds, WHET, ADAPTERS))
    sys.stdout.flush()
    result["agreement"][name] = {who: agreement(rounds, who, REFERENCE) for who in contestants}
    _keep(result, f"load, {name}", rounds)


def _stream(arguments: argparse.Namespace, folder: Path, name: str, result: dict[str, Any]) -> None:
    contestants = {
        contestant: setting for contestant, setting in STREAMS.items() if _has_llama_cpp() or "llama" not in contestant
    }
    bytes_per_s = _bytes_per_s(arguments, folder, "cpu")
    for dtype in arguments.dtypes:
        tokens = (PROMPT_TOKENS, NEW_TOKENS[name])
        rounds = _rounds(arguments, folder, contestants, {"task": "stream", "tokens": tokens, "dtype": dtype})
        title = f"One stream, {name}, {dtype}: {tokens[0]} + {tokens[1]} tokens, {arguments.threads} threads"
        sys.stdout.write(f"\n{title}\n\n{stream_table(rounds, WHET)}")
        weights = weights_file(folder / "model").stat().st_size * getattr(torch, dtype).itemsize // 4
        sys.stdout.write(bound_line(bytes_per_s, weights))
        sys.stdout.flush()
        _keep(result, f"stream, {name}, {dtype}", rounds)


def _soak(arguments: argparse.Namespace, folder: Path, result: dict[str, Any]) -> None:
    write_model(folder / "model", SHAPES["tiny"])
    job = {"folder": str(folder), "requests": arguments.soak, "seed": 0, "threads": arguments.threads}
    result["soak"] = run_worker(SOAK, job, arguments.threads)
    sys.stdout.write(soak_line(result["soak"]))


def _cuda(arguments: argparse.Namespace, folder: Path, result: dict[str, Any]) -> None:
    if not torch.cuda.is_available():
        sys.stdout.write("\nCUDA: not measured, there is no GPU here\n")
        return
    contestants = {name: setting for name, setting in STREAMS.items() if "llama" not in name}
    tokens = (PROMPT_TOKENS, 16 if arguments.quick else CUDA_NEW_TOKENS)
    for name in arguments.shapes[:1] if arguments.quick else CUDA_SHAPES:
        place = folder / f"cuda {name}"
        write_model(place / "model", SHAPES[name], "cuda", torch.bfloat16)
        bytes_per_s = _bytes_per_s(arguments, place, "cuda")
        for nf4 in (False, True):
            job = {"task": "stream", "tokens": tokens, "dtype": "bfloat16", "device": "cuda", "nf4": nf4}
            for batch in CUDA_BATCHES:
                settings = {who: replace(setting, batch=batch) for who, setting in contestants.items()}
                rounds = _rounds(arguments, place, settings, {**job, "prompts": batch})
                title = f"CUDA, {name}, {'NF4' if nf4 else 'bfloat16'}, batch {batch}: {tokens[0]} + {tokens[1]} tokens"
                sys.stdout.write(f"\n{title}, {torch.cuda.get_device_name()}\n\n{stream_table(rounds, WHET)}")
                sys.stdout.write(bound_line(bytes_per_s, rounds[0][WHET]["weights_bytes"], batch))
                sys.stdout.flush()
                _keep(result, title, rounds)


def _bytes_per_s(arguments: argparse.Namespace, folder: Path, device: str) -> float:
    job = {"task": "bandwidth", "device": device, "setting": asdict(Setting("whet")), "seed": 0}
    measured = run_worker(WORKER, {**job, "folder": str(folder), "threads": arguments.threads}, arguments.threads)
    return float(measured["bytes_per_s"])


def _rounds(
    arguments: argparse.Namespace, folder: Path, contestants: Mapping[str, Setting], job: Mapping[str, object]
) -> list[Round]:
    where = {"folder": str(folder), "threads": arguments.threads}
    jobs = {name: {**job, **where, "setting": asdict(setting)} for name, setting in contestants.items()}
    return take_turns(WORKER, jobs, arguments.rounds, arguments.threads)


def _keep(result: dict[str, Any], title: str, rounds: Sequence[Round]) -> None:
    """Ratios and numbers; the answers have been compared."""
    result["ratios"][title] = {name: median_ratio(rounds, "seconds", name, WHET) for name in rounds[0]}
    result["rounds"][title] = [
        {
            name: {key: value for key, value in run.items() if key not in ("answers", "gaps")}
            for name, run in one.items()
        }
        for one in rounds
    ]


def _has_llama_cpp() -> bool:
    return importlib.util.find_spec("llama_cpp") is not None and importlib.util.find_spec("gguf") is not None


if __name__ == "__main__":
    main()
