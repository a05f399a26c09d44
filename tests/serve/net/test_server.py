"""The life of a server as a process of its own."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from small_server import connect, eventually, head_of, read_response, running, start_process
from whetstone.errors import UserError
from whetstone.serve_section import Limits


def ask(client: socket.socket, text: str, *, stream: bool = False) -> None:
    body = json.dumps({"text": text, "stream": stream}).encode()
    client.sendall(head_of("POST", "/v1/answer", content_type="application/json", content_length=str(len(body))) + body)


def read_all(client: socket.socket) -> bytes:
    """Everything until the connection ends."""
    pieces = []
    with contextlib.suppress(ConnectionResetError):
        while piece := client.recv(65536):
            pieces.append(piece)
    return b"".join(pieces)


def said(stream: bytes) -> list[str]:
    """What the events of a stream say."""
    return [line.removeprefix("data: ") for line in stream.decode().splitlines() if line.startswith("data: ")]


def test_streams_finish_while_new_requests_are_sent_away() -> None:
    words = 12
    with start_process(pause_s=0.1) as (process, port), ExitStack() as stack:
        streams = [stack.enter_context(connect(port)) for _ in range(20)]
        for stream in streams:
            ask(stream, "word " * words, stream=True)
        waiting = stack.enter_context(connect(port))
        ask(waiting, "word " * words)
        idle = stack.enter_context(connect(port))
        idle.sendall(head_of("GET", "/health/live"))
        read_response(idle)
        for stream in streams:
            assert stream.recv(1, socket.MSG_PEEK)
        process.send_signal(signal.SIGTERM)
        time.sleep(0.2)
        for client in (idle, stack.enter_context(connect(port))):  # one from before, one new
            ask(client, "too late")
            status, headers, body = read_response(client)
            assert (status, json.loads(body)["error"]["code"]) == (503, "draining")
            assert (headers["connection"], headers["retry-after"]) == ("close", "1")
        watcher = stack.enter_context(connect(port))
        watcher.sendall(head_of("GET", "/health/live"))
        assert read_response(watcher)[0] == 200
        assert process.poll() is None
        for stream in streams:
            events = said(read_all(stream))
            assert len(events) == words + 1
            assert events[-1] == "[DONE]"
        assert len(json.loads(read_response(waiting)[2])["text"].split()) == words
        assert process.wait(10) == 0


def test_what_does_not_finish_in_time_is_cut_off_and_told_so() -> None:
    with start_process(pause_s=0.2, drain_s=0.3) as (process, port), ExitStack() as stack:
        stream, plain, deaf = (stack.enter_context(connect(port)) for _ in range(3))
        ask(stream, "word " * 1000, stream=True)
        ask(plain, "word " * 1000)
        deaf.sendall(head_of("GET", "/deaf"))
        assert stream.recv(1, socket.MSG_PEEK)
        process.send_signal(signal.SIGINT)
        events = said(read_all(stream))
        assert json.loads(events[-1])["error"]["code"] == "cut_off"
        for client in (plain, deaf):
            status, _, body = read_response(client)
            assert (status, json.loads(body)["error"]["code"]) == (503, "cut_off")
        assert process.wait(10) == 1


@pytest.mark.parametrize(("second", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_second_signal_ends_at_once(second: signal.Signals, code: int) -> None:
    with start_process(pause_s=1.0) as (process, port), connect(port) as client:
        ask(client, "word " * 1000, stream=True)
        assert client.recv(1, socket.MSG_PEEK)
        process.send_signal(signal.SIGTERM)
        time.sleep(0.2)
        assert process.poll() is None
        process.send_signal(second)
        assert process.wait(2) == code


def test_an_idle_server_ends_at_once() -> None:
    with start_process() as (process, port), connect(port) as client:
        client.sendall(head_of("GET", "/health/live"))
        read_response(client)
        process.send_signal(signal.SIGTERM)
        assert process.wait(5) == 0
        assert client.recv(1) == b""


def test_the_port_is_free_at_once_whatever_ended_the_server() -> None:
    with start_process() as (process, port), connect(port) as client:
        client.sendall(head_of("GET", "/health/live"))
        read_response(client)
        process.kill()
        process.wait()
        with start_process(port) as (_, again), connect(again) as other:
            assert again == port
            other.sendall(head_of("GET", "/health/live"))
            assert read_response(other)[0] == 200


def test_what_cannot_begin_ends_the_server_and_says_why() -> None:
    with running() as server:
        server.behind.refusal = UserError("run:demo was rejected")
        assert eventually(lambda: server.failure is not None)
        assert str(server.failure) == "run:demo was rejected"
        assert server.behind.backend.closed
        with pytest.raises(ConnectionRefusedError):
            connect(server.port)


def flood(port: int, sockets: int) -> None:
    """Opens sockets that say nothing, and asks for health all the while."""
    with ExitStack() as stack:
        for index in range(sockets):
            try:
                stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=5))
            except OSError as error:  # pragma: no cover
                pytest.fail(f"socket {index}: {error}")
            if index % (sockets // 6) == 0:
                check(port)
        check(port)


def check(port: int) -> None:
    with connect(port) as client:
        began = time.monotonic()
        client.sendall(head_of("GET", "/health/live"))
        assert read_response(client)[0] == 200
        assert time.monotonic() - began < 5


def test_health_answers_with_six_hundred_open_sockets() -> None:
    with running(Limits(connections=200)) as server:
        flood(server.port, 600)


@pytest.mark.slow
def test_health_answers_with_ten_thousand_open_sockets() -> None:
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        with start_process() as (process, port):
            flood(port, min(10_000, hard - 200))
            assert process.poll() is None
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_running_out_of_files_neither_ends_the_server_nor_keeps_it_busy(tmp_path: Path) -> None:
    """The limit is put so low, and the connections so many, that accepting fails."""
    script = tmp_path / "few_files.py"
    script.write_text(
        "import resource, sys\n"
        "import small_server, whetstone.serve.net.open_files as files\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))\n"
        "small_server.raise_open_files = lambda connections: connections\n"
        "sys.exit(small_server._main())\n"
    )
    path = os.pathsep.join(filter(None, sys.path))
    process = subprocess.Popen(
        [sys.executable, str(script), json.dumps({"port": 0, "pause_s": 0, "drain_s": 1})],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
    )
    try:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        with ExitStack() as stack:
            for _ in range(120):
                stack.enter_context(connect(port))
            before = cpu_s(process.pid)
            time.sleep(0.6)
            assert cpu_s(process.pid) - before < 0.3
            assert process.poll() is None
            for _ in range(3):
                check(port)
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=10)
        assert process.returncode == 0
        assert "connections have to wait or to end" in errors
    finally:
        process.kill()
        process.communicate()


def cpu_s(pid: int) -> float:
    psutil = pytest.importorskip("psutil")
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)
