"""The OpenAPI document: FastAPI's, made true."""

from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from whetstone.serve.api.describe import errors, reference
from whetstone.serve.openai.chat import ChatRequest
from whetstone.serve.openai.completions import CompletionRequest
from whetstone.serve.openai.error import ErrorBody

__all__ = ["document"]

_SCHEMA_OF_REFERENCES = "#/components/schemas/{model}"
_METHODS = ("get", "post", "put", "delete", "patch")


def document(app: FastAPI, models: Sequence[type[BaseModel]], *, keys: bool, answers: int) -> dict[str, Any]:
    """Writes the document.

    FastAPI knows neither the bodies that endpoints read themselves nor that a request that is wrong is answered with
    400 and OpenAI's error here, and not with 422 and its own.

    Args:
        app: With all its routes.
        models: What endpoints refer to beside what FastAPI finds.
        keys: Requests need one.
        answers: To one request, at most.
    """
    written = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
    _, definitions = models_json_schema([(model, "validation") for model in models], ref_template=_SCHEMA_OF_REFERENCES)
    components = written.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    schemas.update(definitions["$defs"])
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    _limit(schemas, answers)
    for path in written["paths"].values():
        for method in _METHODS:
            if method in path:
                _make_true(path[method]["responses"])
    if keys:
        components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        written["security"] = [{"key": []}]
    return written


def _make_true(responses: dict[str, Any]) -> None:
    found = responses.get("422", {}).get("content", {}).get("application/json", {}).get("schema")
    if found == reference("HTTPValidationError"):
        del responses["422"]
        description = errors(400)[400]["description"]
        content = {"application/json": {"schema": reference(ErrorBody)}}
        responses.setdefault("400", {"description": description, "content": content})


def _limit(schemas: dict[str, Any], answers: int) -> None:
    """Says how many answers this server gives to one request."""
    for request in (ChatRequest, CompletionRequest):
        for way in schemas[request.__name__]["properties"]["n"]["anyOf"]:
            if way["type"] == "integer":
                way["maximum"] = answers
    for way in schemas[CompletionRequest.__name__]["properties"]["prompt"]["oneOf"]:
        if way["type"] == "array" and way["items"]["type"] != "integer":
            way["maxItems"] = answers
