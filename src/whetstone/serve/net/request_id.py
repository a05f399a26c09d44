"""Every request has an id, which its response says and everything that is written about it can say too.

The id lies in the scope's state as ``request_id``: a handler reads ``request.state.request_id``, and a pure ASGI
application ``scope["state"]["request_id"]``. It is there before anything else sees the request.
"""

import re
import uuid
from collections.abc import Iterable, Mapping

from starlette.types import Scope

__all__ = ["HEADER", "new_request_id", "request_id_of", "set_request_id"]

HEADER = b"x-request-id"

_CLIENTS_OWN = re.compile(rb"[A-Za-z0-9._-]{1,128}")
_KEY = "request_id"


def new_request_id() -> str:
    """An id that nobody else has."""
    return f"req-{uuid.uuid4().hex}"


def set_request_id(scope: Scope, headers: Iterable[tuple[bytes, bytes]]) -> str:
    """Gives a request its id: the client's own where that can stand in a log line as it is, else a new one."""
    own = next((value for name, value in headers if name == HEADER), b"")
    request_id = own.decode("ascii") if _CLIENTS_OWN.fullmatch(own) else new_request_id()
    scope.setdefault("state", {})[_KEY] = request_id
    return request_id


def request_id_of(scope: Mapping[str, object]) -> str:
    """The id of a request; empty before it has one."""
    state = scope.get("state")
    return str(state.get(_KEY, "")) if isinstance(state, dict) else ""
