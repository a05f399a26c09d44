"""What is taken from clients, and what they are told of the rest."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from whetstone.serve.api.json_bytes import json_bytes
from whetstone.serve.api.wanted import Wanted
from whetstone.serve.errors import ServeError
from whetstone.serve.openai.chat import ChatRequest
from whetstone.serve.openai.completions import CompletionRequest
from whetstone.serve.openai.embeddings import EmbeddingRequest
from whetstone.serve.openai.parse import parsed

USER = [{"role": "user", "content": "x"}]
JSON_SCHEMA = {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "object"}}}


def chat(**more: Any) -> Wanted:
    return parsed(ChatRequest, json_bytes({"model": "demo", "messages": USER, **more})).as_wanted()


def completion(**more: Any) -> Wanted:
    return parsed(CompletionRequest, json_bytes({"model": "demo", "prompt": "x", **more})).as_wanted()


def schema_of(schema: Any) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}


def deep(levels: int) -> dict[str, Any]:
    return {"items": deep(levels - 1)} if levels else {}


@pytest.mark.parametrize(
    ("more", "code", "param"),
    [
        ({"modle": "demo"}, "unknown_parameter", "modle"),
        ({"messages": [{"role": "user", "contnt": "x"}]}, "unknown_parameter", "messages[0].contnt"),
        ({"messages": [{"role": "user"}]}, "missing_parameter", "messages[0].content"),
        ({"messages": [{"role": "user", "content": None}]}, "invalid_value", "messages[0].content"),
        ({"messages": [{"role": "user", "content": []}]}, "invalid_value", "messages[0].content"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "invalid_value", "messages[0].role"),
        ({"messages": [{**USER[0], "name": "Ann"}]}, "unsupported_parameter", "messages[0].name"),
        ({"messages": [{**USER[0], "tool_calls": [{}]}]}, "unsupported_parameter", "messages[0].tool_calls"),
        ({"messages": []}, "invalid_value", "messages"),
        ({"messages": "x"}, "invalid_value", "messages"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
            "unsupported_parameter",
            "messages[0].content[0]",
        ),
        ({"model": ""}, "invalid_value", "model"),
        ({"model": None}, "invalid_value", "model"),
        ({"n": 0}, "invalid_value", "n"),
        ({"n": 1.0}, "invalid_value", "n"),
        ({"n": True}, "invalid_value", "n"),
        ({"n": "1"}, "invalid_value", "n"),
        ({"stream": "true"}, "invalid_value", "stream"),
        ({"stream": 1}, "invalid_value", "stream"),
        ({"stream_options": {"include_usage": True}}, "invalid_value", "stream_options"),
        ({"max_tokens": 0}, "invalid_value", "max_tokens"),
        ({"max_tokens": 5, "max_completion_tokens": 5}, "invalid_value", "max_tokens"),
        ({"max_tokens": 5, "max_completion_tokens": 6}, "invalid_value", "max_tokens"),
        ({"temperature": -0.1}, "invalid_value", "temperature"),
        ({"temperature": 2.1}, "invalid_value", "temperature"),
        ({"top_p": 0}, "invalid_value", "top_p"),
        ({"top_k": -2}, "invalid_value", "top_k"),
        ({"min_p": 1.1}, "invalid_value", "min_p"),
        ({"repetition_penalty": 0}, "invalid_value", "repetition_penalty"),
        ({"seed": 2**63}, "invalid_value", "seed"),
        ({"stop": ""}, "invalid_value", "stop"),
        ({"stop": ["a", ""]}, "invalid_value", "stop[1]"),
        ({"stop": ["a"] * 17}, "invalid_value", "stop"),
        ({"stop": 5}, "invalid_value", "stop"),
        ({"top_logprobs": 2}, "invalid_value", "top_logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "invalid_value", "top_logprobs"),
        ({"logprobs": 3}, "invalid_value", "logprobs"),
        ({"response_format": {"type": "xml"}}, "invalid_value", "response_format"),
        ({"response_format": {"type": "json_schema"}}, "missing_parameter", "response_format.json_schema"),
        ({"response_format": schema_of(deep(300))}, "invalid_value", "response_format.json_schema.schema"),
        ({"response_format": {"type": ["text"]}}, "invalid_value", "response_format"),
        ({"response_format": {**JSON_SCHEMA, "strict": True}}, "unknown_parameter", "response_format.strict"),
        ({"response_format": schema_of([])}, "invalid_value", "response_format.json_schema.schema"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "a b", "schema": {}}}},
            "invalid_value",
            "response_format.json_schema.name",
        ),
        (
            {"response_format": JSON_SCHEMA, "structured_outputs": {"regex": "a"}},
            "invalid_value",
            "structured_outputs",
        ),
        ({"tools": [{"type": "function"}]}, "unsupported_parameter", "tools"),
        ({"tools": {}}, "unsupported_parameter", "tools"),
        ({"tool_choice": "required"}, "unsupported_parameter", "tool_choice"),
        ({"functions": [{}]}, "unsupported_parameter", "functions"),
        ({"logit_bias": {"5": 1}}, "unsupported_parameter", "logit_bias"),
        ({"audio": {"voice": "x"}}, "unsupported_parameter", "audio"),
        ({"modalities": ["text", "audio"]}, "unsupported_parameter", "modalities"),
        ({"prediction": {"type": "content"}}, "unsupported_parameter", "prediction"),
        ({"reasoning_effort": "high"}, "unsupported_parameter", "reasoning_effort"),
        ({"store": True}, "unsupported_parameter", "store"),
        ({"frequency_penalty": 0.5}, "unsupported_parameter", "frequency_penalty"),
        ({"frequency_penalty": False}, "unsupported_parameter", "frequency_penalty"),
        ({"best_of": 1}, "unknown_parameter", "best_of"),
        ({"x" * 100: 1}, "unknown_parameter", "x" * 64),
    ],
)
def test_chats_that_are_not_taken(more: dict[str, Any], code: str, param: str) -> None:
    with pytest.raises(ServeError) as raised:
        chat(**more)
    assert (raised.value.status, raised.value.code, raised.value.param) == (400, code, param)
    assert raised.value.message.startswith(f"{param}: ")


@pytest.mark.parametrize(
    ("more", "code", "param"),
    [
        ({"prompt": []}, "invalid_value", "prompt"),
        ({"prompt": ["a", 5]}, "invalid_value", "prompt[1]"),
        ({"prompt": [5, "a"]}, "invalid_value", "prompt[1]"),
        ({"prompt": [-1]}, "invalid_value", "prompt[0]"),
        ({"prompt": [[]]}, "invalid_value", "prompt[0]"),
        ({"prompt": ""}, "invalid_value", "prompt"),
        ({"prompt": {}}, "invalid_value", "prompt"),
        ({"echo": True}, "unsupported_parameter", "echo"),
        ({"suffix": "x"}, "unsupported_parameter", "suffix"),
        ({"best_of": 2}, "unsupported_parameter", "best_of"),
        ({"logprobs": True}, "invalid_value", "logprobs"),
        ({"logprobs": 21}, "invalid_value", "logprobs"),
        ({"max_completion_tokens": 5}, "unknown_parameter", "max_completion_tokens"),
    ],
)
def test_completions_that_are_not_taken(more: dict[str, Any], code: str, param: str) -> None:
    with pytest.raises(ServeError) as raised:
        completion(**more)
    assert (raised.value.code, raised.value.param) == (code, param)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b'{"model":"demo","messages":[{"role":"user","content":"\\ud800"}]}',
        b'{"model":"demo","messages":[{"role":"user","content":"\xff"}]}',
        b'{"model":"demo","messages":[{"role":"user","content":"x"}],"temperature":NaN}',
        b'{"model":"demo","messages":[{"role":"user","content":"x"}],"temperature":Infinity}',
        b'{"model":"demo","messages":[{"role":"user","content":"x"}],"temperature":1e999}',
        b'{"a":' * 2000,
    ],
)
def test_bodies_that_are_no_json(body: bytes) -> None:
    with pytest.raises(ServeError) as raised:
        parsed(ChatRequest, body)
    assert (raised.value.status, raised.value.code) == (400, "invalid_json")


@pytest.mark.parametrize("body", [b"[]", b"5", b"null", b'"x"'])
def test_bodies_that_are_no_objects(body: bytes) -> None:
    with pytest.raises(ServeError, match="the body: must be an object"):
        parsed(ChatRequest, body)


def test_the_mend_names_the_nearest_field_and_nothing_that_was_sent() -> None:
    with pytest.raises(ServeError, match="did you mean 'temperature'"):
        chat(temprature=1)
    with pytest.raises(ServeError) as raised:
        chat(n="my secret", stop=["another secret"] * 20, seed="a third")
    assert "secret" not in raised.value.message


@pytest.mark.parametrize(
    "neutral",
    [
        {"tools": []},
        {"tools": None},
        {"tool_choice": "auto"},
        {"functions": []},
        {"logit_bias": {}},
        {"frequency_penalty": 0},
        {"presence_penalty": 0.0},
        {"modalities": ["text"]},
        {"store": False},
        {"reasoning_effort": None},
        {"service_tier": "auto"},
        {"stream_options": None},
        {"response_format": None},
        {"response_format": {"type": "text"}},
        {"top_k": -1},
        {"top_k": 0},
        {"min_p": 0},
        {"repetition_penalty": 1},
        {"n": None},
        {"stop": None},
        {"stop": []},
        {"logprobs": False},
        {"user": "somebody"},
    ],
)
def test_neutral_values_change_nothing(neutral: dict[str, Any]) -> None:
    assert chat(**neutral, seed=1) == chat(seed=1)


def test_prompts_of_all_shapes() -> None:
    assert completion(prompt="a").prompts == ("a",)
    assert completion(prompt=["a", "b"]).prompts == ("a", "b")
    assert completion(prompt=[1, 2]).prompts == ((1, 2),)
    assert completion(prompt=[[1, 2], [3]]).prompts == ((1, 2), (3,))


@pytest.mark.parametrize(
    ("more", "taken"),
    [
        ({}, True),
        ({"logprobs": True, "top_logprobs": 2}, True),
        ({"top_logprobs": None, "stream_options": None, "max_tokens": None, "max_completion_tokens": 1}, True),
        ({"stream": True, "stream_options": {}}, True),
        ({"top_logprobs": 2}, False),
        ({"logprobs": False, "top_logprobs": 2}, False),
        ({"stream_options": {}}, False),
        ({"stream": None, "stream_options": {}}, False),
        ({"max_tokens": 1, "max_completion_tokens": 1}, False),
        ({"structured_outputs": {"regex": "a"}, "response_format": {"type": "text"}}, False),
    ],
)
def test_the_schema_knows_what_contradicts_itself(more: dict[str, Any], taken: bool) -> None:
    body = {"model": "demo", "messages": USER, **more}
    assert Draft202012Validator(ChatRequest.model_json_schema()).is_valid(body) == taken
    if taken:
        chat(**more)
    else:
        with pytest.raises(ServeError):
            chat(**more)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
_REFUSALS = ("invalid_value", "invalid_json", "missing_parameter", "unknown_parameter", "unsupported_parameter")
_FIELDS = sorted({*ChatRequest.model_fields, *CompletionRequest.model_fields, *EmbeddingRequest.model_fields})


@given(st.sampled_from([ChatRequest, CompletionRequest]), st.dictionaries(st.sampled_from(_FIELDS), _JSON, max_size=4))
def test_whatever_is_sent_is_taken_or_refused(kind: Any, more: dict[str, Any]) -> None:
    base: dict[str, Any] = {"model": "demo", "messages": USER} if kind is ChatRequest else {"model": "m", "prompt": "x"}
    try:
        wanted = parsed(kind, json.dumps({**base, **more}).encode()).as_wanted()
    except ServeError as error:
        assert error.status == 400
        assert error.code in _REFUSALS
        json.dumps(error.as_json())
    else:
        assert wanted.model
        assert wanted.answers >= 1


@given(
    st.lists(
        st.fixed_dictionaries(
            {"role": st.sampled_from(["system", "developer", "user", "assistant"]), "content": st.text()}
        ),
        min_size=1,
    ),
    st.fixed_dictionaries(
        {},
        optional={
            "temperature": st.floats(0, 2),
            "top_p": st.floats(0, 1, exclude_min=True),
            "top_k": st.integers(-1, 10**6),
            "seed": st.integers(-(2**63), 2**63 - 1),
            "n": st.integers(1, 16),
            "stop": st.text(min_size=1) | st.lists(st.text(min_size=1), max_size=16),
            "max_tokens": st.integers(1, 10**9),
        },
    ),
)
def test_what_is_said_arrives(turns: list[dict[str, str]], more: dict[str, Any]) -> None:
    wanted = chat(messages=turns, **more)
    (prompt,) = wanted.prompts
    said = [turn.as_dict() if not isinstance(turn, int | str) else turn for turn in prompt]
    assert said == [{**turn, "role": turn["role"].replace("developer", "system")} for turn in turns]
    assert wanted.temperature == more.get("temperature")
    assert wanted.seed == more.get("seed", wanted.seed)
    assert wanted.answers == more.get("n", 1)
    assert wanted.max_new_tokens == more.get("max_tokens")
    stop = more.get("stop", [])
    assert wanted.stop == ((stop,) if isinstance(stop, str) else tuple(stop))
