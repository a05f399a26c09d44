"""The engine over HTTP, against a server that behaves badly on request."""

import asyncio
import contextlib
import email.utils
import importlib.util
import itertools
import json
import logging
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from talking_server import Act, Server, Talk, cut, fine, silent, status
from whetstone.data.example import Message
from whetstone.engine.api import Completion, Constraint, Delta, Logprob, Request, Sampling, Usage
from whetstone.engine.http_engine import HttpEngine, Patience
from whetstone.engine.http_wire import UNKNOWN_TOKEN, EventParser, error_message
from whetstone.errors import UserError

QUICK = Patience(connect_s=2, read_s=5, retries=3, first_pause_s=0.001)
REQUEST = Request((1, 2, 3), max_new_tokens=8, messages=(Message("user", "hello"),))
KEY = "sk-very-secret"


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


@pytest.fixture
def engine(server: Server) -> Iterator[HttpEngine]:
    engine = HttpEngine(server.url, "small", patience=QUICK)
    yield engine
    engine.close()


def answer(engine: HttpEngine, request: Request = REQUEST) -> Completion:
    [completion] = engine.generate([request])
    return completion


async def pieces(engine: HttpEngine, request: Request = REQUEST) -> list[Delta]:
    return [piece async for piece in engine.stream(request)]


def test_an_answer_has_text_times_and_the_servers_count(engine: HttpEngine, server: Server) -> None:
    before_s = time.monotonic()
    completion = answer(engine)
    assert (completion.text, completion.finish_reason, completion.error) == ("Hello there", "stop", None)
    assert completion.usage == Usage(5, 2)
    assert completion.token_ids == ()
    times = (completion.timing.queued_s, *completion.timing.token_s, completion.timing.end_s)
    assert len(times) == 4
    assert list(times) == sorted(times)
    assert before_s <= times[0] and times[-1] <= time.monotonic()
    assert server.targets == ["/v1/chat/completions"]
    assert engine.retried == 0


