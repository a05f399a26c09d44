"""What a connection bears, with real sockets: the time-outs are short, so that they happen."""

import json
import socket
import time
from contextlib import ExitStack
from typing import Any

import pytest

from small_server import connect, eventually, head_of, read_response, running
from whetstone.serve_section import Limits

LIVE = head_of("GET", "/health/live")
QUICK = {"head_s": 0.2, "keep_alive_s": 0.5, "linger_s": 0.2}


def error_of(body: bytes) -> dict[str, Any]:
    error = json.loads(body)["error"]
    assert isinstance(error, dict)
    return error


def is_closed(client: socket.socket) -> bool:
    """Whether the server ends the connection, without another byte."""
    try:
        return client.recv(1) == b""
    except ConnectionResetError:
        return True


def test_requests_share_a_connection() -> None:
    with running() as server, connect(server.port) as client:
        for _ in range(3):
            client.sendall(LIVE)
            status, headers, body = read_response(client)
            assert (status, json.loads(body)["live"]) == (200, True)
        assert "server" not in headers
        assert headers["date"].endswith(" GMT")


def test_requests_may_come_before_the_answers_to_others() -> None:
    with running(pause_s=0.05) as server, connect(server.port) as client:
        for text in ("one two", "three"):
            body = json.dumps({"text": text}).encode()
            client.sendall(
                head_of("POST", "/v1/answer", content_type="application/json", content_length=str(len(body)))
            )
            client.sendall(body)
        assert json.loads(read_response(client)[2])["text"] == "ONE TWO"
        assert json.loads(read_response(client)[2])["text"] == "THREE"


@pytest.mark.parametrize("before", [b"", LIVE])
def test_the_head_of_a_request_may_not_trickle(before: bytes) -> None:
    with running(client=QUICK) as server, connect(server.port) as client:
        if before:
            client.sendall(before)
            read_response(client)
        began = time.monotonic()
        client.sendall(LIVE[:-10])
        for _ in range(2):
            time.sleep(0.05)
            client.sendall(b"x")
        status, headers, body = read_response(client)
        assert (status, error_of(body)["code"]) == (408, "header_timeout")
        assert headers["connection"] == "close"
        assert headers["x-request-id"].startswith("req-")
        assert headers["x-content-type-options"] == "nosniff"
        assert is_closed(client)
        assert time.monotonic() - began >= 0.2


def test_whoever_says_nothing_is_left_without_a_word() -> None:
    with running(client=QUICK) as server, connect(server.port) as client:
        assert is_closed(client)


@pytest.mark.parametrize("noise", [b"", b"\r\n"])
def test_an_idle_connection_ends(noise: bytes) -> None:
    with running(client=QUICK) as server, connect(server.port) as client:
        client.sendall(LIVE)
        read_response(client)
        time.sleep(0.3)
        client.sendall(noise)  # empty lines are no request and win no time
        began = time.monotonic()
        assert is_closed(client)
        assert time.monotonic() - began < 0.45


def test_what_is_not_http_is_told_so() -> None:
    with running() as server, connect(server.port) as client:
        client.sendall(b"\x16\x03\x01 what\r\n\r\n")
        status, _, body = read_response(client)
        assert (status, error_of(body)["code"]) == (400, "invalid_http")
        assert is_closed(client)


@pytest.mark.parametrize(
    "request_head",
    [
        b"POST /v1/answer HTTP/1.1\r\nhost: localhost\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n",
        b"POST /v1/answer HTTP/1.1\r\nhost: localhost\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\n",
        b"GET http://[ HTTP/1.1\r\nhost: localhost\r\n\r\n",
        b"CONNECT localhost:80 HTTP/1.1\r\nhost: localhost\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nhost: localhost\r\n\r\n",
    ],
    ids=["two lengths", "lengths differ", "no url", "connect", "not ascii"],
)
def test_what_is_ambiguous_is_not_guessed(request_head: bytes) -> None:
    with running() as server, connect(server.port) as client:
        client.sendall(request_head)
        assert read_response(client)[0] == 400
        assert is_closed(client)


def test_rubbish_amid_an_answer_ends_the_connection_and_is_not_answered_within_it() -> None:
    with running() as server, connect(server.port) as client:
        client.sendall(head_of("GET", "/stuck"))
        time.sleep(0.1)
        client.sendall(b"\x00\x00 rubbish\r\n\r\n")
        assert is_closed(client)


@pytest.mark.parametrize(
    "lines",
    [b"a: " + b"x" * 40_000 + b"\r\n\r\n", b"".join(b"h%d: x\r\n" % n for n in range(101)) + b"\r\n", b"a" * 40_000],
    ids=["long", "many", "endless"],
)
def test_the_head_of_a_request_may_not_be_large(lines: bytes) -> None:
    with running() as server, connect(server.port) as client:
        client.sendall(b"GET /health/live HTTP/1.1\r\nhost: localhost\r\n" + lines)
        status, _, body = read_response(client)
        assert (status, error_of(body)["code"]) == (431, "headers_too_large")
        assert is_closed(client)


def test_an_upgrade_that_is_not_given_is_answered_without() -> None:
    with running() as server, connect(server.port) as client:
        for _ in range(2):
            client.sendall(head_of("GET", "/health/live", connection="Upgrade", upgrade="websocket"))
            assert read_response(client)[0] == 200


