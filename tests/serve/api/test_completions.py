"""Texts that are continued, by OpenAI's own client."""

from collections.abc import Callable
from typing import Any

from scripted_backend import ScriptedBackend
from whetstone.serve.openai.completions import Completion

Start = Callable[..., Any]


def test_a_whole_answer(serving: Start) -> None:
    server = serving(ScriptedBackend())
    answer = server.client().completions.create(model="demo", prompt="one two three", max_tokens=2)
    assert answer.id.startswith("cmpl-")
    assert answer.object == "text_completion"
    assert (answer.choices[0].text, answer.choices[0].finish_reason) == ("ONE TWO", "length")
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (3, 2)
    response = server.post("/v1/completions", {"model": "demo", "prompt": "one", "logprobs": 2})
    Completion.model_validate_json(response.text, extra="forbid")


def test_several_prompts_have_several_answers_each(serving: Start) -> None:
    backend = ScriptedBackend(answer=lambda question: f"{question.prompt} {question.seed}")
    server = serving(backend)
    prompts = ["one two", "three"]
    answer = server.client().completions.create(model="demo", prompt=prompts, n=2, seed=4)
    assert [choice.text for choice in answer.choices] == ["one two 4", "one two 5", "three 6", "three 7"]
    assert answer.usage.prompt_tokens == 3
    streamed = [""] * 4
    for chunk in server.client().completions.create(model="demo", prompt=prompts, n=2, seed=4, stream=True):
        streamed[chunk.choices[0].index] += chunk.choices[0].text
    assert streamed == [choice.text for choice in answer.choices]


def test_token_ids_are_asked_as_they_are(serving: Start) -> None:
    backend = ScriptedBackend(answer=lambda question: "yes")
    server = serving(backend, system_prompt="Be brief.")
    server.client().completions.create(model="demo", prompt=[[1, 2], [3]])
    assert [question.prompt for question in backend.questions] == [(1, 2), (3,)]
    assert {record.asked for record in server.told(2)} == {""}


def test_logprobs(serving: Start) -> None:
    client = serving(ScriptedBackend()).client()
    told: dict[str, Any] = {"model": "demo", "prompt": "one two three", "logprobs": 1}
    whole = client.completions.create(**told).choices[0].logprobs
    assert whole.tokens == ["ONE", " TWO", " THREE"]
    assert whole.token_logprobs == [-0.1, -0.1, -0.1]
    assert whole.top_logprobs == [{"ONE": -0.1}, {" TWO": -0.1}, {" THREE": -0.1}]
    assert whole.text_offset == [0, 3, 7]
    offsets = [
        offset
        for chunk in client.completions.create(**told, stream=True)
        if chunk.choices[0].logprobs is not None
        for offset in chunk.choices[0].logprobs.text_offset
    ]
    assert offsets == whole.text_offset


def test_a_stream_ends_with_reason_and_usage(serving: Start) -> None:
    stream = (
        serving(ScriptedBackend())
        .client()
        .completions.create(model="demo", prompt="one two", stream=True, stream_options={"include_usage": True})
    )
    *_, last, usage = list(stream)
    assert (last.choices[0].text, last.choices[0].finish_reason) == ("", "stop")
    assert usage.choices == []
    assert usage.usage.total_tokens == 4
