"""The client against a server that behaves as it is told to."""

import asyncio
import itertools
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from talking_server import Act, Server, Talk, cut, silent, status
from whetstone.bench.client import Client, Outcome, Target
from whetstone.data.example import Message
from whetstone.data.prompts import Prompt
from whetstone.errors import UserError

PROMPT = Prompt("here", "p", (Message("system", "be brief"), Message("user", "hello")), None)
KEY = "sk-very-secret"
PAUSE_S = 0.03


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


def asked(server: Server, times: int = 1, **settings: Any) -> list[Outcome]:
    async def main() -> list[Outcome]:
        async with Client(Target(server.url, **{"model": "small", "timeout_s": 5.0, **settings})) as client:
            return [await client.ask(PROMPT, f"id-{number}") for number in range(times)]

    return asyncio.run(main())


def prepared(server: Server, **settings: Any) -> tuple[Client, Outcome]:
    async def main() -> tuple[Client, Outcome]:
        async with Client(Target(server.url, **{"timeout_s": 5.0, **settings})) as client:
            return client, await client.prepare(PROMPT)

    return asyncio.run(main())


async def paced(talk: Talk) -> None:
    """Known pauses before the first token, between tokens and before the end."""
    await talk.begin()
    await talk.say("")
    for word in ("one", " two", " three"):
        await asyncio.sleep(PAUSE_S)
        await talk.say(word)
    await asyncio.sleep(PAUSE_S)
    await talk.finish(usage={"prompt_tokens": 11, "completion_tokens": 4})


def test_times_and_counts_are_those_of_the_server(server: Server) -> None:
    server.default = paced
    outcome = asked(server)[0]
    assert (outcome.status, outcome.said, outcome.streamed) == ("ok", "", True)
    assert (outcome.prompt_tokens, outcome.new_tokens) == (11, 4)
    moments = [outcome.started_s, *outcome.piece_s, outcome.end_s]
    assert len(moments) == 5
    # A loop may wake a little early; what is asserted is that no pause is missing, not how long the machine took.
    assert all(then - before > 0.9 * PAUSE_S for before, then in itertools.pairwise(moments))


def test_what_is_sent(server: Server) -> None:
    asked(server, extra={"ignore_eos": True, "temperature": 0.5}, max_tokens=9, key=f"{KEY}\n")
    assert server.targets == ["/v1/chat/completions"]
    assert server.bodies == [
        {
            "model": "small",
            "max_tokens": 9,
            "temperature": 0.5,
            "stream": True,
            "stream_options": {"include_usage": True},
            "messages": [message.as_dict() for message in PROMPT.messages],
            "ignore_eos": True,
        }
    ]
    head = server.heads[0].lower()
    for line in (f"authorization: bearer {KEY}", "x-request-id: id-0", "accept-encoding: identity"):
        assert f"{line}\r\n" in head
    assert "sk-" not in repr(Target(server.url, key=KEY))


def test_a_prompts_own_limit_holds(server: Server) -> None:
    async def main() -> None:
        async with Client(Target(server.url, "small", api="completions")) as client:
            await client.ask(replace(PROMPT, max_new_tokens=3), "id")

    asyncio.run(main())
    assert (server.bodies[0]["max_tokens"], server.bodies[0]["prompt"]) == (3, "be brief\nhello")
    assert server.targets == ["/v1/completions"]


def test_connections_are_kept(server: Server) -> None:
    assert {outcome.status for outcome in asked(server, 5)} == {"ok"}
    assert server.connections == 1


def test_without_streaming_there_is_no_first_token(server: Server) -> None:
    usage = {"prompt_tokens": 5, "completion_tokens": 2}
    server.default = status(200, {"choices": [{"message": {"content": "hi"}}], "usage": usage})
    outcome = asked(server, stream=False)[0]
    assert (outcome.status, outcome.streamed, outcome.piece_s, outcome.new_tokens) == ("ok", False, (), 2)
    assert "stream_options" not in server.bodies[0]


async def endless(talk: Talk) -> None:
    await talk.begin()
    await talk.say("a")
    await talk.until_closed()


async def uncounted(talk: Talk) -> None:
    """Ends as transformers serve does, without [DONE], and counts nothing."""
    await talk.begin()
    await talk.say("a")
    await talk.say("b", finish_reason="stop")
    await talk.end()


