"""Treats a real server badly, and says what it answered and whether it was ready all the while.

Run as: python benchmarks/serve_attacks.py [--sockets 10000]

It starts ``whet serve builtin:demo-base --force`` with a key itself. Every attack has to end with an error of the
documented shape, and an ordinary request has to be answered right after it.
"""

import argparse
import contextlib
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import httpx

_KEY = "whet_a-key-for-attacks-only"
_MODEL = "demo-base"


def main() -> None:
    """Prints one line of JSON for each attack; ends with 1 where one was not answered as it must be."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sockets", type=int, default=10_000)
    asked = parser.parse_args()
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(limit, asked.sockets + 500), limit))
    with tempfile.TemporaryDirectory() as folder:
        command = [str(Path(sys.executable).with_name("whet")), "serve", "builtin:demo-base", "--force", "--port", "0"]
        environment = {**os.environ, "WHETSTONE_SERVE_KEYS": f"attacker:{_KEY}"}
        with (Path(folder) / "log").open("w") as log:
            server = subprocess.Popen(
                [*command, "--json"], stdout=subprocess.PIPE, stderr=log, text=True, cwd=folder, env=environment
            )
        assert server.stdout is not None
        url = json.loads(server.stdout.readline())["url"]
        while httpx.get(f"{url}/health/ready").status_code != 200:
            time.sleep(0.1)
        attacks: dict[str, Callable[[str], str]] = {
            "a wrong key": lambda url: _asked(url, key="whet_another"),
            "no key": lambda url: _asked(url, key=None),
            "a traversal in a model's name": lambda url: _asked(url, model="../../etc/passwd"),
            "a traversal in a path": _traversal,
            "a body of 100 MB": lambda url: _asked(url, text="a" * 100_000_000),
            "one token of 1 MB": lambda url: _asked(url, text="a" * 1_000_000),
            "slow-loris": _slow_head,
            f"{asked.sockets} open sockets": lambda url: _sockets(url, asked.sockets),
        }
        well = True
        for name, attack in attacks.items():
            begin_s = time.monotonic()
            said = attack(url)
            ready = httpx.get(f"{url}/health/ready", timeout=10).status_code
            ordinary = _asked(url)
            well = well and ready == 200 and ordinary == "200" and said not in ("200", "nothing")
            row = {"attack": name, "answered": said, "ready": ready, "ordinary_request": ordinary}
            sys.stdout.write(json.dumps({**row, "seconds": round(time.monotonic() - begin_s, 1)}) + "\n")
        server.send_signal(signal.SIGTERM)
        well = server.wait(60) == 0 and well
    sys.exit(0 if well else 1)


def _asked(url: str, *, key: str | None = _KEY, model: str = _MODEL, text: str = "Correct: She go home .") -> str:
    body = {"model": model, "messages": [{"role": "user", "content": text}], "max_tokens": 8}
    headers = {} if key is None else {"authorization": f"Bearer {key}"}
    try:
        return _said(httpx.post(f"{url}/v1/chat/completions", json=body, headers=headers, timeout=60))
    except httpx.WriteError:
        # The server hung up while the body was still on its way; what it answered is in its log.
        return "413 (closed while the body was sent)"


def _said(response: httpx.Response) -> str:
    if response.status_code == 200:
        return "200"
    return f"{response.status_code} {response.json()['error']['code']}"


def _traversal(url: str) -> str:
    headers = {"authorization": f"Bearer {_KEY}"}
    return _said(httpx.get(f"{url}/v1/models/..%2F..%2Fetc%2Fpasswd/card", headers=headers))


def _slow_head(url: str) -> str:
    """A byte of a head each second."""
    address = urlsplit(url)
    with socket.create_connection((address.hostname, address.port)) as slow:
        slow.settimeout(1)
        slow.sendall(b"POST /v1/chat/completions HTTP/1.1\r\n")
        for _ in range(60):
            with contextlib.suppress(TimeoutError):
                answer = slow.recv(4096)
                return answer.split(b"\r\n", 1)[0].decode() if answer else "nothing"
            slow.sendall(b"a")
    return "nothing"


def _sockets(url: str, count: int) -> str:
    """Opens sockets that say nothing, and keeps them open while an ordinary request is sent."""
    address = urlsplit(url)
    sockets = []
    try:
        for _ in range(count):
            sockets.append(socket.create_connection((address.hostname, address.port), timeout=10))
        return f"an ordinary request among {len(sockets)}: {_asked(url)}"
    finally:
        for one in sockets:
            one.close()


if __name__ == "__main__":
    main()
