"""OpenAI's own client, against a real server."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from openai import BadRequestError
from pydantic import BaseModel

from scripted_backend import ScriptedBackend, model_named
from whetstone.data.example import Message
from whetstone.engine.api import Constraint, Sampling
from whetstone.serve.openai.chat import ChatCompletion, ChatCompletionChunk
from whetstone.serve.served_model import Usual

Start = Callable[..., Any]

USER: list[Any] = [{"role": "user", "content": "one two three"}]


def events(raw: str) -> list[str]:
    """The data of the events, each of which has one line and a blank one."""
    assert raw.endswith("\n\n")
    lines = raw[:-2].split("\n\n")
    assert all(line.startswith("data: ") and "\n" not in line for line in lines)
    return [line.removeprefix("data: ") for line in lines]


def test_a_whole_answer(serving: Start) -> None:
    server = serving(ScriptedBackend())
    raw = server.client().chat.completions.with_raw_response.create(model="demo", messages=USER)
    answer = raw.parse()
    assert answer.id.startswith("chatcmpl-")
    assert answer.object == "chat.completion"
    assert answer.model == "demo"
    assert answer.choices[0].message.content == "ONE TWO THREE"
    assert answer.choices[0].message.role == "assistant"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.choices[0].logprobs is None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (3, 3, 6)
    assert answer.usage.prompt_tokens_details.cached_tokens == 0
    assert len(answer.system_fingerprint) == 16
    assert raw.headers["x-whetstone-backend"] == "scripted"
    assert raw.headers["content-type"] == "application/json"
    ChatCompletion.model_validate_json(raw.text, extra="forbid")


def test_a_stream_says_the_same(serving: Start) -> None:
    server = serving(ScriptedBackend())
    whole = server.ask().json()
    chunks = list(server.client().chat.completions.create(model="demo", messages=USER, stream=True))
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [chunk.choices[0].delta.content for chunk in chunks[1:-1]] == ["ONE", " TWO", " THREE"]
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert {chunk.id for chunk in chunks} == {chunks[0].id}
    assert {chunk.system_fingerprint for chunk in chunks} == {whole["system_fingerprint"]}
    assert all(chunk.usage is None for chunk in chunks)


def test_the_bytes_of_a_stream(serving: Start) -> None:
    response = serving(ScriptedBackend()).ask(stream=True, stream_options={"include_usage": True})
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert response.headers["cache-control"] == "no-cache"
    *said, usage, done = events(response.text)
    assert done == "[DONE]"
    assert json.loads(usage)["choices"] == []
    assert json.loads(usage)["usage"] == {
        "prompt_tokens": 3,
        "completion_tokens": 3,
        "total_tokens": 6,
        "prompt_tokens_details": {"cached_tokens": 0},
    }
    assert all(json.loads(event)["usage"] is None for event in said)
    for event in (*said, usage):
        ChatCompletionChunk.model_validate_json(event, extra="forbid")


def test_several_answers_have_seeds_that_follow_each_other(serving: Start) -> None:
    backend = ScriptedBackend(answer=lambda question: f"seed {question.seed}")
    server = serving(backend)
    answer = server.client().chat.completions.create(model="demo", messages=USER, n=3, seed=-1)
    said = [choice.message.content for choice in answer.choices]
    assert said == [f"seed {2**63 - 1}", "seed 0", "seed 1"]
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (3, 6)
    streamed = ["", "", ""]
    order = []
    for chunk in server.client().chat.completions.create(model="demo", messages=USER, n=3, seed=7, stream=True):
        order.append(chunk.choices[0].index)
        streamed[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
    assert streamed == ["seed 7", "seed 8", "seed 9"]
    assert order != sorted(order)
    assert [record.choice for record in server.told(6)] == [0, 1, 2, 0, 1, 2]


def test_seeds_differ_where_none_is_given(serving: Start) -> None:
    backend = ScriptedBackend()
    server = serving(backend)
    server.ask()
    server.ask()
    first, second = backend.questions
    assert first.seed != second.seed


def test_logprobs(serving: Start) -> None:
    server = serving(ScriptedBackend())
    told: dict[str, Any] = {"model": "demo", "messages": USER, "logprobs": True, "top_logprobs": 2}
    whole = server.client().chat.completions.create(**told).choices[0].logprobs.content
    assert [one.token for one in whole] == ["ONE", " TWO", " THREE"]
    assert whole[1].bytes == list(b" TWO")
    assert whole[1].logprob == -0.1
    assert [one.logprob for one in whole[1].top_logprobs] == [-0.1, -1.1]
    streamed = [
        one
        for chunk in server.client().chat.completions.create(**told, stream=True)
        if chunk.choices[0].logprobs is not None
        for one in chunk.choices[0].logprobs.content
    ]
    assert streamed == whole
    bare = server.client().chat.completions.create(model="demo", messages=USER, logprobs=True)
    assert [one.top_logprobs for one in bare.choices[0].logprobs.content] == [[], [], []]
    ChatCompletion.model_validate_json(server.ask(logprobs=True, top_logprobs=1).text, extra="forbid")


def test_token_ids(serving: Start) -> None:
    server = serving(ScriptedBackend())
    assert server.ask(return_token_ids=True).json()["choices"][0]["token_ids"] == [5, 6, 7]
    *said, _ = events(server.ask(return_token_ids=True, stream=True).text)
    told = [json.loads(event)["choices"][0].get("token_ids", []) for event in said]
    assert [one for ids in told for one in ids] == [5, 6, 7]


def test_what_is_asked_by_default_is_what_was_judged(serving: Start) -> None:
    model = model_named("demo").model_copy(
        update={"usual": Usual(temperature=0.3, top_p=0.8), "system_prompt": "Be brief."}
    )
    backend = ScriptedBackend(models={"demo": model})
    serving(backend).ask()
    (question,) = backend.questions
    assert question.prompt == (Message("system", "Be brief."), Message("user", "one two three"))
    assert question.sampling == Sampling(temperature=0.3, top_p=0.8)
    assert question.max_new_tokens is None
    assert question.deadline_s == pytest.approx(300, abs=5)


def test_what_a_request_says_is_what_is_asked(serving: Start) -> None:
    model = model_named("demo").model_copy(update={"system_prompt": "Be brief."})
    backend = ScriptedBackend(models={"demo": model})
    turns = [
        {"role": "developer", "content": [{"type": "text", "text": "Be "}, {"type": "text", "text": "long."}]},
        {"role": "assistant", "content": "Yes?", "refusal": None, "tool_calls": []},
        {"role": "user", "content": "one two three"},
    ]
    response = serving(backend).ask(
        messages=turns,
        temperature=0.5,
        top_p=0.9,
        top_k=7,
        min_p=0.1,
        repetition_penalty=1.2,
        stop=["x", "\n"],
        max_completion_tokens=2,
        seed=5,
        deadline_s=7,
        user="somebody",
        metadata={"a": "b"},
        store=False,
        tools=[],
        frequency_penalty=0,
    )
    assert response.json()["choices"][0] == {
        "index": 0,
        "message": {"role": "assistant", "content": "ONE TWO", "refusal": None},
        "logprobs": None,
        "finish_reason": "length",
    }
    (question,) = backend.questions
    assert question.prompt == (
        Message("system", "Be long."),
        Message("assistant", "Yes?"),
        Message("user", "one two three"),
    )
    assert question.sampling == Sampling(0.5, 0.9, 7, 0.1, 1.2)
    assert (question.stop, question.seed, question.max_new_tokens) == (("x", "\n"), 5, 2)
    assert question.deadline_s == pytest.approx(7, abs=1)


def test_an_answer_can_be_sent_back(serving: Start) -> None:
    client = serving(ScriptedBackend()).client()
    first = client.chat.completions.create(model="demo", messages=USER).choices[0].message
    second = client.chat.completions.create(model="demo", messages=[*USER, first, {"role": "user", "content": "four"}])
    assert second.choices[0].message.content == "FOUR"


class Sum(BaseModel):
    a: int
    b: int


def test_answers_that_are_json(serving: Start) -> None:
    backend = ScriptedBackend(answer=lambda question: '{"a":1,"b":2}')
    server = serving(backend)
    parsed = server.client().chat.completions.parse(model="demo", messages=USER, response_format=Sum)
    assert parsed.choices[0].message.parsed == Sum(a=1, b=2)
    server.ask(response_format={"type": "json_object"})
    server.ask(response_format={"type": "text"})
    server.ask(structured_outputs={"regex": "[ab]+"})
    schema, an_object, none, pattern = (question.constraint for question in backend.questions)
    assert schema is not None
    assert json.loads(schema.pattern)["required"] == ["a", "b"]
    assert an_object == Constraint("json_schema", '{"type":"object"}')
    assert none is None
    assert pattern == Constraint("regex", "[ab]+")


def test_a_wrong_request_raises_what_clients_expect(serving: Start) -> None:
    client = serving(ScriptedBackend()).client()
    with pytest.raises(BadRequestError) as raised:
        client.chat.completions.create(model="demo", messages=USER, tools=[{"type": "function"}])
    assert raised.value.code == "unsupported_parameter"
    assert raised.value.param == "tools"
    assert raised.value.type == "invalid_request_error"


def test_many_at_once(serving: Start) -> None:
    server = serving(ScriptedBackend(pause_s=0.001))

    async def ask(client: Any, number: int) -> str:
        said = ""
        turns: list[Any] = [{"role": "user", "content": f"answer number {number} please"}]
        async for chunk in await client.chat.completions.create(model="demo", messages=turns, stream=True):
            said += chunk.choices[0].delta.content or ""
        return said

    async def ask_all() -> list[str]:
        async with server.async_client() as client:
            return await asyncio.gather(*(ask(client, number) for number in range(24)))

    assert asyncio.run(ask_all()) == [f"ANSWER NUMBER {number} PLEASE" for number in range(24)]
    assert {record.outcome for record in server.told(24)} == {"ok"}
