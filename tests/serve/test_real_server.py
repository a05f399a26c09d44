"""The whole server over the model that ships with the package, with the clients that people use."""

import asyncio
import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import httpx
import pytest

from conformance import QUESTION, conform
from real_server import RealServer, serving

ROOT = Path(__file__).parent.parent.parent
NODE = ROOT / "build" / "node"
MODEL = "demo-base"
BODY = {"model": MODEL, "messages": [{"role": "user", "content": QUESTION}], "max_tokens": 40}

pytestmark = pytest.mark.timeout(240)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealServer]:
    with serving("builtin:demo-base", "--force", folder=tmp_path_factory.mktemp("served")) as server:
        yield server


def test_the_python_client(server: RealServer) -> None:
    pytest.importorskip("llguidance")
    assert len(conform(f"{server.url}/v1", MODEL)) == 9


def test_the_node_client(server: RealServer) -> None:
    if shutil.which("node") is None or not (NODE / "node_modules" / "openai").is_dir():
        pytest.skip("needs Node and its client: npm install --prefix build/node openai@6")
    script = ROOT / "tests" / "support" / "conformance.mjs"
    done = subprocess.run(
        ["node", str(script), f"{server.url}/v1", MODEL], cwd=NODE, capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 9


def _generated(server: RealServer, examples: int) -> str:
    """What schemathesis says of that many requests to each operation."""
    done = subprocess.run(
        [
            *(str(Path(sys.executable).with_name("schemathesis")), "run", f"{server.url}/openapi.json"),
            *("--checks", "not_a_server_error", "--phases", "fuzzing", "--max-examples", str(examples), "--seed", "1"),
            *("--suppress-health-check", "all", "--generation-database", "none", "--no-color"),
        ],
        cwd=server.log.parent,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-5000:]
    assert httpx.get(f"{server.url}/health/ready").status_code == 200
    return done.stdout


def test_generated_requests_find_no_server_error(server: RealServer) -> None:
    assert re.search(r"^\s*\d+ generated", _generated(server, 5), re.MULTILINE)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_five_thousand_generated_requests_find_no_server_error(server: RealServer) -> None:
    said = _generated(server, 900)
    generated = re.search(r"^\s*(\d+) generated", said, re.MULTILINE)
    assert generated is not None and int(generated[1]) >= 5000


def test_a_worker_that_is_killed_is_said_to_be_and_comes_back(server: RealServer) -> None:
    before = httpx.post(f"{server.url}/v1/chat/completions", json=BODY, timeout=60).json()["choices"]
    server.worker.kill()
    end_s = time.monotonic() + 60
    refused = 0
    seen = set()
    while True:
        response = httpx.post(f"{server.url}/v1/chat/completions", json=BODY, timeout=60)
        if response.status_code == 200:
            break
        refused += 1
        assert response.status_code == 503 and int(response.headers["retry-after"]) >= 1
        assert response.json()["error"]["code"] in ("backend_lost", "restarting")
        # It may be back by now, but not each time.
        seen.add(httpx.get(f"{server.url}/health/ready").status_code)
        assert httpx.get(f"{server.url}/health/live").status_code == 200
        assert time.monotonic() < end_s
        time.sleep(0.05)
    assert 503 in seen
    assert refused and response.json()["choices"] == before
    [backend] = httpx.get(f"{server.url}/health").json()["backends"]
    assert backend["restarts"] == 1 and "SIGKILL" in backend["last_error"]


def test_a_fallback_answers_under_its_own_name(tmp_path: Path) -> None:
    with serving(
        "first=builtin:demo-base", "--fallback", "second=builtin:demo-base", "--force", folder=tmp_path
    ) as two:
        end_s = time.monotonic() + 60
        while any(one["phase"] != "ready" for one in httpx.get(f"{two.url}/health").json()["backends"]):
            assert time.monotonic() < end_s
            time.sleep(0.05)
        body = {**BODY, "model": "first"}
        by_first = httpx.post(f"{two.url}/v1/chat/completions", json=body, timeout=60)
        two.worker.kill()
        by_second = httpx.post(f"{two.url}/v1/chat/completions", json=body, timeout=60)
    assert by_first.json()["choices"] == by_second.json()["choices"]
    assert (by_first.json()["model"], by_second.json()["model"]) == ("first", "second")
    assert by_first.headers["x-whetstone-backend"] != by_second.headers["x-whetstone-backend"]


async def _stream(session: aiohttp.ClientSession, url: str, begun: list[int]) -> str:
    async with session.post(f"{url}/v1/chat/completions", json={**BODY, "stream": True}) as response:
        assert response.status == 200
        begun.append(1)
        return await response.text()


def test_sigterm_under_load_finishes_what_has_begun(tmp_path: Path) -> None:
    async def load(server: RealServer) -> tuple[list[str], int]:
        async with aiohttp.ClientSession() as session:
            begun: list[int] = []
            streams = [asyncio.create_task(_stream(session, server.url, begun)) for _ in range(24)]
            while len(begun) < len(streams):
                await asyncio.sleep(0.001)
            server.process.send_signal(signal.SIGTERM)
            refused = 0
            while not all(stream.done() for stream in streams):
                with contextlib.suppress(aiohttp.ClientConnectionError):
                    async with session.post(f"{server.url}/v1/chat/completions", json=BODY) as response:
                        said = await response.json()
                        refused += response.status == 503 and said["error"]["code"] == "draining"
            return await asyncio.gather(*streams), refused

    with serving("builtin:demo-base", "--force", folder=tmp_path) as server:
        texts, _ = asyncio.run(load(server))
        assert server.process.wait(30) == 0
    assert len(set(map(_said, texts))) == 1
    assert all(text.endswith("data: [DONE]\n\n") for text in texts)


def _said(events: str) -> str:
    chunks = [json.loads(line[6:]) for line in events.splitlines() if line.startswith("data: {")]
    return "".join(choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"])


def test_feedback_outlives_kill_9_and_the_next_server_begins_at_once(tmp_path: Path) -> None:
    arguments = ("builtin:demo-base", "--force", "--feedback", "feedback.db", "--store-prompts")
    with serving(*arguments, folder=tmp_path) as server:
        answer = httpx.post(f"{server.url}/v1/chat/completions", json=BODY, timeout=60).json()
        rating = {"answer_id": answer["id"], "rating": "correction", "correction": "She goes home ."}
        assert httpx.post(f"{server.url}/v1/feedback", json=rating).status_code == 200
        worker, port = server.worker, int(server.url.rpartition(":")[2])
        os.kill(server.process.pid, signal.SIGKILL)
        server.process.wait()
        with serving(*arguments, folder=tmp_path, port=port) as again:
            assert not worker.is_running() or worker.status() == "zombie"
            # The same answer can still be rated: the file holds it.
            assert httpx.post(f"{again.url}/v1/feedback", json={**rating, "rating": "bad"}).status_code in (200, 400)
    whet = str(Path(sys.executable).with_name("whet"))
    subprocess.run([whet, "data", "from-feedback", "feedback.db", "--out", "more.jsonl"], cwd=tmp_path, check=True)
    [row] = [json.loads(line) for line in (tmp_path / "more.jsonl").read_text().splitlines()]
    assert "She goes home ." in json.dumps(row)