def test_what_the_request_does_not_set_is_not_sent(engine: HttpEngine, server: Server) -> None:
    answer(engine)
    assert server.bodies == [
        {
            "model": "small",
            "messages": [{"role": "user", "content": "hello"}],
            "max_tokens": 8,
            "temperature": 0.0,
            "top_p": 1.0,
            "seed": 0,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
    ]


def test_every_field_of_a_request_reaches_the_server(engine: HttpEngine, server: Server) -> None:
    sampling = Sampling(0.7, 0.9, top_k=40, min_p=0.05, repetition_penalty=1.2)
    schema = Constraint("json_schema", '{"type": "object"}')
    answer(engine, replace(REQUEST, sampling=sampling, seed=7, stop=("\n",), logprobs=3, constraint=schema))
    body = server.bodies[0]
    expected: dict[str, object] = {
        "temperature": 0.7,
        "top_p": 0.9,
        "top_k": 40,
        "min_p": 0.05,
        "repetition_penalty": 1.2,
    }
    expected |= {"repeat_penalty": 1.2, "repeat_last_n": -1, "seed": 7, "stop": ["\n"], "logprobs": True}
    assert {field: body[field] for field in expected} == expected
    assert body["top_logprobs"] == 3
    assert body["response_format"]["json_schema"]["schema"] == {"type": "object"}


def test_completions_send_token_ids(server: Server) -> None:
    async def plain(talk: Talk) -> None:
        await talk.begin()
        logprobs = {"tokens": ["token_id:9", "?"], "token_logprobs": [-0.5, -1.0], "top_logprobs": [{"token_id:4": -2}]}
        await talk.event({"choices": [{"text": "ab", "finish_reason": "length", "logprobs": logprobs}]})
        await talk.end()

    server.default = plain
    with contextlib.closing(HttpEngine(f"{server.url}/v1/", "small", mode="completions", patience=QUICK)) as engine:
        completion = answer(engine, replace(REQUEST, messages=(), logprobs=1))
    assert server.targets == ["/v1/completions"]
    assert server.bodies[0]["prompt"] == [1, 2, 3]
    assert (completion.text, completion.finish_reason) == ("ab", "length")
    assert completion.logprobs is not None
    assert completion.logprobs[0] == Logprob(9, -0.5, ((4, -2.0),))


def test_chat_logprobs_are_read_with_the_ids_that_the_server_tells(engine: HttpEngine, server: Server) -> None:
    async def told(talk: Talk) -> None:
        await talk.begin()
        others = [{"token": "a", "logprob": -0.1}, {"token": "b", "id": 6, "logprob": -3}]
        await talk.say("a", logprobs={"content": [{"token": "a", "id": 5, "logprob": -0.1, "top_logprobs": others}]})
        await talk.finish(usage={"prompt_tokens": 3})

    server.default = told
    expected = Logprob(5, -0.1, ((UNKNOWN_TOKEN, -0.1), (6, -3.0)))
    completion = answer(engine, replace(REQUEST, logprobs=2))
    assert completion.logprobs == (expected,)
    assert completion.usage.new_tokens == 1
    assert asyncio.run(pieces(engine, replace(REQUEST, logprobs=2)))[0] == Delta("a", logprob=expected)
    assert answer(engine).logprobs is None


def test_requests_keep_their_order_and_the_limit(server: Server) -> None:
    running, most = 0, 0
    full = asyncio.Event()

    async def echo(talk: Talk) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        if running == 4:
            full.set()
        await full.wait()
        await talk.begin()
        for _ in range(talk.body["seed"] % 5):
            await asyncio.sleep(0)
        running -= 1
        await talk.say(str(talk.body["seed"]))
        await talk.finish()

    server.default = echo
    requests = [replace(REQUEST, seed=seed) for seed in range(60)]
    with contextlib.closing(HttpEngine(server.url, "small", concurrency=4, patience=QUICK)) as engine:
        both = [engine.generate(requests[:50])]
        thread = threading.Thread(target=lambda: both.append(engine.generate(requests[50:])))
        thread.start()
        again = engine.generate(requests[:50])
        thread.join()
    assert [completion.text for completion in both[0] + both[1]] == [str(seed) for seed in range(60)]
    assert [completion.text for completion in again] == [str(seed) for seed in range(50)]
    assert most == 4
    assert server.connections <= 5, "finished answers leave their connection to the next request"


def test_generate_works_where_an_event_loop_runs(engine: HttpEngine) -> None:
    async def within() -> Completion:
        return answer(engine)

    assert asyncio.run(within()).text == "Hello there"


@pytest.mark.parametrize("code", [408, 409, 429, 500, 502, 503, 504])
def test_what_may_pass_is_tried_again(engine: HttpEngine, server: Server, code: int) -> None:
    server.acts = [status(code), status(code)]
    assert answer(engine).text == "Hello there"
    assert len(server.bodies) == 3
    assert engine.retried == 2


@pytest.mark.parametrize("act", [cut, silent], ids=["cut", "silent"])
def test_times_are_those_of_the_attempt_that_answered(server: Server, act: Act) -> None:
    server.acts = [act]
    with contextlib.closing(HttpEngine(server.url, "small", patience=replace(QUICK, read_s=0.2))) as engine:
        completion = answer(engine)
    assert completion.text == "Hello there"
    assert len(completion.timing.token_s) == 2
    assert completion.timing.end_s - completion.timing.queued_s < 0.2
    assert engine.retried == 1


def test_retry_after_is_waited_for(engine: HttpEngine, server: Server) -> None:
    # A server that asks for a long pause is given up at once; that the number was read shows there.
    server.acts = [status(429, retry_after="0")]
    assert answer(engine).text == "Hello there"
    later = email.utils.formatdate(time.time() + 4000, usegmt=True)
    for value in ("3600", later):
        server.acts = [status(429, {"error": {"message": "slow down"}}, retry_after=value)]
        completion = answer(engine)
        assert completion.finish_reason == "error"
        assert "429" in str(completion.error) and "slow down (1 attempt)" in str(completion.error)


def test_retry_after_bounds_the_pause_from_below(engine: HttpEngine, server: Server) -> None:
    arrived: list[float] = []

    async def timed(talk: Talk) -> None:
        arrived.append(time.monotonic())
        await (status(429, retry_after="0.3")(talk) if len(arrived) == 1 else fine(talk))

    server.default = timed
    assert answer(engine).text == "Hello there"
    assert arrived[1] - arrived[0] >= 0.3


def test_after_the_last_attempt_the_answer_is_an_error(engine: HttpEngine, server: Server) -> None:
    server.default = status(500, {"error": {"message": "out of\nmemory"}})
    completion = answer(engine)
    assert (completion.finish_reason, completion.text, completion.timing.token_s) == ("error", "", ())
    assert completion.error == f"{server.url}/v1: the server answers 500 for model small: out of memory (4 attempts)"
    assert len(server.bodies) == 4


def test_one_lost_answer_loses_no_other(engine: HttpEngine, server: Server) -> None:
    async def some(talk: Talk) -> None:
        await (status(500)(talk) if talk.body["seed"] == 1 else fine(talk))

    server.default = some
    completions = engine.generate([replace(REQUEST, seed=seed) for seed in range(3)])
    assert [completion.finish_reason for completion in completions] == ["stop", "error", "stop"]


def test_a_server_that_is_not_there() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
        with contextlib.closing(HttpEngine(url, "small", patience=replace(QUICK, retries=1))) as engine:
            assert "ConnectError" in str(answer(engine).error)
            with pytest.raises(UserError, match=f"{url}/v1: the server is not reachable .*; is it running"):
                engine.check_model()


@pytest.mark.parametrize(
    ("code", "body", "said"),
    [
        (401, {"error": {"message": f"Incorrect API key: {KEY}"}}, "Incorrect API key: ***"),
        (404, {"error": "model 'small' not found"}, "model 'small' not found"),
        (400, {"object": "error", "message": "context is 4 tokens", "code": 400}, "context is 4 tokens"),
        (422, {"detail": [{"loc": ["body", "seed"]}]}, "seed"),
        (403, b"<html>\n no way\n</html>" + b"x" * 5000, "<html> no way </html>x"),
        (501, b"", "501"),
    ],
)
def test_a_refusal_is_one_clear_line(server: Server, code: int, body: object, said: str) -> None:
    server.default = status(code, body)
    with contextlib.closing(HttpEngine(server.url, "small", api_key=KEY, patience=QUICK)) as engine:
        with pytest.raises(UserError) as raised:
            engine.generate([REQUEST, REQUEST])
        with pytest.raises(UserError):
            asyncio.run(pieces(engine))
    line = str(raised.value)
    assert f"{server.url}/v1: the server answers {code} for model small: " in line and said in line
    assert KEY not in line and "\n" not in line and len(line) < 500
    assert len(server.bodies) <= 3, "a refusal is not asked for again"


def test_a_redirect_names_the_address_it_points_to(engine: HttpEngine, server: Server) -> None:
    server.default = status(308, location="https://example.com/v1")
    with pytest.raises(UserError, match=r"use the address that it points to: https://example\.com/v1"):
        answer(engine)


def test_an_unknown_extension_is_named(engine: HttpEngine, server: Server) -> None:
    server.default = status(422, {"detail": "Unexpected fields in the request: {'top_k'}"})
    with pytest.raises(UserError, match="if it does not take top_k, do not set it for this server"):
        answer(engine, replace(REQUEST, sampling=Sampling(1.0, top_k=5)))


def test_a_field_that_can_be_done_without_is_left_out_from_then_on(engine: HttpEngine, server: Server) -> None:
    server.acts = [status(400, {"error": {"message": "Unrecognized request argument: stream_options"}})]
    assert [answer(engine).text, answer(engine).text] == ["Hello there"] * 2
    assert ["stream_options" in body for body in server.bodies] == [True, False, False]
    assert engine.retried == 0


@pytest.mark.parametrize("constraint", [Constraint("json_schema", "{}"), Constraint("regex", "[0-9]+")])
def test_a_constraint_that_the_server_passes_over_is_an_error(
    engine: HttpEngine, server: Server, constraint: Constraint
) -> None:
    async def kept(talk: Talk) -> None:
        await talk.begin()
        await talk.say("12")
        await talk.finish()

    server.acts = [kept, fine]
    request = replace(REQUEST, constraint=constraint)
    assert answer(engine, request).finish_reason == "stop"
    broken = answer(engine, request)
    assert (broken.finish_reason, broken.text) == ("error", "Hello there")
    assert "did not keep it" in str(broken.error)


@pytest.mark.parametrize(
    ("said", "reason"),
    [("stop", "stop"), ("length", "length"), ("eos_token", "stop"), ("content_filter", "error"), ("abort", "error")],
)
def test_finish_reasons(engine: HttpEngine, server: Server, said: str, reason: str) -> None:
    async def ended(talk: Talk) -> None:
        await talk.begin()
        await talk.finish(said)

    server.default = ended
    completion = answer(engine)
    assert completion.finish_reason == reason
    assert (completion.error is not None and said in completion.error) == (reason == "error")


RAW_STREAMS = {
    "no done, no usage, no last blank line": b'data: {"choices":[{"delta":{"content":"h\xc3\xa9"}}]}\n\n'
    b'data: {"choices":[{"delta":{},"finish_reason":"stop"}]}\n',
    "comments, other fields, carriage returns": b': keep-alive\r\n\r\nevent: message\r\nid: 1\r\ndata:{"choices":'
    b'[{"delta":{"content":"h\xc3\xa9"},"finish_reason":"stop"}]}\r\n\r\ndata: [DONE]\r\n\r\n',
    "null everywhere": b'data: {"choices":null,"usage":null}\n\ndata: {}\n\n'
    b'data: {"choices":[{"delta":null,"text":null}]}\n\n'
    b'data: {"choices":[{"delta":{"content":"h\xc3\xa9"}}]}\n\ndata: {"choices":[{"finish_reason":"stop"}]}\n\n',
    "thinking aloud": b'data: {"choices":[{"delta":{"content":null,"reasoning_content":"so"}}]}\n\n'
    b'data: {"choices":[{"delta":{"content":"h\xc3\xa9"},"finish_reason":"stop"}]}\n\n',
    "only done": b'data: {"choices":[{"delta":{"content":"h\xc3\xa9"}}]}\n\ndata: [DONE]\n\n',
}


@pytest.mark.parametrize("raw", RAW_STREAMS.values(), ids=RAW_STREAMS)
def test_odd_streams_are_read(engine: HttpEngine, server: Server, raw: bytes) -> None:
    async def odd(talk: Talk) -> None:
        await talk.begin()
        for byte in raw:
            await talk.send(bytes([byte]))
        await talk.end()

    server.default = odd
    completion = answer(engine)
    assert (completion.text, completion.finish_reason, len(completion.timing.token_s)) == ("hé", "stop", 1)
    assert completion.usage == Usage(prompt_tokens=3, new_tokens=0)
    assert engine.retried == 0


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b"data: {nonsense\n\n", "no piece of an answer: {nonsense"),
        (b'data: {"choices":[{"delta":{"content":7}}]}\n\n', "no piece of an answer"),
        (b'data: {"error":{"message":"boom","code":500}}\n\n', "an error in the stream: boom"),
        (b'data: {"error":"boom"}\n\n', "an error in the stream: boom"),
        (b"", "broke off before the answer had ended"),
    ],
)
def test_bad_streams_are_tried_again_and_then_errors(engine: HttpEngine, server: Server, raw: bytes, said: str) -> None:
    async def bad(talk: Talk) -> None:
        await talk.begin()
        await talk.say("Hel")
        await talk.send(raw) if raw else None
        await talk.end()

    server.acts = [bad]
    assert answer(engine).text == "Hello there"
    server.default = bad
    completion = answer(engine)
    assert (completion.finish_reason, completion.text) == ("error", "Hel")
    assert said in str(completion.error) and "(4 attempts)" in str(completion.error)


