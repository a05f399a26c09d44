"""``POST /v1/feedback``, as a client sees it."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from whetstone.serve.answered import Answered
from whetstone.serve.errors import ServeError
from whetstone.serve.feedback import feedback_router
from whetstone.serve.feedback_store import FeedbackStore
from whetstone.serve.gate.keys import ENVIRONMENT_KEYS, KeyRing

KEYS = {"alice": "alice's own key is long", "bob": "bob's own key is long too"}
GOOD = {"answer_id": "chatcmpl-1", "rating": "good"}


@pytest.fixture
def app(tmp_path: Path) -> Iterator[FastAPI]:
    store = FeedbackStore(tmp_path / "feedback.db", store_prompts=False)
    store.answered(Answered("r", "chat", "alice", "demo", "ok", 0.0, 1.0, answer_id="chatcmpl-1", text="Hi."))
    ring = KeyRing.read(None, {ENVIRONMENT_KEYS: ",".join(f"{name}:{key}" for name, key in KEYS.items())})
    app = FastAPI()
    app.include_router(feedback_router(store, lambda request: ring.identify(request.headers.get("authorization"))))

    @app.exception_handler(ServeError)
    async def refuse(_: Request, error: ServeError) -> JSONResponse:
        return JSONResponse(error.as_json(), error.status, error.headers())

    yield app
    store.close()


def post(app: FastAPI, body: Any, name: str | None = "alice") -> httpx.Response:
    async def send() -> httpx.Response:
        transport = httpx.ASGITransport(app)
        headers = {} if name is None else {"Authorization": f"Bearer {KEYS[name]}"}
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost", headers=headers) as client:
            if isinstance(body, bytes):
                return await client.post("/v1/feedback", content=body)
            return await client.post("/v1/feedback", json=body)

    return asyncio.run(send())


def refusal(response: httpx.Response) -> tuple[int, str, str | None]:
    error = response.json()["error"]
    return response.status_code, error["code"], error["param"]


@pytest.mark.parametrize(
    "body",
    [
        GOOD,
        GOOD | {"rating": "bad", "comment": "no"},
        GOOD | {"rating": "bad", "correction": "Hello."},
        GOOD | {"rating": "correction", "correction": "Hello.", "choice": 0},
        GOOD | {"comment": None, "correction": None},
    ],
)
def test_feedback_is_taken(app: FastAPI, body: dict[str, Any]) -> None:
    response = post(app, body)
    assert response.status_code == 200
    said = {"object": "feedback", "answer_id": "chatcmpl-1", "choice": 0, "rating": body["rating"]}
    assert response.json() == {"id": "feedback-1", **said}


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (GOOD | {"rating": "correction"}, "correction"),
        (GOOD | {"rating": "correction", "correction": " \n"}, "correction"),
        (GOOD | {"rating": "correction", "correction": "Hi."}, "correction"),
        (GOOD | {"correction": "Hello."}, "correction"),
        (GOOD | {"rating": "fine"}, "rating"),
        ({"rating": "good"}, "answer_id"),
        (GOOD | {"answer_id": 5}, "answer_id"),
        (GOOD | {"answer_id": "x" * 201}, "answer_id"),
        (GOOD | {"choice": -1}, "choice"),
        (GOOD | {"choice": 2**31}, "choice"),
        (GOOD | {"choice": "0"}, "choice"),
        (GOOD | {"comment": "x" * 10_001}, "comment"),
        (GOOD | {"comment": "a\0b"}, "comment"),
        (GOOD | {"rating": "correction", "correction": "x" * 200_001}, "correction"),
        (GOOD | {"stars": 5}, "stars"),
        ([], None),
        (b"{", None),
        (b"", None),
        (b"\xff", None),
        (b'{"answer_id": "\\ud800", "rating": "good"}', None),
    ],
)
def test_what_is_wrong_is_named(app: FastAPI, body: Any, param: str | None) -> None:
    assert refusal(post(app, body)) == (400, "invalid_value", param)


def test_who_may_rate(app: FastAPI) -> None:
    assert refusal(post(app, GOOD, None))[:2] == (401, "missing_api_key")
    assert refusal(post(app, GOOD, "bob"))[:2] == (403, "not_yours")
    assert refusal(post(app, GOOD | {"answer_id": "chatcmpl-2"})) == (404, "answer_not_found", "answer_id")
    assert refusal(post(app, GOOD | {"choice": 1})) == (404, "answer_not_found", "answer_id")
