"""A small application behind the real border of a server: in a thread, or as a process of its own.

As a process it prints its port, and takes the settings of ``start_process`` as one JSON object.
"""

import asyncio
import contextlib
import json
import logging
import os
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from scripted_backend import ScriptedBackend
from whetstone.data.example import Message
from whetstone.engine.api import Sampling
from whetstone.errors import UserError
from whetstone.serve.errors import ServeError
from whetstone.serve.net.connections import ClientLimits
from whetstone.serve.net.guarded import guarded
from whetstone.serve.net.listener import bind
from whetstone.serve.net.open_files import raise_open_files
from whetstone.serve.net.server import Server
from whetstone.serve.question import Ending, Question
from whetstone.serve_section import Limits

__all__ = ["SmallServer", "connect", "eventually", "head_of", "read_response", "running", "start_process"]


class SmallApp:
    """Answers in capitals, a word a piece; ``/flood`` never ends, ``/deaf`` hears nothing, and ``/defect`` is one.

    Attributes:
        given: Pieces of ``/flood`` that were taken from it.
        floods_ended: How often somebody stopped taking them.
        refusal: Set it, and the server ends with it.
    """

    def __init__(self, pause_s: float = 0.0) -> None:
        self.backend = ScriptedBackend(pause_s=pause_s)
        self.draining = False
        self.given = 0
        self.floods_ended = 0
        self.refusal: UserError | None = None
        routes = [
            Route("/health/live", self._live),
            Route("/v1/answer", self._answer, methods=["POST"]),
            Route("/v1/early", self._early, methods=["POST"]),
            Route("/flood", self._flood),
            Route("/defect", self._defect),
            Route("/stuck", self._stuck),
            Route("/deaf", self._deaf),
        ]
        self.app = Starlette(routes=routes)

    async def start(self) -> None:
        await self.backend.start()

    async def failed(self) -> UserError:
        while self.refusal is None:
            await asyncio.sleep(0.01)
        return self.refusal

    def drain(self) -> None:
        self.draining = True

    async def close(self) -> None:
        await self.backend.close()

    async def _live(self, request: Request) -> Response:
        return JSONResponse({"live": True, "request_id": request.state.request_id})

    async def _answer(self, request: Request) -> Response:
        body = await request.json()
        if self.draining:
            error = ServeError.unavailable("the server ends", 1.0, code="draining")
            return JSONResponse(error.as_json(), error.status, error.headers())
        question = Question("demo", (Message("user", body["text"]),), None, Sampling(), 0)
        if body.get("stream"):
            return StreamingResponse(self._events(question), media_type="text/event-stream")
        pieces = [piece async for piece in self.backend.ask(question)]
        return JSONResponse({"text": "".join(piece.text for piece in pieces if not isinstance(piece, Ending))})

    async def _events(self, question: Question) -> AsyncIterator[str]:
        async for piece in self.backend.ask(question):
            text = "[DONE]" if isinstance(piece, Ending) else json.dumps({"text": piece.text})
            yield f"data: {text}\n\n"

    async def _early(self, request: Request) -> Response:
        return JSONResponse({"read": False})

    async def _flood(self, request: Request) -> Response:
        async def pieces() -> AsyncIterator[bytes]:
            try:
                while True:
                    self.given += 1
                    yield b"x" * 4096
                    await asyncio.sleep(0)
            finally:
                self.floods_ended += 1

        return StreamingResponse(pieces(), media_type="text/plain")

    async def _defect(self, request: Request) -> Response:
        raise ZeroDivisionError(request.query_params["said"])

    async def _stuck(self, request: Request) -> Response:
        """Answers when the backend is closed."""
        while not self.backend.closed:
            await asyncio.sleep(0.01)
        return JSONResponse({}, 503)

    async def _deaf(self, request: Request) -> Response:
        await asyncio.sleep(1000)
        return JSONResponse({})


class SmallServer:
    """What a test sees of one that runs in a thread."""

    def __init__(self, port: int, behind: SmallApp) -> None:
        self.port = port
        self.behind = behind
        self.exit_code: int | None = None
        self.failure: BaseException | None = None


