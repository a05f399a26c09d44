"""Asks a server very many short questions while clients leave, bodies are broken and its worker is killed.

Run as: python benchmarks/serve_faults.py [--requests 10000] [--clients 64] [--kills 20]

It starts ``whet serve builtin:demo-base --force`` itself. Each request carries a nonce that its answer has to be (a
JSON schema with one constant), so an answer that belongs to somebody else is seen. One in ten is left after a random
time, one in a hundred is malformed. What comes back must be the own answer or an error of the documented shape.
"""

import argparse
import asyncio
import collections
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import psutil

_CODES = ("backend_lost", "unavailable", "restarting", "starting", "queue_full")
"""What a request may end with, for which the server says when to ask again."""

_MALFORMED = (
    b'{"model": ',
    b"[]",
    b'{"model": "demo-base"}',
    b"\xff\xfe",
    b'{"model": "demo-base", "messages": 5}',
    b"",
)


@dataclass(slots=True)
class _Seen:
    """What happened so far."""

    answers: int = 0
    left: int = 0
    malformed: int = 0
    errors: collections.Counter[str] = field(default_factory=collections.Counter)
    mixed_up: list[str] = field(default_factory=list)
    untyped: list[str] = field(default_factory=list)
    begun: int = 0
    kills: int = 0
    memory_bytes: list[tuple[int, int]] = field(default_factory=list)


def main() -> None:
    """Prints one JSON object; ends with 1 where an answer was lost, mixed up, or an error had no type."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        whet = str(Path(sys.executable).with_name("whet"))
        command = [whet, "serve", "builtin:demo-base", "--force", "--port", "0"]
        with (Path(folder) / "log").open("w") as log:
            server = subprocess.Popen([*command, "--json"], stdout=subprocess.PIPE, stderr=log, text=True, cwd=folder)
            assert server.stdout is not None
            url = json.loads(server.stdout.readline())["url"]
            seen = _Seen()
            begin_s = time.monotonic()
            asyncio.run(_run(url, server.pid, seen, asked))
            seconds = time.monotonic() - begin_s
            server.send_signal(signal.SIGTERM)
            code = server.wait(60)
    ended = seen.answers + seen.left + seen.malformed + sum(seen.errors.values())
    settled = [rss for begun, rss in seen.memory_bytes if begun >= asked.requests // 10]
    result = {
        "requests": seen.begun,
        "seconds": round(seconds, 1),
        "answers": seen.answers,
        "left_early": seen.left,
        "malformed": seen.malformed,
        "typed_errors": dict(seen.errors),
        "worker_kills": seen.kills,
        "lost": seen.begun - ended,
        "mixed_up": seen.mixed_up[:3],
        "untyped": seen.untyped[:3],
        "server_bytes": {
            "settled": settled[0],
            "end": settled[-1],
            "growth_percent": 100 * (settled[-1] / settled[0] - 1),
        },
        "exit_code": code,
    }
    sys.stdout.write(json.dumps(result) + "\n")
    sys.exit(1 if seen.mixed_up or seen.untyped or ended != seen.begun or code else 0)


async def _run(url: str, pid: int, seen: _Seen, asked: argparse.Namespace) -> None:
    connector = aiohttp.TCPConnector(limit=asked.clients)
    async with aiohttp.ClientSession(url, connector=connector, timeout=aiohttp.ClientTimeout(120)) as session:
        await _ready(session)
        waiting = iter(range(asked.requests))
        killer = asyncio.create_task(_kill_now_and_then(session, pid, seen, asked))
        clients = (
            _client(session, waiting, seen, random.Random(f"{asked.seed}-{one}")) for one in range(asked.clients)
        )
        await asyncio.gather(*clients)
        killer.cancel()


async def _ready(session: aiohttp.ClientSession) -> None:
    while True:
        async with session.get("/health/ready") as response:
            if response.status == 200:
                return
        await asyncio.sleep(0.1)


async def _kill_now_and_then(session: aiohttp.ClientSession, pid: int, seen: _Seen, asked: argparse.Namespace) -> None:
    """Kills the worker when so many more requests have begun, and takes note of the server's own memory."""
    server = psutil.Process(pid)
    every = asked.requests // (asked.kills + 1)
    while True:
        await asyncio.sleep(0.05)
        seen.memory_bytes.append((seen.begun, server.memory_info().rss))
        if seen.kills < asked.kills and seen.begun >= (seen.kills + 1) * every:
            for child in server.children():
                if "whetstone.serve.worker.main" in child.cmdline():
                    os.kill(child.pid, signal.SIGKILL)
                    seen.kills += 1
            await _ready(session)


async def _client(session: aiohttp.ClientSession, waiting: Iterator[int], seen: _Seen, luck: random.Random) -> None:
    for number in waiting:
        seen.begun += 1
        drawn = luck.random()
        try:
            if drawn < 0.01:
                await _malformed(session, seen, luck)
            else:
                leave_s = luck.uniform(0, 0.2) if drawn < 0.11 else None
                await _ask(
                    session, f"nonce {number} {luck.randrange(10**9)}", leave_s, seen, streamed=luck.random() < 0.5
                )
        except aiohttp.ClientError as error:
            seen.untyped.append(f"{type(error).__name__}: {error}")


async def _malformed(session: aiohttp.ClientSession, seen: _Seen, luck: random.Random) -> None:
    body = luck.choice(_MALFORMED)
    headers = {"content-type": "application/json"}
    async with session.post("/v1/chat/completions", data=body, headers=headers) as response:
        said = await response.json()
        if response.status == 400 and said["error"]["code"]:
            seen.malformed += 1
        else:
            seen.untyped.append(f"{body!r}: {response.status} {said}")


async def _ask(
    session: aiohttp.ClientSession, nonce: str, leave_s: float | None, seen: _Seen, *, streamed: bool
) -> None:
    schema = {"const": nonce}
    body = {
        "model": "demo-base",
        "messages": [{"role": "user", "content": "Say it."}],
        "max_tokens": 60,
        "stream": streamed,
        "response_format": {"type": "json_schema", "json_schema": {"name": "nonce", "schema": schema}},
    }
    try:
        async with asyncio.timeout(leave_s):
            async with session.post("/v1/chat/completions", json=body) as response:
                text = await response.text()
                status, again_s = response.status, float(response.headers.get("retry-after", 0))
    except TimeoutError:
        seen.left += 1
        return
    _note(status, text, nonce, seen, streamed=streamed)
    # As a client does that is told when to ask again.
    await asyncio.sleep(again_s)


def _note(status: int, text: str, nonce: str, seen: _Seen, *, streamed: bool) -> None:
    try:
        events = [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: {")]
        error = next((event["error"] for event in events if "error" in event), None)
        if status != 200:
            error = json.loads(text)["error"]
        if error is not None:
            code = error["code"]
            if code in _CODES:
                seen.errors.update([code])
            else:
                seen.untyped.append(f"{status} {error}")
            return
        if streamed:
            pieces = (choice["delta"].get("content") or "" for event in events for choice in event["choices"])
            said = "".join(pieces)
        else:
            said = json.loads(text)["choices"][0]["message"]["content"]
        if json.loads(said) == nonce:
            seen.answers += 1
        else:
            seen.mixed_up.append(f"{nonce}: {said}")
    except (ValueError, KeyError, IndexError) as error:
        seen.untyped.append(f"{status} {text[:200]!r}: {error}")


if __name__ == "__main__":
    main()
