"""Names and origins, as browsers send them."""

import asyncio
import json
from typing import Any

import pytest
from starlette.types import Message, Receive, Scope, Send

from whetstone.serve.net.guarded import guarded
from whetstone.serve.net.host_check import is_loopback_name
from whetstone.serve_section import Limits

JSON = ("content-type", "application/json")


def asked(
    method: str,
    *headers: tuple[str, str],
    only_loopback: bool = True,
    hosts: tuple[str, ...] = (),
    origins: tuple[str, ...] = (),
    http_version: str = "1.1",
) -> tuple[int, str | None, dict[bytes, bytes]]:
    """Status, code of the error, and headers of the response."""
    sent: list[Message] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"cache-control", b"private")]})
        await send({"type": "http.response.body", "body": b"{}"})

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)

    scope: dict[str, Any] = {
        "type": "http",
        "method": method,
        "http_version": http_version,
        "headers": [(name.encode(), value.encode("latin-1")) for name, value in headers],
    }
    whole = guarded(app, Limits(), only_loopback=only_loopback, hosts=hosts, origins=origins)

    async def ask() -> None:
        await whole(scope, receive, send)

    asyncio.run(ask())
    start, body = sent
    error = json.loads(body["body"]).get("error", {}) if body["body"].startswith(b"{") else {}
    return start["status"], error.get("code"), dict(start["headers"])


@pytest.mark.parametrize(
    "host",
    ["localhost", "LOCALHOST:8000", "127.0.0.1", "127.9.9.9:1", "[::1]", "[::1]:8000", "a.localhost", "localhost."],
)
def test_names_of_this_machine(host: str) -> None:
    assert asked("GET", ("host", host))[0] == 200


@pytest.mark.parametrize(
    "host",
    ["evil.test", "localhost.evil.test:8000", "127.0.0.1.evil.test", "10.0.0.1", "[::2]", "", "@localhost", "0.0.0.0"],
)
def test_names_of_others(host: str) -> None:
    assert asked("GET", ("host", host))[:2] == (403, "host_not_allowed")
    assert asked("GET", ("host", host), only_loopback=False)[0] == 200


def test_names_that_are_allowed() -> None:
    assert asked("GET", ("host", "Box.local:8000"), hosts=("box.local",))[0] == 200
    assert asked("GET", ("host", "other.local"), hosts=("box.local",))[1] == "host_not_allowed"


def test_a_request_has_one_host() -> None:
    assert asked("GET")[:2] == (400, "invalid_host")
    assert asked("GET", ("host", "localhost"), ("host", "evil.test"))[:2] == (400, "invalid_host")
    assert asked("GET", http_version="1.0", only_loopback=False)[0] == 200
    assert asked("GET", http_version="1.0")[1] == "host_not_allowed"


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", None])
def test_a_form_is_no_request(kind: str | None) -> None:
    headers = [("host", "localhost")] + ([] if kind is None else [("content-type", kind)])
    assert asked("POST", *headers)[:2] == (415, "unsupported_media_type")


def test_two_kinds_are_none() -> None:
    assert asked("POST", ("host", "localhost"), JSON, ("content-type", "text/plain"))[0] == 415


@pytest.mark.parametrize("kind", ["application/json", "Application/JSON; charset=utf-8"])
def test_json_is_one(kind: str) -> None:
    assert asked("POST", ("host", "localhost"), ("content-type", kind))[0] == 200


@pytest.mark.parametrize(
    ("headers", "allowed"),
    [
        ([("origin", "http://localhost:8000")], True),
        ([("origin", "http://localhost:9000")], False),
        ([("origin", "https://evil.test")], False),
        ([("origin", "null")], False),
        ([("origin", "http://[")], False),
        ([("origin", "http://localhost:8000"), ("origin", "https://evil.test")], False),
        ([("sec-fetch-site", "same-origin")], True),
        ([("sec-fetch-site", "none")], True),
        ([("sec-fetch-site", "cross-site")], False),
        ([("sec-fetch-site", "same-site"), ("origin", "http://localhost:8000")], False),
        ([("origin", "https://app.test"), ("sec-fetch-site", "cross-site")], True),
        ([], True),
    ],
)
@pytest.mark.parametrize("method", ["POST", "DELETE"])
def test_pages_of_other_origins_may_not_ask(method: str, headers: list[tuple[str, str]], allowed: bool) -> None:
    status, code, _ = asked(method, ("host", "localhost:8000"), JSON, *headers, origins=("https://app.test",))
    assert (status, code) == ((200, None) if allowed else (403, "origin_not_allowed"))


def test_reading_is_left_to_the_browser() -> None:
    status, _, headers = asked("GET", ("host", "localhost"), ("origin", "https://evil.test"))
    assert status == 200
    assert b"access-control-allow-origin" not in headers


def test_an_allowed_page_is_told_so_and_another_is_not() -> None:
    preflight = [("host", "localhost"), ("access-control-request-method", "POST")]
    for origin, status in (("https://app.test", 200), ("https://evil.test", 400)):
        got, _, headers = asked("OPTIONS", *preflight, ("origin", origin), origins=("https://app.test",))
        assert got == status
        assert (headers.get(b"access-control-allow-origin") == b"https://app.test") == (status == 200)
    headers = asked("OPTIONS", *preflight, ("origin", "https://app.test"))[2]
    assert b"access-control-allow-origin" not in headers


def test_every_response_has_the_headers_and_what_a_handler_says_counts() -> None:
    for headers in ([("host", "localhost")], [("host", "evil.test")]):
        said = asked("GET", *headers)[2]
        assert said[b"x-content-type-options"] == b"nosniff"
        assert said[b"x-frame-options"] == b"DENY"
        assert said[b"content-security-policy"].startswith(b"default-src 'none'")
        assert said[b"x-request-id"].startswith(b"req-")
    assert asked("GET", ("host", "localhost"))[2][b"cache-control"] == b"private"
    assert said[b"cache-control"] == b"no-store"


@pytest.mark.parametrize(("own", "kept"), [("mine-1._X", True), ("x" * 128, True), ("x" * 129, False), ("a\tb", False)])
def test_a_client_may_give_the_id_of_its_request(own: str, kept: bool) -> None:
    said = asked("GET", ("host", "localhost"), ("x-request-id", own))[2][b"x-request-id"].decode()
    assert (said == own) == kept


def test_names_are_told_apart_without_asking_anybody() -> None:
    assert is_loopback_name("localhost")
    assert not is_loopback_name("localhosts")
    assert not is_loopback_name("")
