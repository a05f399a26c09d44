"""A real server on a free port, in a thread, in front of backends that say what they are told."""

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
import uvicorn
from openai import AsyncOpenAI, OpenAI

from whetstone.serve.answered import Answered
from whetstone.serve.api.app import build_app
from whetstone.serve.api.service import Service
from whetstone.serve.backend import Backend
from whetstone.serve.cache import AnswerCache
from whetstone.serve.gate.admission import Admission
from whetstone.serve.gate.keys import KeyRing
from whetstone.serve_section import Serve


@dataclass
class Serving:
    """A server that runs.

    Attributes:
        url: Where.
        service: What its handlers share.
        records: What became of requests.
    """

    url: str
    service: Service
    records: list[Answered]

    def client(self, key: str = "none") -> OpenAI:
        """OpenAI's own."""
        return OpenAI(base_url=f"{self.url}/v1", api_key=key, max_retries=0)

    def async_client(self) -> AsyncOpenAI:
        """The same for asynchronous code."""
        return AsyncOpenAI(base_url=f"{self.url}/v1", api_key="none", max_retries=0)

    def post(self, path: str, body: object, **headers: str) -> httpx.Response:
        """Sends JSON, or bytes as they are."""
        said: dict[str, Any] = {"content": body} if isinstance(body, bytes) else {"json": body}
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return httpx.post(f"{self.url}{path}", headers={"content-type": "application/json", **named}, **said)

    def ask(self, text: str = "one two three", **more: object) -> httpx.Response:
        """Asks in a chat."""
        headers = {"x-whetstone-deadline-s": str(more.pop("deadline_s"))} if "deadline_s" in more else {}
        body = {"model": "demo", "messages": [{"role": "user", "content": text}], **more}
        return self.post("/v1/chat/completions", body, **headers)

    def told(self, count: int) -> list[Answered]:
        """So many records, which come a moment after the last bytes of a response."""
        self.wait_for(lambda: len(self.records) >= count)
        assert len(self.records) == count
        return self.records

    def record(self) -> Answered:
        """The only one."""
        return self.told(1)[0]

    def wait_for(self, true: Callable[[], bool]) -> None:
        """Waits until something is so."""
        end = time.monotonic() + 5
        while not true():
            assert time.monotonic() < end, "it did not come to pass"
            time.sleep(0.005)


@dataclass
class Noted:
    """A listener that keeps all."""

    records: list[Answered] = field(default_factory=list)

    def answered(self, answered: Answered) -> None:
        self.records.append(answered)


@pytest.fixture
def serving() -> Iterator[Callable[..., Serving]]:
    """Starts a server in front of backends, the last of which may be fallbacks."""
    with contextlib.ExitStack() as stack:

        def start(
            *backends: Backend,
            fallbacks: Sequence[Backend] = (),
            keyring: KeyRing | None = None,
            cache_bytes: int = 0,
            **settings: object,
        ) -> Serving:
            section = Serve.model_validate({"cache_bytes": cache_bytes, **settings})
            noted = Noted()
            service = Service(
                settings=section,
                backends=(*backends, *fallbacks),
                keyring=keyring or KeyRing(None, ()),
                admission=Admission(section.limits),
                fallbacks=tuple(fallbacks),
                cache=AnswerCache(cache_bytes) if cache_bytes else None,
                listeners=(noted,),
            )
            return Serving(stack.enter_context(_running(service)), service, noted.records)

        yield start


@contextlib.contextmanager
def _running(service: Service) -> Iterator[str]:
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(build_app(service), log_config=None, lifespan="off", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=asyncio.run, args=(server.serve([listener]),), daemon=True)
    thread.start()
    try:
        # The socket listens already: a request waits until the server takes it.
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(10)
        listener.close()
