"""Bodies with real sockets, and the application's view of those that are cut off."""

import asyncio
import json
import time
from typing import Any

import pytest
from starlette.types import Message, Receive, Scope, Send

from small_server import connect, head_of, read_response, running
from whetstone.serve.net.body_limit import BodyLimit
from whetstone.serve_section import Limits

SMALL = Limits(body_bytes=1000, header_s=0.2)
CHUNKED = head_of("POST", "/v1/answer", content_type="application/json", transfer_encoding="chunked")


def post(length: int, **headers: str) -> bytes:
    return head_of("POST", "/v1/answer", content_type="application/json", content_length=str(length), **headers)


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def code_of(body: bytes) -> Any:
    return json.loads(body)["error"]["code"]


def test_a_hundred_megabytes_are_refused_unread() -> None:
    with running() as server, connect(server.port) as client:
        client.sendall(post(100 * 2**20, expect="100-continue"))
        # Nothing of the body was sent, so that nothing can have been read.
        status, headers, body = read_response(client)
        assert (status, code_of(body), headers["connection"]) == (413, "body_too_large", "close")
        assert client.recv(1) == b""


def test_who_sends_a_hundred_megabytes_all_the_same_can_read_why_not() -> None:
    sent = 0
    with running() as server, connect(server.port) as client:
        client.sendall(post(100 * 2**20))
        try:
            for _ in range(100):
                client.sendall(bytes(2**20))
                sent += 1
        except (BrokenPipeError, ConnectionResetError):
            pass
        assert sent < 20
        assert read_response(client)[0] == 413


def test_pieces_are_refused_as_soon_as_they_are_too_many() -> None:
    with running(SMALL) as server, connect(server.port) as client:
        client.sendall(CHUNKED + chunk(b"x" * 600))
        time.sleep(0.05)
        client.sendall(chunk(b"x" * 600))
        status, _, body = read_response(client)
        assert (status, code_of(body)) == (413, "body_too_large")
        assert client.recv(1) == b""


def test_pieces_within_the_limit_are_one_body() -> None:
    text = json.dumps({"text": "little by little"}).encode()
    with running(SMALL) as server, connect(server.port) as client:
        client.sendall(CHUNKED)
        for place in range(0, len(text), 10):
            client.sendall(chunk(text[place : place + 10]))
            time.sleep(0.02)
        client.sendall(chunk(b""))
        assert json.loads(read_response(client)[2]) == {"text": "LITTLE BY LITTLE"}


@pytest.mark.parametrize("head", [post(500), CHUNKED], ids=["length", "chunked"])
def test_a_body_that_does_not_come_is_not_waited_for(head: bytes) -> None:
    with running(SMALL) as server, connect(server.port) as client:
        client.sendall(head)
        began = time.monotonic()
        status, _, body = read_response(client)
        assert (status, code_of(body)) == (408, "body_timeout")
        assert time.monotonic() - began >= 0.2
        assert client.recv(1) == b""


def test_a_body_may_not_trickle_for_ever() -> None:
    limits = Limits(header_s=0.2, deadline_s=0.5)
    with running(limits) as server, connect(server.port) as client:
        client.sendall(post(500))
        for _ in range(10):
            client.sendall(b"x")
            time.sleep(0.1)
        assert read_response(client)[0] == 408


@pytest.mark.parametrize("length", [1000, 1001])
def test_the_limit_itself_is_allowed(length: int) -> None:
    text = json.dumps({"text": ""})
    body = json.dumps({"text": "x" * (length - len(text))}).encode()
    assert len(body) == length
    with running(SMALL) as server, connect(server.port) as client:
        client.sendall(post(length) + body)
        assert read_response(client)[0] == (200 if length == 1000 else 413)


def test_an_application_that_makes_its_own_of_it_does_not_answer_twice() -> None:
    sent: list[Message] = []
    heard: list[str] = []
    pieces: list[Message] = [{"type": "http.request", "body": b"x" * 600, "more_body": True}] * 2

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        heard.extend([(await receive())["type"] for _ in range(3)])
        await send({"type": "http.response.start", "status": 400, "headers": []})
        await send({"type": "http.response.body", "body": b"what?"})

    async def receive() -> Message:
        return pieces.pop()

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {"type": "http", "headers": [(b"transfer-encoding", b"chunked")]}
    asyncio.run(BodyLimit(app, SMALL)(scope, receive, send))
    assert heard == ["http.request", "http.disconnect", "http.disconnect"]
    assert [message.get("status") for message in sent] == [413, None]