def test_an_error_in_the_stream_that_will_not_pass_is_a_refusal(engine: HttpEngine, server: Server) -> None:
    async def refused(talk: Talk) -> None:
        await talk.begin()
        await talk.event({"error": {"message": "the prompt is too long", "code": 400}})
        await talk.end()

    server.default = refused
    with pytest.raises(UserError, match="the prompt is too long"):
        answer(engine)
    assert len(server.bodies) == 1


def test_a_page_is_no_stream(engine: HttpEngine, server: Server) -> None:
    server.default = status(200, b"<html>welcome</html>", content_type="text/html")
    with pytest.raises(UserError, match="is this an OpenAI-compatible server"):
        answer(engine)


def test_a_stream_tells_pieces_and_then_the_completion(engine: HttpEngine) -> None:
    told = asyncio.run(pieces(engine))
    assert [piece.text for piece in told] == ["Hello", " there", ""]
    assert [piece.completion is not None for piece in told] == [False, False, True]
    assert told[-1].completion is not None and told[-1].completion.text == "Hello there"


def test_a_stream_is_repeated_only_before_its_first_piece(engine: HttpEngine, server: Server) -> None:
    server.acts = [status(500), cut]
    told = asyncio.run(pieces(engine))
    assert [piece.text for piece in told] == ["Hel", ""]
    completion = told[-1].completion
    assert completion is not None and (completion.finish_reason, completion.text) == ("error", "Hel")
    assert "(2 attempts)" in str(completion.error)


