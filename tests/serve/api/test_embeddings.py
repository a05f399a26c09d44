"""Texts as vectors, by OpenAI's own client."""

from collections.abc import Callable
from typing import Any

import pytest
from openai import APIStatusError

from scripted_backend import ScriptedBackend, model_named
from whetstone.serve.backend import BackendState
from whetstone.serve.openai.embeddings import EmbeddingList

Start = Callable[..., Any]


def test_vectors_as_numbers_and_as_bytes(serving: Start) -> None:
    server = serving(ScriptedBackend(), embeddings=True)
    for encoding in ({}, {"encoding_format": "float"}, {"encoding_format": "base64"}):
        # Without a format the client asks for base64 and decodes it.
        told: dict[str, Any] = {"model": "demo", "input": ["abc", "abcde"], **encoding}
        answer = server.client().embeddings.create(**told)
        assert [one.index for one in answer.data] == [0, 1]
        assert answer.usage.prompt_tokens == answer.usage.total_tokens == 8
        if "base64" not in encoding.values():
            assert [one.embedding for one in answer.data] == [[3.0, 1.0], [5.0, 1.0]]
    response = server.post("/v1/embeddings", {"model": "demo", "input": [[1, 2, 3]]})
    EmbeddingList.model_validate_json(response.text, extra="forbid")
    assert response.headers["x-whetstone-backend"] == "scripted"
    record = server.told(4)[0]
    assert (record.endpoint, record.outcome, record.prompt_tokens, record.text) == ("embeddings", "ok", 8, "")


def test_embeddings_are_off_by_default(serving: Start) -> None:
    server = serving(ScriptedBackend())
    with pytest.raises(APIStatusError) as raised:
        server.client().embeddings.create(model="demo", input="x")
    assert (raised.value.status_code, raised.value.code) == (404, "embeddings_off")
    assert server.record().outcome == "embeddings_off"


def test_a_model_without_embeddings(serving: Start) -> None:
    model = model_named("demo").model_copy(update={"embeds": False})
    server = serving(ScriptedBackend(models={"demo": model}), embeddings=True)
    response = server.post("/v1/embeddings", {"model": "demo", "input": "x"})
    assert (response.status_code, response.json()["error"]["code"]) == (400, "no_embeddings")


def test_no_other_model_stands_in(serving: Start) -> None:
    first, second = ScriptedBackend(name="first"), ScriptedBackend("spare", name="second")
    first.state = BackendState("restarting", retry_after_s=1.0)
    server = serving(first, fallbacks=[second], embeddings=True)
    response = server.post("/v1/embeddings", {"model": "demo", "input": "x"})
    assert (response.status_code, response.json()["error"]["code"]) == (503, "restarting")


@pytest.mark.parametrize("said", ["", [], [""], [[]], [-1], 5])
def test_inputs_that_are_none(serving: Start, said: object) -> None:
    response = serving(ScriptedBackend(), embeddings=True).post("/v1/embeddings", {"model": "demo", "input": said})
    assert response.status_code == 400
    assert response.json()["error"]["param"].startswith("input")
