"""JSON as it goes over the wire."""

import json

import orjson

__all__ = ["json_bytes"]


def json_bytes(value: object) -> bytes:
    """The value as JSON.

    Half a surrogate pair, which a server of others may send and UTF-8 cannot say, is written as an escape.
    """
    try:
        return orjson.dumps(value)
    except TypeError:
        return json.dumps(value, separators=(",", ":")).encode()
