"""Requests that are refused at the border are told why, in the same shape as everywhere else."""

import json
from http import HTTPStatus

from starlette.types import Send

from whetstone.serve.errors import ServeError
from whetstone.serve.net.request_id import HEADER, new_request_id
from whetstone.serve.net.security_headers import SECURITY_HEADERS

__all__ = ["bare_response", "event", "refuse"]


async def refuse(send: Send, error: ServeError, *, close: bool = False) -> None:
    """Answers a request with an error.

    Args:
        send: Of the ASGI application.
        error: What is told.
        close: End the connection after it, because what the client is still sending is not read.
    """
    body, headers = _content(error)
    if close:
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": error.status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})


def bare_response(error: ServeError, default_headers: list[tuple[bytes, bytes]]) -> bytes:
    """A whole response for a request that no application has seen; the connection ends after it.

    Args:
        error: What is told.
        default_headers: Of every response.
    """
    body, headers = _content(error)
    own = [(HEADER, new_request_id().encode()), (b"connection", b"close")]
    lines = [f"HTTP/1.1 {error.status} {HTTPStatus(error.status).phrase}".encode()]
    lines += [name + b": " + value for name, value in [*default_headers, *headers, *SECURITY_HEADERS, *own]]
    return b"\r\n".join([*lines, b"", body])


def event(error: ServeError) -> bytes:
    """The error as an event of a stream."""
    return b"data: " + json.dumps(error.as_json()).encode() + b"\n\n"


def _content(error: ServeError) -> tuple[bytes, list[tuple[bytes, bytes]]]:
    body = json.dumps(error.as_json()).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    return body, headers + [(name.lower().encode(), value.encode()) for name, value in error.headers().items()]
