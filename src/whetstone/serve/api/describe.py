"""How endpoints are written down in the OpenAPI document."""

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel

from whetstone.serve.api.exchange import DEADLINE_HEADER
from whetstone.serve.openai.error import ErrorBody

__all__ = ["answer_headers", "body", "computed", "errors", "reference"]

_ERRORS = {
    400: "The request is wrong; `param` names the field.",
    401: "A key is needed, or this one is not known.",
    403: "The key may not do this.",
    404: "There is nothing of this name.",
    408: "The body did not come in time, or the deadline passed that the request named.",
    409: "The name is taken.",
    413: "The body is too long.",
    415: "The body is not said to be JSON.",
    422: "No answer was what it must be.",
    429: "Too much at once; `Retry-After` says when to ask again.",
    500: "The server failed.",
    503: "Nobody can answer now; `Retry-After` says when to ask again.",
    504: "The deadline of the server passed.",
}

_READS_BODY = (400, 401, 408, 413, 415, 500)


def errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The responses of failures, all of one shape."""
    return {status: {"model": ErrorBody, "description": _ERRORS[status]} for status in sorted(set(statuses))}


def reference(model: type[BaseModel] | str) -> dict[str, str]:
    """Where the document says what a model is."""
    return {"$ref": f"#/components/schemas/{model if isinstance(model, str) else model.__name__}"}


def body(request: type[BaseModel]) -> dict[str, Any]:
    """The body of a request that is read by hand."""
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": reference(request)}}}}


def answer_headers() -> dict[str, Any]:
    """Headers of answers."""
    said = {
        "x-whetstone-backend": "Who answered.",
        "x-whetstone-cache": "Whether the answer was known (`hit`) or could have been (`miss`).",
        "x-whetstone-invalid": "How many answers before this one were not what they must be.",
    }
    return {name: {"description": words, "schema": {"type": "string"}} for name, words in said.items()}


def computed(
    request: type[BaseModel], response: type[BaseModel], *, streams: str | None = None, also: Iterable[int] = ()
) -> Mapping[str, Any]:
    """What FastAPI is told of an endpoint that computes.

    Args:
        request: What it takes.
        response: What it gives.
        streams: The events that it gives instead where the request says ``stream``; None where it cannot.
        also: Further failures.
    """
    ok: dict[str, Any] = {"model": response, "description": "Answered.", "headers": answer_headers()}
    if streams is not None:
        ok["content"] = {"text/event-stream": {"itemSchema": _event(streams)}}
    deadline = {
        "name": DEADLINE_HEADER,
        "in": "header",
        "description": "How many seconds the request may take, waiting included; the server's own limit holds as well.",
        "schema": {"type": "number", "exclusiveMinimum": 0},
    }
    return {
        "responses": {200: ok, **errors(*_READS_BODY, 404, 422, 429, 503, 504, *also)},
        "openapi_extra": {**body(request), "parameters": [deadline]},
    }


def _event(model: str) -> dict[str, Any]:
    """An event, as OpenAPI 3.2 says it and tools for 3.1 understand: its data is JSON, or says that it is over."""
    said = {"anyOf": [reference(model), reference(ErrorBody)]}
    data = {"anyOf": [{"const": "[DONE]"}, {"contentMediaType": "application/json", "contentSchema": said}]}
    return {"type": "object", "properties": {"data": {"type": "string", **data}}, "required": ["data"]}
