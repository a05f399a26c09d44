"""A process that speaks the worker's protocol without a model, and starts in no time.

Answers a text with its own words, one a step. The texts ``garbage`` and ``leave`` have it break the protocol and end;
after ``stuck`` it says that it cannot get on with reading it.
Arguments: ``refuse`` or ``fail`` instead of opening; ``slow`` waits 20 ms between two steps.
"""

import json
import os
import select
import sys
import time
from typing import Any

MODEL = {"name": "demo", "ref": "run:demo", "engine": "echo", "origin": "a test"}


def say(message: Any) -> None:
    os.write(1, json.dumps(message).encode() + b"\n")


def main() -> None:
    running: dict[int, tuple[list[str], int]] = {}
    rest = b""
    while True:
        ready, _, _ = select.select([0], [], [], 0 if running else None)
        if ready:
            read = os.read(0, 1 << 20)
            if not read:
                return
            *lines, rest = (rest + read).split(b"\n")
            for line in lines:
                take(json.loads(line), running)
        if running:
            step(running)
        time.sleep(0.02 if "slow" in sys.argv else 0.001)


def take(message: dict[str, Any], running: dict[int, tuple[list[str], int]]) -> None:
    if message["kind"] == "open":
        if "refuse" in sys.argv:
            say({"kind": "refused", "message": "run:demo: not judged; judge it"})
            sys.exit(2)
        if "fail" in sys.argv:
            say({"kind": "lost", "message": "MemoryError"})
            sys.exit(1)
        say({"kind": "stage", "said": "reading"})
        say({"kind": "ready", "models": [MODEL]})
    elif message["kind"] == "drop":
        running.pop(message["id"], None)
    elif message["kind"] == "ask":
        text = message["question"]["prompt"]
        if text == "garbage":
            os.write(1, b"Loading weights: 100%\n")
        elif text == "leave":
            os._exit(7)
        elif text == "stuck":
            say({"kind": "busy", "memory_bytes": 1, "intake_s": 99.0})
            return
        running[message["id"]] = (text.split(), 0)


def step(running: dict[int, tuple[list[str], int]]) -> None:
    told: list[Any] = []
    for asked, (words, said) in list(running.items()):
        piece = [asked, f"{words[said]} ", [said]]
        running[asked] = (words, said + 1)
        if said + 1 == len(words):
            piece += [[], ["stop", len(words), len(words), 0]]
            del running[asked]
        told.append(piece)
    say(told)


if __name__ == "__main__":
    main()
