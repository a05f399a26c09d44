"""Asks a server the held-out examples of a run and compares its tokens with the judged ones.

Run as: python benchmarks/serve_judged.py http://127.0.0.1:8000/v1 runs/demo [--model demo] [--cases 200] [--clients 16]

Every second request is streamed. The rows that it compares with are ``samples/tuned.jsonl``, as they were judged.
"""

import argparse
import asyncio
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp

from whetstone.evaluate.sample import TUNED
from whetstone.files import read_jsonl
from whetstone.run import Run


def main() -> None:
    """Prints one JSON object; ends with 1 where a token differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url")
    parser.add_argument("run", type=Path)
    parser.add_argument("--model", help="its name on the server; the run's own where it is left out")
    parser.add_argument("--cases", type=int, default=200)
    parser.add_argument("--clients", type=int, default=16)
    asked = parser.parse_args()
    run = Run(asked.run)
    examples = read_jsonl(run.samples / "examples.jsonl")[: asked.cases]
    judged = {row["example"]: row["token_ids"] for row in read_jsonl(run.samples / f"{TUNED}.jsonl")}
    served = asyncio.run(_ask_all(asked.url, asked.model or run.name, run, examples, asked.clients))
    different = [example for example, ids in served.items() if ids != judged[example]]
    result = {"cases": len(served), "identical": len(served) - len(different), "different": different[:10]}
    sys.stdout.write(json.dumps(result) + "\n")
    sys.exit(1 if different or len(served) < len(examples) else 0)


async def _ask_all(
    url: str, model: str, run: Run, examples: list[dict[str, Any]], clients: int
) -> dict[str, list[int]]:
    served: dict[str, list[int]] = {}
    max_tokens = run.manifest().experiment.judge.generation.max_new_tokens
    async with aiohttp.ClientSession() as session:

        async def take_turns(waiting: Iterator[tuple[int, dict[str, Any]]]) -> None:
            for number, example in waiting:
                body = {
                    "model": model,
                    "messages": example["messages"],
                    "max_tokens": max_tokens,
                    "return_token_ids": True,
                    "stream": bool(number % 2),
                }
                async with session.post(f"{url}/chat/completions", json=body) as response:
                    served[example["id"]] = _token_ids(await response.text(), streamed=bool(number % 2))

        waiting = iter(enumerate(examples))
        await asyncio.gather(*(take_turns(waiting) for _ in range(clients)))
    return served


def _token_ids(body: str, *, streamed: bool) -> list[int]:
    if not streamed:
        ids: list[int] = json.loads(body)["choices"][0]["token_ids"]
        return ids
    chunks = [json.loads(line[6:]) for line in body.splitlines() if line.startswith("data: {")]
    return [one for chunk in chunks for choice in chunk["choices"] for one in choice.get("token_ids") or ()]


if __name__ == "__main__":
    main()