def test_leaving_a_stream_closes_its_connection(engine: HttpEngine, server: Server) -> None:
    async def endless(talk: Talk) -> None:
        await talk.begin()
        await talk.say("on and on")
        await talk.until_closed()
        server.closed.set()

    async def leave() -> None:
        async with aclosing(engine.stream(REQUEST)) as stream:  # type: ignore[type-var]
            async for _ in stream:
                break

    server.acts = [endless]
    asyncio.run(leave())
    assert server.closed.wait(2)
    assert answer(engine).text == "Hello there"


def test_a_deadline_ends_an_answer_with_what_there_is(engine: HttpEngine, server: Server) -> None:
    async def stuck(talk: Talk) -> None:
        await talk.begin()
        await talk.say("Hel")
        await talk.until_closed()
        server.closed.set()

    server.acts = [stuck]
    completion = answer(engine, replace(REQUEST, deadline_s=time.monotonic() + 0.3))
    assert (completion.finish_reason, completion.text, completion.error) == ("deadline", "Hel", None)
    assert server.closed.wait(2)
    assert answer(engine, replace(REQUEST, deadline_s=time.monotonic() - 1)).finish_reason == "deadline"


def test_closing_tells_whoever_waits(server: Server) -> None:
    server.default = silent
    engine = HttpEngine(server.url, "small", patience=QUICK)
    failures: list[BaseException] = []

    def wait(ask: Callable[[], object]) -> None:
        try:
            ask()
        except UserError as error:
            failures.append(error)

    asks: list[Callable[[], object]] = [lambda: answer(engine), lambda: asyncio.run(pieces(engine))]
    threads = [threading.Thread(target=wait, args=(ask,)) for ask in asks]
    for thread in threads:
        thread.start()
    for _ in threads:
        assert server.arrived.acquire(timeout=5)
    engine.close()
    engine.close()
    for thread in threads:
        thread.join(5)
    assert [str(failure) for failure in failures] == ["the engine is closed; open it again"] * 2
    with pytest.raises(UserError, match="closed"):
        answer(engine)