async def hung_up(talk: Talk) -> None:
    """Says that the answer is whole and breaks the connection."""
    await talk.begin()
    await talk.say("a", finish_reason="stop")
    talk.writer.close()


async def failing(talk: Talk) -> None:
    await talk.begin()
    await talk.say("a")
    await talk.event({"error": {"message": "boom"}})
    await talk.end()


@pytest.mark.parametrize(
    ("act", "expected", "said"),
    [
        (status(503, {"error": {"message": f"full, {KEY}"}}), "http 503", "full, ***"),
        (status(429, b"slow\n down"), "http 429", "slow down"),
        (status(302, b"", location="http://elsewhere"), "http 302", ""),
        (status(200, b"<html>", content_type="text/html"), "malformed", "no stream of events but text/html"),
        (cut, "truncated", None),
        (endless, "timeout", ""),
        (silent, "timeout", ""),
        (failing, "error in stream", "boom"),
        (uncounted, "ok", ""),
        (hung_up, "ok", ""),
    ],
)
def test_every_end_has_its_name(server: Server, act: Act, expected: str, said: str | None) -> None:
    server.default = act
    outcome = asked(server, key=KEY, timeout_s=0.2)[0]
    assert outcome.status == expected
    assert said is None or outcome.said == said
    assert outcome.end_s >= outcome.started_s
    if act is endless:
        assert outcome.end_s - outcome.started_s > 0.18
        assert len(outcome.piece_s) == 1
    if act is uncounted:
        assert (outcome.new_tokens, outcome.prompt_tokens, len(outcome.piece_s)) == (None, None, 2)


def test_a_server_that_hangs_up_or_is_not_there(server: Server) -> None:
    async def hang_up(talk: Talk) -> None:
        talk.writer.close()

    server.default = hang_up
    assert asked(server)[0].status == "connection"
    elsewhere = Server()
    elsewhere.close()
    outcome = asked(elsewhere)[0]
    assert outcome.status == "connection"
    assert outcome.said


def test_a_server_that_refuses_to_count_is_asked_without(server: Server) -> None:
    async def strict(talk: Talk) -> None:
        if "stream_options" in talk.body:
            await talk.reply(422, {"detail": "Unexpected fields in the request: {'stream_options'}"})
        else:
            await uncounted(talk)

    server.default = strict
    client, outcome = prepared(server, model="small")
    assert client.refuses_usage
    assert (outcome.status, outcome.new_tokens) == ("ok", None)
    assert ["stream_options" in body for body in server.bodies] == [True, False]


def test_the_only_model_is_found(server: Server) -> None:
    server.models = status(200, {"data": [{"id": "alone"}]})
    client, _ = prepared(server)
    assert client.model == "alone"
    assert server.bodies[0]["model"] == "alone"


@pytest.mark.parametrize(
    ("models", "said"),
    [
        (status(200, {"data": [{"id": "small"}, {"id": "large"}]}), "lists 2 models .small, large.; name one"),
        (status(200, {"data": None}), "lists 0 models .none."),
        (status(401, {"error": {"message": f"who is {KEY}"}}), r"answers 401: who is \*\*\*"),
        (status(200, b"<html>"), "is no list of models"),
    ],
)
def test_no_model_is_guessed(server: Server, models: Act, said: str) -> None:
    server.models = models
    with pytest.raises(UserError, match=said):
        prepared(server, key=KEY)


def test_what_no_request_would_get_past_is_said_at_once(server: Server) -> None:
    server.default = status(401, {"error": {"message": "no key"}})
    with pytest.raises(UserError, match=r"first request ended with 'http 401': no key; nothing was measured"):
        prepared(server, model="small")
    elsewhere = Server()
    elsewhere.close()
    with pytest.raises(UserError, match="not reachable"):
        prepared(elsewhere)


@pytest.mark.parametrize(
    ("url", "said"), [("localhost:8000", "no url of a server"), ("http://gpu-box:8000", "not sent over plain http")]
)
def test_addresses_that_are_refused(url: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        Client(Target(url, key=KEY))


def test_bodies_are_json_whatever_a_prompt_holds(server: Server) -> None:
    text = "\u2028 é 🙂 \x00 \"'"
    prompt = Prompt("here", "p", (Message("user", text),), None)

    async def main() -> None:
        async with Client(Target(server.url, "small")) as client:
            await client.ask(prompt, "id")

    asyncio.run(main())
    assert server.bodies[0]["messages"][0]["content"] == text
