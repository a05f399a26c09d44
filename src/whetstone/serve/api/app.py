"""The HTTP API, put together.

Importing it takes no torch, so that a server binds and answers at once, whatever its models need to load.
"""

from functools import cache, partial
from http import HTTPStatus

from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from whetstone import __version__
from whetstone.serve.api.adapters import adapters_router
from whetstone.serve.api.chat import chat_router
from whetstone.serve.api.completions import completions_router
from whetstone.serve.api.document import document
from whetstone.serve.api.embeddings import embeddings_router
from whetstone.serve.api.exchange import send_error
from whetstone.serve.api.json_bytes import json_bytes
from whetstone.serve.api.models_list import models_router
from whetstone.serve.api.service import Service
from whetstone.serve.api.unexpected import unexpected
from whetstone.serve.errors import ServeError
from whetstone.serve.openai.chat import ChatCompletionChunk, ChatRequest
from whetstone.serve.openai.completions import CompletionRequest
from whetstone.serve.openai.embeddings import EmbeddingRequest
from whetstone.serve.openai.error import ErrorBody
from whetstone.serve.openai.models import AdapterRequest
from whetstone.serve.openai.parse import explained

__all__ = ["build_app"]

_REFERRED = (ChatRequest, ChatCompletionChunk, CompletionRequest, EmbeddingRequest, AdapterRequest, ErrorBody)


def build_app(service: Service, *routers: APIRouter) -> FastAPI:
    """The application of one server.

    Args:
        service: What its handlers share.
        routers: Further endpoints, such as those of feedback, health and metrics.
    """
    app = FastAPI(
        title="Whetstone",
        version=__version__,
        description="Models with the proof that what is served is what was judged, behind OpenAI's API.",
        docs_url=None,  # The pages would load scripts from elsewhere.
        redoc_url=None,
        redirect_slashes=False,
    )
    own = (chat_router, completions_router, embeddings_router, models_router, adapters_router)
    for router in (*(make(service) for make in own), *routers):
        app.include_router(router)
    app.add_exception_handler(ServeError, _refused)
    app.add_exception_handler(HTTPException, _refused)
    app.add_exception_handler(RequestValidationError, _refused)
    app.add_middleware(_Guard)
    app.openapi = cache(  # type: ignore[method-assign]
        partial(document, app, _REFERRED, keys=service.keyring.required, answers=service.settings.limits.choices)
    )
    return app


class _Guard:
    """Answers what nobody foresaw with OpenAI's error, and logs it without the words of clients."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        began = False

        async def noting(message: Message) -> None:
            nonlocal began
            began = True
            await send(message)

        try:
            await self._app(scope, receive, noting)
        except ClientDisconnect:
            return
        except Exception as error:
            failure = unexpected(error)
            if not began and scope["type"] == "http":
                await send_error(failure, send)


async def _refused(request: Request, error: Exception) -> Response:
    failure = _as_serve_error(request, error)
    headers = {**(dict(error.headers or {}) if isinstance(error, HTTPException) else {}), **failure.headers()}
    return Response(json_bytes(failure.as_json()), failure.status, headers, "application/json")


def _as_serve_error(request: Request, error: Exception) -> ServeError:
    if isinstance(error, ServeError):
        return error
    if isinstance(error, RequestValidationError):
        return explained(error.errors(), error.body)
    if isinstance(error, HTTPException):
        phrase = HTTPStatus(error.status_code).phrase
        code = phrase.lower().replace(" ", "_")
        where = f"{request.method} {request.url.path[:128]}"
        said = phrase if error.detail == phrase else str(error.detail)
        return ServeError(error.status_code, code, f"{where}: {said.lower()}; /openapi.json lists what there is")
    return unexpected(error)
