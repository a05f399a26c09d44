"""Requests that end otherwise than with an answer."""

import json
import threading
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest
from openai import APIError, APIStatusError, AuthenticationError, InternalServerError

from scripted_backend import ScriptedBackend
from whetstone.serve.errors import ServeError
from whetstone.serve.gate.key_file import StoredKey, hashed
from whetstone.serve.gate.keys import KeyRing
from whetstone.serve.question import Ending, Piece, Question

Start = Callable[..., Any]

USER: list[Any] = [{"role": "user", "content": "one two three"}]
LONG = " ".join(["word"] * 1000)


class Bursts(ScriptedBackend):
    """Fails as nobody foresaw, with what was asked in the message."""

    async def ask(self, question: Question) -> AsyncIterator[Piece | Ending]:
        yield Piece("one")
        raise ValueError(f"secret {question.prompt}")


class EndsEarly(ScriptedBackend):
    """Stops without saying why."""

    async def ask(self, question: Question) -> AsyncIterator[Piece | Ending]:
        yield Piece("one", (1,))


def code_of(response: httpx.Response) -> tuple[int, str]:
    return response.status_code, response.json()["error"]["code"]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("n", [1, 3])
def test_who_hangs_up_is_not_answered(serving: Start, stream: bool, n: int) -> None:
    backend = ScriptedBackend(pause_s=0.02)
    server = serving(backend)
    body = {"model": "demo", "messages": [{"role": "user", "content": LONG}], "stream": stream, "n": n}
    with httpx.Client() as client:
        if stream:
            with client.stream("POST", f"{server.url}/v1/chat/completions", json=body) as response:
                next(response.iter_bytes())
        else:
            with pytest.raises(httpx.ReadTimeout):
                client.post(f"{server.url}/v1/chat/completions", json=body, timeout=0.2)
    began = time.monotonic()
    server.wait_for(lambda: len(backend.cancelled) == n)
    assert time.monotonic() - began < 1
    records = server.told(n if stream else 1)
    assert {record.outcome for record in records} == {"disconnected"}
    assert 0 < sum(record.new_tokens for record in records) < 1000 * n
    assert backend.load.running == 0
    assert server.service.admission.running == 0


def test_who_hangs_up_while_waiting_leaves_the_queue(serving: Start) -> None:
    backend = ScriptedBackend(pause_s=0.02)
    server = serving(backend, limits={"running": 1})
    first = threading.Thread(target=server.ask, args=(" ".join(["word"] * 40),))
    first.start()
    server.wait_for(lambda: server.service.admission.running == 1)
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{server.url}/v1/chat/completions", json={"model": "demo", "messages": USER}, timeout=0.1)
    server.wait_for(lambda: server.service.admission.waiting == 0)
    first.join()
    gone, done = server.told(2)
    assert (gone.outcome, gone.admitted_s, gone.asked) == ("disconnected", None, "one two three")
    assert done.outcome == "ok"
    assert len(backend.questions) == 1


@pytest.mark.parametrize("stream", [False, True])
def test_a_failure_before_the_first_piece_has_a_status(serving: Start, stream: bool) -> None:
    backend = ScriptedBackend()
    backend.failure = ServeError.unavailable("too much to do", 3.0, "overloaded")
    server = serving(backend)
    with pytest.raises(InternalServerError) as raised:
        server.client().chat.completions.create(model="demo", messages=USER, stream=stream)
    assert (raised.value.status_code, raised.value.code) == (503, "overloaded")
    assert raised.value.response.headers["retry-after"] == "3"
    assert (server.record().outcome, server.record().status) == ("overloaded", 503)


def test_a_failure_amid_a_stream_is_raised_by_the_client(serving: Start) -> None:
    backend = ScriptedBackend(pause_s=0.01)
    server = serving(backend)
    said = ""
    with pytest.raises(APIError) as raised:
        for chunk in server.client().chat.completions.create(model="demo", messages=USER, stream=True):
            said += chunk.choices[0].delta.content or ""
            if said == "ONE":
                backend.failure = ServeError(503, "backend_lost", "the process is gone")
    assert not isinstance(raised.value, APIStatusError)
    assert (raised.value.code, raised.value.message) == ("backend_lost", "the process is gone")
    assert said.startswith("ONE")
    record = server.record()
    assert (record.outcome, record.status, record.text) == ("backend_lost", 200, said)
    assert record.answer_id.startswith("chatcmpl-")


def test_a_broken_stream_ends_with_the_error(serving: Start) -> None:
    text = serving(EndsEarly()).ask(stream=True).text
    *_, last = text.removesuffix("\n\n").split("\n\n")
    assert json.loads(last.removeprefix("data: "))["error"]["code"] == "no_ending"
    assert "[DONE]" not in text


def test_what_nobody_foresaw_is_not_told(serving: Start, caplog: pytest.LogCaptureFixture) -> None:
    server = serving(Bursts())
    response = server.ask("private words")
    assert code_of(response) == (500, "internal_error")
    assert "private" not in response.text + caplog.text
    assert "ValueError" in caplog.text
    assert "test_exchange.py" in caplog.text
    assert server.record().outcome == "internal_error"