def test_only_so_many_requests_may_wait_on_one_connection() -> None:
    with running() as server, connect(server.port) as client:
        client.sendall(head_of("GET", "/stuck") + LIVE * 16)
        time.sleep(0.1)
        with connect(server.port) as other:
            other.sendall(head_of("GET", "/stuck") + LIVE * 17)
            assert is_closed(other)
        client.setblocking(False)
        with pytest.raises(BlockingIOError):
            client.recv(1)


def test_a_client_may_ask_before_it_sends_and_offer_http_2() -> None:
    """As curl does with long bodies, and Java's client with all of them."""
    body = json.dumps({"text": "as you like"}).encode()
    with running() as server, connect(server.port) as client:
        said = {"content_type": "application/json", "content_length": str(len(body)), "expect": "100-continue"}
        client.sendall(head_of("POST", "/v1/answer", connection="Upgrade, HTTP2-Settings", upgrade="h2c", **said))
        assert client.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.sendall(body)
        status, _, answer = read_response(client)
        assert (status, json.loads(answer)) == (200, {"text": "AS YOU LIKE"})


def test_a_body_that_nobody_reads_is_not_waited_for() -> None:
    with running() as server, connect(server.port) as client:
        # The host is refused before the body is looked at.
        client.sendall(
            head_of("POST", "/v1/early", host="evil.test", content_type="application/json", content_length="9")
        )
        status, headers, _ = read_response(client)
        assert (status, headers["connection"]) == (403, "close")
        client.sendall(b"late")
        assert is_closed(client)


def test_a_defect_is_told_to_the_client_but_not_what_it_said(caplog: pytest.LogCaptureFixture) -> None:
    with running() as server, connect(server.port) as client:
        client.sendall(head_of("GET", "/defect?said=a+secret", x_request_id="mine.1"))
        status, headers, body = read_response(client)
        assert status == 500
        assert headers["x-request-id"] == "mine.1"
    assert "request mine.1 failed: ZeroDivisionError" in caplog.text
    assert "_defect" in caplog.text
    assert "secret" not in caplog.text + body.decode()


def test_a_client_that_does_not_read_holds_up_the_application_and_is_cut_off() -> None:
    with running(client={"stall_s": 0.5}) as server, connect(server.port) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.sendall(head_of("GET", "/flood"))
        time.sleep(0.3)
        given = server.behind.given
        # Its own buffer of 64 KiB, the two of the kernel, and what the client's may have grown to before it was set.
        assert 0 < given * 4096 < 8 * 2**20
        time.sleep(0.1)
        assert server.behind.given == given
        assert eventually(lambda: server.behind.floods_ended == 1)


def test_a_client_that_reads_slowly_is_not_cut_off() -> None:
    with running(client={"stall_s": 0.4}) as server, connect(server.port) as client:
        client.sendall(head_of("GET", "/flood"))
        ends = time.monotonic() + 1.5
        while time.monotonic() < ends:
            assert client.recv(2**18)
            time.sleep(0.05)


def test_the_connection_that_is_idle_for_longest_gives_way() -> None:
    with running(Limits(connections=3)) as server, ExitStack() as stack:
        clients = [stack.enter_context(connect(server.port)) for _ in range(3)]
        for client in clients:
            client.sendall(LIVE)
            read_response(client)
        clients[0].sendall(LIVE)  # now the second is the idlest
        read_response(clients[0])
        newest = stack.enter_context(connect(server.port))
        newest.sendall(LIVE)
        assert read_response(newest)[0] == 200
        assert is_closed(clients[1])
        for client in (clients[0], clients[2]):
            client.sendall(LIVE)
            assert read_response(client)[0] == 200


def test_where_all_are_busy_the_next_is_told_so() -> None:
    with running(Limits(connections=2)) as server, ExitStack() as stack:
        for _ in range(2):
            stack.enter_context(connect(server.port)).sendall(head_of("GET", "/stuck"))
        time.sleep(0.2)
        refused = stack.enter_context(connect(server.port))
        refused.sendall(LIVE)
        status, headers, body = read_response(refused)
        assert (status, error_of(body)["code"]) == (503, "too_many_connections")
        assert headers["retry-after"] == "1"
        assert is_closed(refused)


def test_clients_that_send_little_by_little_keep_nobody_out() -> None:
    with running(Limits(connections=20)) as server, ExitStack() as stack:
        length = head_of("POST", "/v1/answer", content_type="application/json", content_length="10")
        for index in range(60):
            stack.enter_context(connect(server.port)).sendall((LIVE[:-5], length, b"")[index % 3])
        for _ in range(3):
            client = stack.enter_context(connect(server.port))
            client.sendall(LIVE)
            assert read_response(client)[0] == 200


def test_the_end_of_a_client_is_noticed() -> None:
    with running(pause_s=0.05) as server:
        body = json.dumps({"text": "word " * 400, "stream": True}).encode()
        with connect(server.port) as client:
            client.sendall(
                head_of("POST", "/v1/answer", content_type="application/json", content_length=str(len(body))) + body
            )
            client.recv(100)
        assert eventually(lambda: bool(server.behind.backend.cancelled))
