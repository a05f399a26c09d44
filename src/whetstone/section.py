"""What every section of an experiment shares: frozen, strict about types, no unknown keys."""

import hashlib
import json
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["Count", "KeyedError", "Section", "Seed", "Share", "stable_hash"]

Count = Annotated[int, Field(gt=0)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Share = Annotated[float, Field(ge=0, le=1)]


class KeyedError(ValueError):
    """A value that is wrong only in the light of another; ``key`` says which line to show."""

    def __init__(self, key: str, message: str) -> None:
        super().__init__(message)
        self.key = key


class Section(BaseModel):
    """A part of the experiment file; unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


def stable_hash(value: Any) -> str:
    """SHA-256 of a JSON value, independent of key order; the first 16 hexadecimal digits."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]
