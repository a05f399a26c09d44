"""How many pieces of streamed answers one load generator takes: the client of ``whet bench serve`` beside httpx.

Run as: .venv/bin/python benchmarks/load_client.py [--json] [--quick]
        .venv/bin/python benchmarks/load_client.py --streams 256 --every-ms 20

A server in a process of its own sends one piece of text at a time to each of many streams at once, so hardly two pieces
reach the client together, as it is with a server of models. What counts is the processor time of the client for each
piece: its inverse is what one core takes, and does not depend on how many cores others use meanwhile.
"""

import argparse
import asyncio
import json
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import httpx
from harness import benchmark_parser, finish, median_ratio, medians, table, take_turns

from whetstone.bench.body import StreamedBody
from whetstone.bench.client import Client, Target
from whetstone.data.example import Message
from whetstone.data.prompts import Prompt

WHET, AGAIN, HTTPX = "whet", "whet again", "httpx"
PIECES = 100
PROMPT = Prompt("here", "p", (Message("user", "say something"),), None)


def main() -> None:
    """Runs all contestants, or is one of them."""
    if len(sys.argv) > 1 and sys.argv[1].startswith("{"):
        _work(json.loads(sys.argv[1]))
        return
    if len(sys.argv) > 1 and sys.argv[1] == "server":
        asyncio.run(_serve(float(sys.argv[2])))
        return
    arguments = _arguments()
    job = {"streams": arguments.streams, "answers": arguments.answers, "every_s": arguments.every_ms / 1000}
    jobs = {name: {**job, "client": name} for name in (WHET, AGAIN, HTTPX)}
    rounds = take_turns(Path(__file__), jobs, arguments.rounds, 1)
    processor, wall = medians(rounds, "processor_s"), medians(rounds, "seconds")
    pieces = arguments.streams * arguments.answers * PIECES
    sys.stdout.write(
        f"\n{arguments.streams} streams, {pieces:,} pieces, one every {arguments.every_ms:g} ms a stream\n\n"
    )
    rows = [
        [
            name,
            f"{1e6 * processor[name] / pieces:.1f}",
            f"{pieces / processor[name]:,.0f}",
            f"{pieces / wall[name]:,.0f}",
            f"{median_ratio(rounds, 'processor_s', name, WHET):.2f}",
        ]
        for name in rounds[0]
    ]
    columns = (
        "client",
        "µs of processor time a piece",
        "pieces/s that one core takes",
        "pieces/s sent",
        "time / whet's",
    )
    sys.stdout.write(table(columns, rows))
    ratios = {name: median_ratio(rounds, "processor_s", name, WHET) for name in rounds[0]}
    finish(arguments, {"ratios": ratios, "pieces": pieces, "rounds": rounds}, ("aiohttp", "httpx"))


def _arguments() -> argparse.Namespace:
    parser = benchmark_parser(__doc__)
    parser.add_argument("--streams", type=int, default=64, help="at once")
    parser.add_argument("--answers", type=int, default=10, help="of each stream, one after the other")
    parser.add_argument("--every-ms", type=float, default=20.0, help="from piece to piece of a stream")
    parser.add_argument("--rounds", type=int, default=4, help="an even number: as often forwards as backwards")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.rounds, arguments.answers = 1, 2
    return arguments


async def _serve(every_s: float) -> None:
    """Answers all that is asked with pieces of text, each as it falls due, on a port that it prints."""
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    choice = {"index": 0, "delta": {"content": " word"}, "finish_reason": None}
    piece = {"id": "chatcmpl-0123456789abcdef", "object": "chat.completion.chunk", "model": "m", "choices": [choice]}
    last = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
    usage = {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": PIECES}}
    pieces, end = _chunk(piece), b"".join(map(_chunk, (last, usage))) + b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n"

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                asked = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            except asyncio.IncompleteReadError:
                writer.close()
                return
            await reader.readexactly(int(asked.partition("content-length:")[2].split("\r\n")[0]))
            writer.write(head)
            due_s = loop.time()
            for _ in range(PIECES):
                due_s += every_s
                await asyncio.sleep(due_s - loop.time())
                writer.write(pieces)
            writer.write(end)

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await server.serve_forever()


def _chunk(document: object) -> bytes:
    data = b"data: " + json.dumps(document).encode() + b"\n\n"
    return b"%x\r\n%s\r\n" % (len(data), data)


@contextmanager
def _serving(every_s: float) -> Iterator[str]:
    command = [sys.executable, __file__, "server", str(every_s)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{process.stdout.readline().strip()}"
        finally:
            process.terminate()


def _work(asked: dict[str, Any]) -> None:
    with _serving(asked["every_s"]) as url:
        result = asyncio.run(_take(url, asked))
    sys.stdout.write(f"\n{json.dumps(result)}\n")


async def _take(url: str, asked: dict[str, Any]) -> dict[str, float]:
    opened = _httpx if asked["client"] == HTTPX else _ours
    async with opened(url) as ask:

        async def stream(answers: int) -> None:
            for _ in range(answers):
                if await ask() != PIECES:
                    raise RuntimeError("pieces were lost")

        async with asyncio.TaskGroup() as group:
            for _ in range(asked["streams"]):
                group.create_task(stream(1))
        processor_s, wall_s = time.process_time(), time.monotonic()
        async with asyncio.TaskGroup() as group:
            for _ in range(asked["streams"]):
                group.create_task(stream(asked["answers"]))
        return {"seconds": time.monotonic() - wall_s, "processor_s": time.process_time() - processor_s}


@asynccontextmanager
async def _ours(url: str) -> AsyncIterator[Any]:
    async with Client(Target(url, "m")) as client:

        async def ask() -> int:
            return len((await client.ask(PROMPT, "p")).piece_s)

        yield ask


@asynccontextmanager
async def _httpx(url: str) -> AsyncIterator[Any]:
    """The same reading of events over httpx, with a pool that is large enough."""
    body = {"model": "m", "stream": True, "messages": [message.as_dict() for message in PROMPT.messages]}
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    async with httpx.AsyncClient(limits=limits, timeout=60, trust_env=False) as client:

        async def ask() -> int:
            read = StreamedBody()
            async with client.stream("POST", f"{url}/v1/chat/completions", json=body) as response:
                async for part in response.aiter_bytes():
                    read.take(part, time.monotonic())
            return len(read.piece_s)

        yield ask


if __name__ == "__main__":
    main()
