"""A message between two processes as one line of JSON."""

from typing import Any

import orjson
from pydantic import BaseModel

__all__ = ["encode"]


def encode(message: object) -> bytes:
    """A message as a line.

    Args:
        message: A dataclass, which may hold models of pydantic.

    Raises:
        ValueError: It holds what JSON cannot say: half a surrogate pair, or an integer beyond 64 bits.
    """
    try:
        return orjson.dumps(message, default=_plain, option=orjson.OPT_APPEND_NEWLINE)
    except orjson.JSONEncodeError as error:
        raise ValueError(str(error)) from None


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", by_alias=True)
    raise TypeError