@pytest.mark.parametrize("stream", [False, True])
def test_a_deadline(serving: Start, stream: bool) -> None:
    backend = ScriptedBackend(pause_s=0.05)
    server = serving(backend)
    response = server.ask(LONG, stream=stream, deadline_s=0.12)
    if stream:
        assert response.status_code == 200
        assert response.text.count('"code":"deadline_exceeded"') == 1
        assert "[DONE]" not in response.text
    else:
        assert code_of(response) == (408, "deadline_exceeded")
    assert server.record().outcome == "deadline_exceeded"
    assert len(backend.cancelled) == 1
    assert server.service.admission.running == 0


def test_a_deadline_holds_in_the_queue(serving: Start) -> None:
    server = serving(ScriptedBackend(pause_s=0.02), limits={"running": 1})
    first = threading.Thread(target=server.ask, args=(" ".join(["word"] * 40),))
    first.start()
    server.wait_for(lambda: server.service.admission.running == 1)
    assert code_of(server.ask(deadline_s=0.05)) == (408, "deadline_exceeded")
    first.join()


def test_the_server_has_a_deadline_of_its_own(serving: Start) -> None:
    server = serving(ScriptedBackend(pause_s=0.05), limits={"deadline_s": 0.1})
    assert code_of(server.ask(LONG, deadline_s=50)) == (504, "deadline_exceeded")


@pytest.mark.parametrize("said", ["0", "-1", "nan", "inf", "1e999", "x", "", ".", "1_0", "9" * 400])
def test_deadlines_that_are_none(serving: Start, said: str) -> None:
    response = serving(ScriptedBackend()).ask(deadline_s=said)
    assert code_of(response) == (400, "invalid_value")
    assert response.json()["error"]["param"] == "x-whetstone-deadline-s"


def test_too_many_answers_to_one_request(serving: Start) -> None:
    server = serving(ScriptedBackend(), limits={"choices": 3})
    assert server.ask(n=3).status_code == 200
    assert server.ask(n=4).json()["error"]["param"] == "n"
    several = {"model": "demo", "prompt": ["a", "b", "c", "d"]}
    assert server.post("/v1/completions", several).json()["error"]["param"] == "prompt"


def test_keys(serving: Start) -> None:
    keyring = KeyRing(None, [StoredKey(name="ann", sha256=hashed("00", "a key of ann"), salt="00")])
    server = serving(ScriptedBackend(), keyring=keyring)
    answer = server.client("a key of ann").chat.completions.create(model="demo", messages=USER)
    assert answer.choices[0].message.content == "ONE TWO THREE"
    with pytest.raises(AuthenticationError):
        server.client("another key").chat.completions.create(model="demo", messages=USER)
    # Strangers are turned away before anybody reads what they sent.
    response = server.post("/v1/chat/completions", b"{")
    assert code_of(response) == (401, "missing_api_key")
    assert response.headers["www-authenticate"] == "Bearer"
    for path in ("/v1/models", "/v1/models/demo", "/v1/models/demo/card"):
        assert httpx.get(f"{server.url}{path}").status_code == 401
    forbidden = server.post("/v1/adapters", {}, authorization="Bearer a key of ann")
    assert code_of(forbidden) == (403, "admin_only")
    assert [record.principal for record in server.told(3)] == ["ann", "", ""]


def test_a_full_queue(serving: Start) -> None:
    server = serving(ScriptedBackend(pause_s=0.02), limits={"running": 1, "queue": 1})
    busy = [threading.Thread(target=server.ask, args=(" ".join(["word"] * 20),)) for _ in range(2)]
    for number, thread in enumerate(busy):
        thread.start()
        server.wait_for(
            lambda number=number: server.service.admission.running + server.service.admission.waiting > number
        )
    response = server.ask()
    assert code_of(response) == (429, "queue_full")
    assert int(response.headers["retry-after"]) >= 1
    for thread in busy:
        thread.join()


def test_a_record_knows_the_times(serving: Start) -> None:
    server = serving(ScriptedBackend(pause_s=0.01))
    server.ask(stream=True)
    record = server.record()
    assert record.admitted_s is not None
    assert record.arrived_s <= record.admitted_s < record.token_s[0] < record.token_s[1] < record.token_s[2]
    assert record.token_s[2] <= record.ended_s
    assert (record.endpoint, record.principal, record.model, record.backend) == ("chat", "local", "demo", "scripted")
    assert (record.prompt_tokens, record.new_tokens, record.finish_reason) == (3, 3, "stop")
    assert (record.asked, record.text, record.streamed) == ("one two three", "ONE TWO THREE", True)
    assert record.status == 200


def test_a_record_knows_the_trace(serving: Start) -> None:
    server = serving(ScriptedBackend())
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    server.post("/v1/chat/completions", {"model": "demo", "messages": USER}, traceparent=trace)
    assert server.record().traceparent == trace


def test_a_record_of_what_was_not_understood(serving: Start) -> None:
    server = serving(ScriptedBackend())
    server.post("/v1/chat/completions", b"{")
    record = server.record()
    assert (record.outcome, record.status, record.model, record.answer_id) == ("invalid_json", 400, "", "")
    assert record.request_id.startswith("req-")
