"""What the requests share: strict about types, no unknown fields, and nothing that is taken and then ignored.

A field of OpenAI's that is not served is declared all the same, with the values that change nothing. So a client that
sends ``"tools": []`` is answered, one that sends tools is told that there are none, and the schema says both.
"""

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Discriminator, Field, GetCoreSchemaHandler, Tag, model_validator
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

__all__ = [
    *("UNKNOWN", "UNSUPPORTED", "ModelName", "Neutral", "Text", "TextOrTexts", "TokenId", "Wire", "by_shape"),
    *("never_both", "only_with"),
]

UNKNOWN = "unknown_parameter"
UNSUPPORTED = "unsupported_parameter"


class Wire(BaseModel):
    """A part of a request."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    _names: ClassVar[frozenset[str]] = frozenset()

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        """Remembers what the fields are called on the wire."""
        super().__pydantic_init_subclass__(**kwargs)
        cls._names = frozenset(field.alias or name for name, field in cls.model_fields.items())

    @model_validator(mode="before")
    @classmethod
    def _only_known(cls, values: Any) -> Any:
        """Names the nearest known field, and stops at the first that is not; pydantic would tell of each."""
        if isinstance(values, dict) and not values.keys() <= cls._names:
            name = next(name for name in values if name not in cls._names)
            raise PydanticCustomError(UNKNOWN, "{mend}", {"name": name, "mend": _mend(name, cls._names)})
        return values


def _mend(name: str, known: frozenset[str]) -> str:
    near = difflib.get_close_matches(name[:64], sorted(known), n=1, cutoff=0.5)
    return f"unknown; did you mean '{near[0]}'?" if near else f"unknown; known here: {', '.join(sorted(known))}"


@dataclass(frozen=True, eq=False)
class Neutral:
    """A field that is not served, in ``Annotated``; null and these values change nothing and are taken.

    Two with equal values are not equal, for ``typing`` keeps one of equal annotations, and 0 equals false.
    """

    values: tuple[Any, ...] = ()

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Refuses all other values."""
        return core_schema.no_info_plain_validator_function(
            self._check, metadata={"pydantic_js_functions": [lambda _schema, _handler: {"enum": [None, *self.values]}]}
        )

    def _check(self, value: Any) -> Any:
        if value is None or any(_kind(value) is _kind(one) and value == one for one in self.values):
            return value
        raise PydanticCustomError(UNSUPPORTED, "not served here; leave it out")


def _kind(value: Any) -> type:
    """JSON has one type of numbers, and ``true`` is none of them."""
    return float if isinstance(value, int) and not isinstance(value, bool) else type(value)


ModelName = Annotated[str, Field(min_length=1, max_length=512)]
Text = Annotated[str, Field(min_length=1)]
TokenId = Annotated[int, Field(ge=0, lt=2**31)]


def by_shape(said: str, shape: Callable[[Any], str | None]) -> Discriminator:
    """Tells the members of a union apart by what the value looks like, so that only one of them finds fault with it."""
    return Discriminator(shape, custom_error_type="shape", custom_error_message=f"must be {said}")


def _text_shape(value: Any) -> str | None:
    return "text" if isinstance(value, str) else "texts" if isinstance(value, list) else None


TextOrTexts = Annotated[
    Annotated[Text, Tag("text")] | Annotated[list[Text], Field(max_length=16, fail_fast=True), Tag("texts")],
    by_shape("text or a list of texts", _text_shape),
]
"""Up to sixteen texts that are not empty; ``stop``."""


def only_with(name: str, kind: str, other: str) -> dict[str, Any]:
    """The rule, as JSON schema, that a field may be given only where another is true.

    Args:
        name: The field.
        kind: Its type where it is given.
        other: The other one.
    """
    return {
        "if": {"properties": {name: {"type": kind}}, "required": [name]},
        "then": {"properties": {other: {"const": True}}, "required": [other]},
    }


def never_both(first: str, second: str) -> dict[str, Any]:
    """The rule, as JSON schema, that one of two fields is left out or null."""
    given = {name: {"not": {"type": "null"}} for name in (first, second)}
    return {"not": {"properties": given, "required": [first, second]}}
