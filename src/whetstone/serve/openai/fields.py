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

__all__ = ["UNKNOWN", "UNSUPPORTED", "ModelName", "Neutral", "Text", "TextOrTexts", "TokenId", "Wire", "by_shape"]

UNKNOWN = "unknown_parameter"
UNSUPPORTED = "unsupported_parameter"


class Wire(BaseModel):
    """A part of a request."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    _names: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        """Remembers what the fields are called on the wire."""
        super().__pydantic_init_subclass__(**kwargs)
        cls._names = tuple(field.alias or name for name, field in cls.model_fields.items())

    @model_validator(mode="before")
    @classmethod
    def _only_known(cls, values: Any) -> Any:
        """Names the nearest known field, which pydantic's own refusal does not."""
        if isinstance(values, dict):
            for name in values:
                if name not in cls._names:
                    raise PydanticCustomError(UNKNOWN, "{mend}", {"name": name, "mend": _mend(name, cls._names)})
        return values


def _mend(name: str, known: tuple[str, ...]) -> str:
    near = difflib.get_close_matches(name[:64], known, n=1, cutoff=0.5)
    return f"unknown; did you mean '{near[0]}'?" if near else f"unknown; known here: {', '.join(known)}"


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
    Annotated[Text, Tag("text")] | Annotated[list[Text], Field(max_length=16), Tag("texts")],
    by_shape("text or a list of texts", _text_shape),
]
"""Up to sixteen texts that are not empty; ``stop``."""
