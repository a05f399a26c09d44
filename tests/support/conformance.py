"""What a client of OpenAI's expects of a server, tried with the real Python client.

Run against any server: ``python tests/support/conformance.py http://127.0.0.1:8000/v1 MODEL [KEY]``.
"""

import json
import sys

import httpx
import openai
from openai import OpenAI
from openai.types.chat import ChatCompletionMessageParam

__all__ = ["QUESTION", "conform"]

QUESTION = "Correct: She go home ."


def conform(url: str, model: str, key: str = "none") -> list[str]:
    """Tries all of it.

    Args:
        url: Up to ``/v1``.
        model: The name of a model with greedy defaults.
        key: Sent as a bearer token.

    Returns:
        What was tried, in words.
    """
    client = OpenAI(base_url=url, api_key=key, max_retries=0, timeout=60)
    messages: list[ChatCompletionMessageParam] = [{"role": "user", "content": QUESTION}]
    return [
        _lists(client, model),
        _chats(client, model, messages),
        _streams(client, model, messages),
        _stops(client, model, messages),
        _draws(client, model, messages),
        _scores(client, model, messages),
        _follows_schema(client, model, messages),
        _continues(client, model),
        _refuses(client, model, messages),
    ]


def _lists(client: OpenAI, model: str) -> str:
    assert model in [one.id for one in client.models.list()]
    assert client.models.retrieve(model).id == model
    return "list"


def _chats(client: OpenAI, model: str, messages: list[ChatCompletionMessageParam]) -> str:
    answer = client.chat.completions.create(model=model, messages=messages, max_tokens=12)
    assert answer.object == "chat.completion" and answer.model == model and answer.id.startswith("chatcmpl-")
    (choice,) = answer.choices
    assert choice.message.role == "assistant" and choice.finish_reason in ("stop", "length")
    usage = answer.usage
    assert usage is not None and usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    assert 0 < usage.completion_tokens <= 12
    raw = client.chat.completions.with_raw_response.create(model=model, messages=messages, max_tokens=2)
    assert raw.headers["x-whetstone-backend"] and raw.headers["x-request-id"]
    return "chat"


def _streams(client: OpenAI, model: str, messages: list[ChatCompletionMessageParam]) -> str:
    whole = client.chat.completions.create(model=model, messages=messages, max_tokens=12)
    chunks = list(
        client.chat.completions.create(
            model=model, messages=messages, max_tokens=12, stream=True, stream_options={"include_usage": True}
        )
    )
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == whole.choices[0].message.content
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == whole.choices[0].finish_reason
    assert chunks[-1].choices == [] and chunks[-1].usage is not None and whole.usage is not None
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens
    plain = list(client.chat.completions.create(model=model, messages=messages, max_tokens=4, stream=True))
    assert all(chunk.usage is None and chunk.choices for chunk in plain)
    return "stream"


def _stops(client: OpenAI, model: str, messages: list[ChatCompletionMessageParam]) -> str:
    text = client.chat.completions.create(model=model, messages=messages, max_tokens=12).choices[0].message.content
    assert text is not None and " " in text.strip()
    stop = text.strip().split(" ")[1]
    cut = client.chat.completions.create(model=model, messages=messages, max_tokens=12, stop=[stop, "never said"])
    assert cut.choices[0].finish_reason == "stop" and cut.choices[0].message.content == text[: text.index(stop)]
    return "stop"


def _draws(client: OpenAI, model: str, messages: list[ChatCompletionMessageParam]) -> str:
    def texts(seed: int) -> list[str | None]:
        drawn = client.chat.completions.create(
            model=model, messages=messages, max_tokens=12, n=4, seed=seed, temperature=1.5
        )
        assert [choice.index for choice in drawn.choices] == [0, 1, 2, 3]
        return [choice.message.content for choice in drawn.choices]

    first = texts(1)
    assert first == texts(1) and len(set(first)) > 1 and first != texts(2)
    streamed = ["", "", "", ""]
    for chunk in client.chat.completions.create(
        model=model, messages=messages, max_tokens=12, n=4, seed=1, temperature=1.5, stream=True
    ):
        for choice in chunk.choices:
            streamed[choice.index] += choice.delta.content or ""
    assert streamed == first
    return "n and seed"


def _scores(client: OpenAI, model: str, messages: list[ChatCompletionMessageParam]) -> str:
    answer = client.chat.completions.create(model=model, messages=messages, max_tokens=6, logprobs=True, top_logprobs=3)
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None and logprobs.content is not None and answer.usage is not None
    assert len(logprobs.content) == answer.usage.completion_tokens
    for token in logprobs.content:
        assert token.logprob <= 0 and len(token.top_logprobs) == 3
        assert token.top_logprobs[0].logprob == max(other.logprob for other in token.top_logprobs)
        # Greedy: what was chosen is the likeliest.
        assert token.token == token.top_logprobs[0].token
    said = b"".join(bytes(token.bytes or ()) for token in logprobs.content)
    assert (answer.choices[0].message.content or "").encode() in said
    return "logprobs"


def _follows_schema(client: OpenAI, model: str, messages: list[ChatCompletionMessageParam]) -> str:
    schema = {
        "type": "object",
        "properties": {"right": {"type": "boolean"}},
        "required": ["right"],
        "additionalProperties": False,
    }
    answer = client.chat.completions.create(
        model=model,
        messages=messages,
        max_tokens=110,  # a weak model fills what white space is allowed
        response_format={"type": "json_schema", "json_schema": {"name": "verdict", "strict": True, "schema": schema}},
    )
    said = json.loads(answer.choices[0].message.content or "")
    assert isinstance(said["right"], bool) and len(said) == 1
    return "json_schema"


def _continues(client: OpenAI, model: str) -> str:
    answer = client.completions.create(model=model, prompt=["She goes", "They go"], max_tokens=4)
    assert answer.object == "text_completion" and [choice.index for choice in answer.choices] == [0, 1]
    pieces = client.completions.create(model=model, prompt="She goes", max_tokens=4, stream=True)
    assert "".join(piece.choices[0].text for piece in pieces) == answer.choices[0].text
    return "completions"


def _refuses(client: OpenAI, model: str, messages: list[ChatCompletionMessageParam]) -> str:
    def refused(kind: type[openai.APIStatusError], **fields: object) -> openai.APIStatusError:
        try:
            client.chat.completions.create(**{"model": model, "messages": messages, **fields})  # type: ignore[call-overload]
        except kind as error:
            assert isinstance(error.body, dict) and error.body["message"] and error.body["type"] and error.body["code"]
            return error
        raise AssertionError(f"{fields} was taken")

    refused(openai.NotFoundError, model="no-such-model")
    assert refused(openai.BadRequestError, temperature=9).param == "temperature"
    assert refused(openai.BadRequestError, logit_bias={"5": 1}).param == "logit_bias"
    assert refused(openai.BadRequestError, extra_body={"temprature": 1}).param == "temprature"
    assert refused(openai.BadRequestError, max_tokens=10**7).param == "max_tokens"
    assert refused(openai.BadRequestError, messages=[]).param == "messages"
    refused(openai.BadRequestError, max_tokens=0, stream=True)
    malformed = httpx.post(
        f"{client.base_url}chat/completions",
        content=b'{"model": ',
        headers={"content-type": "application/json", "authorization": f"Bearer {client.api_key}"},
    )
    assert malformed.status_code == 400 and malformed.json()["error"]["type"] == "invalid_request_error"
    return "errors"


if __name__ == "__main__":
    print("\n".join(conform(*sys.argv[1:])))  # noqa: T201