@pytest.mark.parametrize(
    ("request_", "mode", "said"),
    [
        (replace(REQUEST, adapter="mine"), "chat", "open 'mine' as the model"),
        (replace(REQUEST, messages=()), "chat", "chat needs messages"),
        (replace(REQUEST, token_ids=()), "completions", "completions need token ids"),
        (replace(REQUEST, constraint=Constraint("json_schema", "{")), "chat", "is no JSON"),
    ],
)
def test_what_no_server_can_answer_is_not_begun(server: Server, request_: Request, mode: Any, said: str) -> None:
    with contextlib.closing(HttpEngine(server.url, "small", mode=mode, patience=QUICK)) as engine:
        with pytest.raises(UserError, match=said):
            engine.generate([REQUEST, request_])
        with pytest.raises(UserError, match=said):
            asyncio.run(pieces(engine, request_))
    assert server.bodies == []


def test_a_model_that_is_not_there_is_said_with_those_that_are(server: Server) -> None:
    def check(model: str) -> None:
        with contextlib.closing(HttpEngine(server.url, model, patience=QUICK)) as engine:
            engine.check_model()

    check("small")
    check("large")
    with pytest.raises(UserError, match=r"has no model 'other'; it has small, large:latest$"):
        check("other")
    server.models = status(200, {"data": [{"id": f"m{number}"} for number in range(11)]})
    with pytest.raises(UserError, match=r"m7 and 3 more$"):
        check("other")
    for act in (status(404), status(500), status(200, {"data": None})):
        server.models = act
        check("other")
    server.models = status(401, {"error": {"message": "who are you"}})
    with pytest.raises(UserError, match="401: who are you"):
        check("small")
    server.models = status(200, b"<html></html>")
    with pytest.raises(UserError, match="is this an OpenAI-compatible server"):
        check("small")


