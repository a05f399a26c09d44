"""Asks one engine for very many short answers and watches its memory; the worker of engine_vs_peers.py --soak.

Run as: python benchmarks/engine_soak.py '{"folder": "...", "requests": 20000, "seed": 0, "threads": 2}'

Requests arrive in chunks of 1 to 100; those of a chunk are streamed at once, and one in ten is left after its first or
second piece. What the engine keeps of earlier prompts is limited, so that the limit is reached long before memory is
first looked at.
"""

import asyncio
import json
import random
import sys
import time
import warnings
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import psutil
import torch

from whetstone.engine.api import Delta, Engine, Request
from whetstone.engine.torch_engine import TorchEngine
from whetstone.models.load import load_template, load_weights

PROMPT_TOKENS = 8
NEW_TOKENS = (4, 8)
CHUNK = (1, 100)
CACHE_BYTES = 4 * 2**20
LEFT_SHARE = 0.1
SETTLED_REQUESTS = 1000
"""Memory is looked at first when a twentieth of the requests are answered, or so many."""


@dataclass(slots=True)
class _Watch:
    """What happened so far."""

    begun: int = 0
    finished: int = 0
    left: int = 0
    tokens: int = 0
    open: int = 0
    most_open: int = 0
    settled_bytes: int = 0
    process: psutil.Process = field(default_factory=psutil.Process)


def main() -> None:
    """Streams all requests and prints one JSON object."""
    warnings.simplefilter("ignore")
    asked = json.loads(sys.argv[1])
    torch.set_num_threads(asked["threads"])
    folder = Path(asked["folder"]) / "model"
    template, _ = load_template(folder, "auto")
    model = load_weights(folder, dtype=torch.float32, device=torch.device("cpu"))
    engine = TorchEngine(model, template, cache_bytes=CACHE_BYTES)
    watch = _Watch()
    begin_s = time.perf_counter()
    asyncio.run(_arrive(engine, watch, asked["requests"], random.Random(asked["seed"]), model.config.vocab_size))
    seconds = time.perf_counter() - begin_s
    end_bytes = watch.process.memory_info().rss
    engine.close()
    result = {
        "seconds": seconds,
        "requests": watch.begun,
        "finished": watch.finished,
        "left": watch.left,
        "tokens": watch.tokens,
        "most_streams_at_once": watch.most_open,
        "settled_bytes": watch.settled_bytes,
        "end_bytes": end_bytes,
        "growth_percent": 100 * (end_bytes / watch.settled_bytes - 1),
    }
    sys.stdout.write(f"\n{json.dumps(result)}\n")


async def _arrive(engine: Engine, watch: _Watch, requests: int, draw: random.Random, vocabulary: int) -> None:
    settled = min(SETTLED_REQUESTS, requests // 20)
    while watch.begun < requests:
        chunk = min(draw.randint(*CHUNK), requests - watch.begun)
        streams = [_listen(engine, watch, _request(draw, vocabulary), _pieces(draw)) for _ in range(chunk)]
        await asyncio.gather(*streams)
        if not watch.settled_bytes and watch.begun >= settled:
            watch.settled_bytes = watch.process.memory_info().rss


async def _listen(engine: Engine, watch: _Watch, request: Request, pieces: int | None) -> None:
    """Streams one answer; to stop listening early cancels it."""
    watch.begun += 1
    watch.open += 1
    watch.most_open = max(watch.most_open, watch.open)
    heard = 0
    # Every engine's stream is an asynchronous generator; closed at once, not when it is collected.
    async with aclosing(cast(AsyncGenerator[Delta, None], engine.stream(request))) as stream:
        async for piece in stream:
            heard += 1
            if piece.completion is not None:
                watch.finished += 1
                watch.tokens += len(piece.completion.token_ids)
            elif heard == pieces:
                watch.left += 1
                break
    watch.open -= 1


def _request(draw: random.Random, vocabulary: int) -> Request:
    prompt = tuple(draw.randrange(vocabulary) for _ in range(PROMPT_TOKENS))
    return Request(prompt, draw.randint(*NEW_TOKENS))


def _pieces(draw: random.Random) -> int | None:
    """After how many pieces nobody listens any more; None for never."""
    return draw.randint(1, 2) if draw.random() < LEFT_SHARE else None


if __name__ == "__main__":
    main()
