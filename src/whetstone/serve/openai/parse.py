"""From the bytes of a body to a request, or to the one line that says what is wrong with it."""

from collections.abc import Sequence
from typing import Any, TypeVar

import orjson
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from whetstone.serve.errors import ServeError
from whetstone.serve.openai.fields import UNKNOWN, UNSUPPORTED

__all__ = ["explained", "parsed"]

_Request = TypeVar("_Request", bound=BaseModel)

_PLAIN_WORDS = {
    "missing": "is required",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "string_type": "must be text",
    "bool_type": "must be true or false",
    "list_type": "must be a list",
    "dict_type": "must be an object",
    "model_type": "must be an object",
    "model_attributes_type": "must be an object",
    "finite_number": "must be a finite number",
}
_LATE = {"missing": 2}
"""A misspelt field is told as unknown and as missing; the unknown one is where the mend is."""


def parsed(kind: type[_Request], body: bytes) -> _Request:
    """Reads a request.

    The JSON is read strictly (RFC 8259): no NaN, no half of a surrogate pair, no bytes that are not UTF-8.

    Raises:
        ServeError: 400, with the field that is wrong.
    """
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise ServeError.invalid(f"the body is not JSON ({error.msg}: {where})", code="invalid_json") from None
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        raise explained(error.errors(include_url=False), value) from None


def explained(details: Sequence[ErrorDetails], body: Any) -> ServeError:
    """The first fault that pydantic found, as clients read it; what was sent is not repeated.

    Args:
        details: All faults.
        body: What was validated.
    """
    detail = min(details, key=lambda one: _LATE.get(one["type"], 1))
    kind, context = detail["type"], detail.get("ctx", {})
    place = _place(detail["loc"], body)
    if kind == "missing":
        place.append(detail["loc"][-1])
    if kind == UNKNOWN:
        place.append(context["name"][:64])
    param = _written(place) or None
    words = _PLAIN_WORDS.get(kind) or (detail["msg"][0].lower() + detail["msg"][1:])
    if kind == "literal_error":
        words = f"must be one of: {context['expected']}"
    code = kind if kind in (UNKNOWN, UNSUPPORTED) else "missing_parameter" if kind == "missing" else "invalid_value"
    return ServeError.invalid(f"{param or 'the body'}: {words}", param, code)


def _place(location: Sequence[str | int], body: Any) -> list[str | int]:
    """Leaves out the tags of unions, which pydantic puts between the fields."""
    place: list[str | int] = []
    for part in location:
        keys = body if isinstance(body, dict) else range(len(body)) if isinstance(body, list) else ()
        if part in keys:
            body = body[part]
            place.append(part)
    return place


def _written(place: Sequence[str | int]) -> str:
    """As OpenAI writes it: ``messages[0].content``."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place).removeprefix(".")
