"""The application as a whole: what it imports, what it says of itself, and what it says to strangers."""

import asyncio
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from fastapi import APIRouter, Request

from scripted_backend import ScriptedBackend
from whetstone.serve.api.app import build_app
from whetstone.serve.api.service import Service
from whetstone.serve.gate.admission import Admission
from whetstone.serve.gate.key_file import StoredKey, hashed
from whetstone.serve.gate.keys import KeyRing
from whetstone.serve_section import Serve

Start = Callable[..., Any]

LINES = """
import sys
import whetstone.serve.api.app
print(*sorted({"torch", "scipy", "transformers", "numpy", "pandas", "datasets"} & set(sys.modules)))
"""


def test_it_imports_nothing_that_computes() -> None:
    done = subprocess.run([sys.executable, "-c", LINES], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nope", 404, "not_found"),
        ("GET", "/v1/chat/completions", 405, "method_not_allowed"),
        ("PUT", "/v1/models", 405, "method_not_allowed"),
        ("GET", "/docs", 404, "not_found"),
        ("GET", "/redoc", 404, "not_found"),
        ("GET", "/v1/models/", 404, "model_not_found"),
        ("POST", "/v1/chat/completions/", 404, "not_found"),
        ("GET", "/v1/%2e%2e/%2e%2e/etc/passwd", 404, "not_found"),
    ],
)
def test_what_there_is_not(serving: Start, method: str, path: str, status: int, code: str) -> None:
    response = httpx.request(method, f"{serving(ScriptedBackend()).url}{path}")
    assert (response.status_code, response.json()["error"]["code"]) == (status, code)
    assert response.headers["content-type"] == "application/json"
    assert ("allow" in response.headers) == (status == 405)


def test_the_document_tells_all_that_is_true(serving: Start) -> None:
    document = httpx.get(f"{serving(ScriptedBackend()).url}/openapi.json").json()
    assert set(document["paths"]) == {
        "/v1/chat/completions",
        "/v1/completions",
        "/v1/embeddings",
        "/v1/models",
        "/v1/models/{name}",
        "/v1/models/{name}/card",
        "/v1/adapters",
        "/v1/adapters/{name}",
    }
    chat = document["paths"]["/v1/chat/completions"]["post"]
    assert set(chat["responses"]) >= {"200", "400", "401", "404", "422", "429", "500", "503", "504"}
    assert set(chat["responses"]["200"]["content"]) == {"application/json", "text/event-stream"}
    assert chat["requestBody"]["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/ChatRequest"}
    schemas = document["components"]["schemas"]
    assert {"ChatRequest", "ChatCompletion", "ChatCompletionChunk", "ErrorBody", "ModelCard"} <= set(schemas)
    assert schemas["ChatRequest"]["additionalProperties"] is False
    assert schemas["ChatRequest"]["properties"]["tools"]["enum"] == [None, []]
    for request in ("ChatRequest", "CompletionRequest"):
        assert {"type": "integer", "minimum": 1, "maximum": 16} in schemas[request]["properties"]["n"]["anyOf"]
    assert "security" not in document
    for path in document["paths"].values():
        for operation in path.values():
            assert {"$ref": "#/components/schemas/HTTPValidationError"} not in [
                response.get("content", {}).get("application/json", {}).get("schema")
                for response in operation["responses"].values()
            ]
    for reference in _references(document):
        assert reference.removeprefix("#/components/schemas/") in schemas


def _references(value: object) -> list[str]:
    if isinstance(value, list):
        return [reference for one in value for reference in _references(one)]
    if not isinstance(value, dict):
        return []
    own = [value["$ref"]] if isinstance(value.get("$ref"), str) else []
    return own + [reference for one in value.values() for reference in _references(one)]


def test_the_document_says_whether_keys_are_needed(serving: Start) -> None:
    keyring = KeyRing(None, [StoredKey(name="ann", sha256=hashed("00", "a key of ann"), salt="00")])
    document = httpx.get(f"{serving(ScriptedBackend(), keyring=keyring).url}/openapi.json").json()
    assert document["security"] == [{"key": []}]
    assert document["components"]["securitySchemes"]["key"]["scheme"] == "bearer"


def test_what_nobody_foresaw_in_other_endpoints_is_not_told(caplog: pytest.LogCaptureFixture) -> None:
    router = APIRouter()

    @router.get("/bursts")
    async def burst(request: Request) -> None:
        raise ValueError(request.url.query)

    @router.get("/refuses/{number}")
    async def refuse(number: int) -> int:
        return number

    settings = Serve()
    service = Service(settings, (ScriptedBackend(),), KeyRing(None, ()), Admission(settings.limits))

    async def ask() -> tuple[httpx.Response, httpx.Response]:
        transport = httpx.ASGITransport(build_app(service, router))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return await client.get("/bursts?private"), await client.get("/refuses/private")

    burst_, refused = asyncio.run(ask())
    assert (burst_.status_code, burst_.json()["error"]["code"]) == (500, "internal_error")
    assert "private" not in burst_.text + caplog.text
    assert "ValueError" in caplog.text
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "invalid_value")
