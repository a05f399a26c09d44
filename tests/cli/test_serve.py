"""``whet serve`` as a process, with scripted answers; what it says where it cannot begin."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner

from whetstone.cli.main import app
from whetstone.errors import UserError
from whetstone.serve.gate.key_file import StoredKey, changing, hashed, new_salt

SCRIPT = Path(__file__).parent.parent / "support" / "scripted_serve.py"
KEY = "whet_a-key-of-a-test-that-is-long"
CHAT = {"model": "demo", "messages": [{"role": "user", "content": "one two three"}]}


def command(*arguments: str) -> list[str]:
    return [sys.executable, str(SCRIPT), "serve", *arguments]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


@contextmanager
def serving(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The process and its address, when it listens."""
    process = subprocess.Popen(
        command("--port", "0", "--json", *arguments),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    try:
        assert process.stdout is not None
        said = json.loads(process.stdout.readline())
        assert said["pid"] == process.pid
        yield process, said["url"]
    finally:
        process.kill()
        process.communicate()


def refused(*arguments: str) -> str:
    """The one line of a server that could not begin."""
    ended = subprocess.run(command(*arguments), capture_output=True, text=True, env=environment(), timeout=30)
    assert ended.returncode == 2, ended.stderr
    [line] = [line for line in ended.stderr.splitlines() if line.startswith("error: ")]
    assert ended.stderr.splitlines()[-1] == line
    return line


def test_answers_until_it_is_told_to_end(tmp_path: Path) -> None:
    config = tmp_path / "serve.yaml"
    config.write_text(f"system_prompt: Be brief.\nfeedback: {tmp_path / 'feedback.db'}\nlimits: {{body_bytes: 2000}}\n")
    with serving("demo=run:demo", "--config", str(config), "--log", "json", "--fallback", "other") as (process, url):
        answer = httpx.post(f"{url}/v1/chat/completions", json=CHAT, headers={"x-request-id": "mine"})
        assert answer.json()["choices"][0]["message"]["content"] == "ONE TWO THREE"
        assert answer.headers["x-request-id"] == "mine"
        assert answer.headers["x-whetstone-backend"] == "scripted"
        assert answer.headers["cache-control"] == "no-store"
        assert "server" not in answer.headers
        assert [model["id"] for model in httpx.get(f"{url}/v1/models").json()["data"]] == ["demo", "other"]
        rating = {"answer_id": answer.json()["id"], "rating": "good"}
        assert httpx.post(f"{url}/v1/feedback", json=rating).status_code == 200
        assert httpx.post(f"{url}/v1/chat/completions", json={**CHAT, "user": "x" * 3000}).status_code == 413
        assert httpx.get(f"{url}/health/ready").json()["status"] == "ready"
        assert httpx.get(f"{url}/health/live", headers={"host": "evil.test"}).status_code == 403
        assert "whetstone_requests_total" in httpx.get(f"{url}/metrics").text
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=15)
        assert process.returncode == 0
    listening, *log = errors.splitlines()
    assert listening.startswith(f"listening at {url}/v1; loading demo=run:demo")
    assert any(json.loads(line).get("request_id") == "mine" for line in log)
    assert "one two three" not in errors.lower()


def test_streams_finish_and_readiness_says_that_it_ends() -> None:
    with serving("slow=run:slow") as (process, url), httpx.Client(base_url=url) as client:
        body = {"model": "slow", "messages": [{"role": "user", "content": "word " * 15}], "stream": True}
        with httpx.stream("POST", f"{url}/v1/chat/completions", json=body, timeout=20) as stream:
            lines = stream.iter_lines()
            next(lines)
            process.send_signal(signal.SIGTERM)
            time.sleep(0.3)
            ready = client.get("/health/ready")
            assert (ready.status_code, ready.json()["status"]) == (503, "draining")
            assert client.get("/health/live").status_code == 200
            late = client.post("/v1/chat/completions", json=body)
            assert (late.status_code, late.json()["error"]["code"]) == (503, "draining")
            assert late.headers["connection"] == "close"
            assert "retry-after" in late.headers
            said = [line for line in lines if line]
        assert said[-1] == "data: [DONE]"
        assert process.wait(15) == 0


def test_keys_are_needed_where_others_can_reach_it(tmp_path: Path) -> None:
    assert "'whet keys new NAME --file keys.jsonl'" in refused("demo", "--host", "0.0.0.0", "--port", "0")
    file = tmp_path / "keys.jsonl"
    salt = new_salt()
    with changing(file) as keys:
        keys.append(StoredKey(name="anna", sha256=hashed(salt, KEY), salt=salt))
    with serving("demo", "--host", "0.0.0.0", "--keys", str(file)) as (_, url):
        key = {"authorization": f"Bearer {KEY}"}
        for path, status in (("/health/live", 200), ("/health/ready", 200), ("/health", 401), ("/metrics", 401)):
            # Any name will do: a page of another site has no key.
            assert httpx.get(url + path, headers={"host": "any.test"}).status_code == status
            assert httpx.get(url + path, headers=key).status_code == 200
        chat = f"{url}/v1/chat/completions"
        assert httpx.post(chat, json=CHAT).status_code == 401
        assert httpx.post(chat, json=CHAT, headers=key).status_code == 200


def test_what_is_refused_ends_the_process_and_frees_the_port() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert f"{port} of 127.0.0.1 is in use" in refused("demo", "--port", str(port))
    assert refused("refused", "--port", str(port)) == (
        "error: run:refused: its verdict is REJECT; 'whet report' says why"
    )
    with socket.create_server(("127.0.0.1", port)):
        pass


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--tls-cert", "a.pem"], "--tls-cert and --tls-key go together"),
        (["--keys", "none.jsonl"], "none.jsonl: no such file; 'whet keys new NAME"),
        (["--host", "no.such.host.invalid"], "is no address of this machine"),
        (["--config", "wrong.yaml"], "wrong.yaml:2: limits.quue: unknown key; did you mean 'queue'?"),
    ],
)
def test_what_is_wrong_is_one_line(
    arguments: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("wrong.yaml").write_text("limits:\n  quue: 3\n")
    error = CliRunner().invoke(app, ["serve", "demo", *arguments]).exception
    assert isinstance(error, UserError)
    assert said in str(error)


def test_the_process_that_answers_imports_nothing_that_computes() -> None:
    program = (
        "import sys, whetstone.serve.launch, whetstone.cli.serve\n"
        "print(sorted({'torch', 'scipy', 'transformers', 'numpy'} & set(sys.modules)))\n"
    )
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment())
    assert said.stdout == "[]\n", said.stderr