def test_the_key_is_sent_and_never_said(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with contextlib.closing(HttpEngine(server.url, "small", api_key=f"{KEY}\n", patience=QUICK)) as engine:
        answer(engine)
    assert f"Authorization: Bearer {KEY}".lower() in server.heads[0].lower()
    assert KEY not in caplog.text


@pytest.mark.parametrize(
    ("url", "key", "said"),
    [
        ("http://gpu-box:8000", KEY, "not sent over plain http"),
        ("http://192.168.0.7/v1", KEY, "not sent over plain http"),
        ("http://localhost:8000", "two\nlines", "was it copied whole"),
        ("http://me:hunter2@localhost", None, "more than host and path"),
        ("localhost:8000", None, "no url of a server"),
        ("ftp://localhost", None, "no url of a server"),
        ("http://localhost:nonsense", None, "cannot be read"),
    ],
)
def test_addresses_that_are_refused(url: str, key: str | None, said: str) -> None:
    with pytest.raises(UserError, match=said) as raised:
        HttpEngine(url, "small", api_key=key)
    assert "hunter2" not in str(raised.value) and KEY not in str(raised.value)


@pytest.mark.parametrize("url", ["https://gpu-box", "http://localhost:1", "http://127.0.0.9", "http://[::1]:8000/v1"])
def test_addresses_that_a_key_may_go_to(url: str) -> None:
    with contextlib.closing(HttpEngine(url, "small", api_key=KEY)) as engine:
        assert engine.retried == 0


def test_this_machines_own_servers_are_not_asked_through_a_proxy(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    with contextlib.closing(HttpEngine(server.url, "small", patience=replace(QUICK, retries=0))) as engine:
        assert answer(engine).text == "Hello there"


@example(["\u2028 \x85 \x0b é 🙂"], list(range(60)), "\n")
@given(st.lists(st.text(min_size=1).filter(str.strip)), st.lists(st.integers(0, 400)), st.sampled_from(["\n", "\r\n"]))
def test_events_do_not_depend_on_where_the_network_cuts(texts: list[str], cuts: list[int], newline: str) -> None:
    events = [json.dumps(text, ensure_ascii=False) for text in texts]
    raw = "".join(f": note{newline}data: {event}{newline}{newline}" for event in events)
    data = raw.encode()
    parser = EventParser()
    found: list[str] = []
    for start, end in itertools.pairwise([0, *sorted(cuts), max(len(data), 400)]):
        found += parser.feed(data[start:end])
    assert found + parser.end() == events


@given(
    st.recursive(
        st.none() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["error", "detail", "message", "code"]), inner),
    )
)
def test_any_error_document_has_a_message(document: object) -> None:
    code, message = error_message(document)
    assert isinstance(message, str)
    assert code is None or isinstance(code, int)


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


@pytest.mark.skipif(importlib.util.find_spec("openai") is None, reason="transformers serve needs openai")
def test_transformers_serve() -> None:
    model = Path(__file__).parents[2] / "src/whetstone/assets/demo-base"
    url = f"http://127.0.0.1:{(port := free_port())}"
    command = [sys.executable, "-m", "transformers.cli.transformers", "serve", str(model), "--port", str(port)]
    with subprocess.Popen(
        [*command, "--device", "cpu"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        patient = Patience(retries=60, first_pause_s=0.5)
        with contextlib.closing(HttpEngine(url, str(model), patience=patient)) as engine:
            try:
                completion = answer(engine)
                assert completion.finish_reason in ("stop", "length"), completion.error
                assert completion.usage.new_tokens == 8 or completion.finish_reason == "stop"
                told = asyncio.run(pieces(engine))
                assert "".join(piece.text for piece in told) == completion.text
                with pytest.raises(UserError, match="min_p"):
                    answer(engine, replace(REQUEST, sampling=Sampling(1.0, min_p=0.1)))
            finally:
                process.terminate()