@contextlib.contextmanager
def running(
    limits: Limits | None = None,
    *,
    client: dict[str, Any] | None = None,
    only_loopback: bool = True,
    origins: tuple[str, ...] = (),
    tls: ssl.SSLContext | None = None,
    pause_s: float = 0.0,
    drain_s: float = 0.1,
) -> Iterator[SmallServer]:
    """A server in a thread, until the block ends.

    Args:
        limits: Of the experiment.
        client: What ``ClientLimits`` says otherwise.
        only_loopback: Of the check of hosts.
        origins: Of the check of hosts.
        tls: Of all connections.
        pause_s: Before each word of an answer.
        drain_s: Instead of the one of the limits.
    """
    limits = (limits or Limits()).model_copy(update={"drain_s": drain_s})
    [bound] = bind("127.0.0.1", 0)
    small = SmallServer(bound.getsockname()[1], SmallApp(pause_s))
    loops: list[tuple[asyncio.AbstractEventLoop, Server]] = []
    ready = threading.Event()

    async def main() -> None:
        server = Server(
            guarded(small.behind.app, limits, only_loopback=only_loopback, origins=origins),
            small.behind,
            [bound],
            replace(ClientLimits.of(limits), **(client or {})),
            drain_s=limits.drain_s,
            tls=tls,
        )
        loops.append((asyncio.get_running_loop(), server))
        ready.set()
        try:
            small.exit_code = await server.serve()
        except UserError as error:
            small.failure = error

    thread = threading.Thread(target=lambda: asyncio.run(main()), daemon=True)
    thread.start()
    assert ready.wait(10)
    try:
        yield small
    finally:
        loop, server = loops[0]
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(server.end)
        thread.join(20)
        assert not thread.is_alive()


def connect(port: int) -> socket.socket:
    """A connection to a server on this machine."""
    return socket.create_connection(("127.0.0.1", port), timeout=20)


def eventually(holds: Callable[[], bool], within_s: float = 5.0) -> bool:
    """Whether something comes true soon."""
    ends = time.monotonic() + within_s
    while not holds() and time.monotonic() < ends:
        time.sleep(0.01)
    return holds()


def head_of(method: str, path: str, **headers: str) -> bytes:
    """The head of a request; an underscore in a name stands for a hyphen."""
    said = {"host": "localhost", **{name.replace("_", "-"): value for name, value in headers.items()}}
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in said.items())]
    return "\r\n".join([*lines, "", ""]).encode()


def read_response(client: socket.socket) -> tuple[int, dict[str, str], bytes]:
    """The next response whose length is said; gives status, headers and body."""
    buffer = b""
    while b"\r\n\r\n" not in buffer:
        piece = client.recv(65536)
        assert piece, f"the connection ended after {buffer!r}"
        buffer += piece
    head, _, body = buffer.partition(b"\r\n\r\n")
    status, *lines = head.decode().split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    while len(body) < int(headers["content-length"]):
        piece = client.recv(65536)
        assert piece, "the connection ended amid the body"
        body += piece
    return int(status.split()[1]), headers, body


@contextlib.contextmanager
def start_process(
    port: int = 0, *, pause_s: float = 0.0, drain_s: float = 30.0
) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """The same as a process; gives it and its port."""
    settings = {"port": port, "pause_s": pause_s, "drain_s": drain_s}
    path = os.pathsep.join(filter(None, (str(Path(__file__).parent), *sys.path)))
    process = subprocess.Popen(
        [sys.executable, __file__, json.dumps(settings)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            assert process.stderr is not None
            pytest.fail(process.stderr.read())
        yield process, int(line)
    finally:
        process.kill()
        process.communicate()


def _main() -> int:
    settings = json.loads(sys.argv[1])
    logging.basicConfig(level=logging.INFO)
    limits = Limits(drain_s=settings["drain_s"], connections=raise_open_files(Limits().connections))
    behind = SmallApp(settings["pause_s"])
    try:
        sockets = bind("127.0.0.1", settings["port"])
    except UserError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    sys.stdout.write(f"{sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    app = guarded(behind.app, limits, only_loopback=True)
    return Server(app, behind, sockets, ClientLimits.of(limits), drain_s=limits.drain_s).run()


if __name__ == "__main__":
    sys.exit(_main())
