"""The ``serve`` section of an experiment: where a model listens, what it is told, and what its answers must be."""

import json
from typing import Annotated, Any

import regex
from pydantic import Field, SerializerFunctionWrapHandler, field_validator, model_serializer

from whetstone.section import Count, Section

__all__ = ["Limits", "Serve", "Validate"]

_Seconds = Annotated[float, Field(gt=0)]


class Validate(Section):
    """What an answer must be before anybody sees it; one that is not is asked for again, then an error."""

    regex: str | None = None
    """The whole answer matches it."""
    json_schema: str | None = None
    """The answer is JSON of this schema, given as JSON text."""
    max_characters: Count | None = None
    not_prompt: bool = False
    """The answer differs from the last user turn by more than white space and case."""
    retries: Annotated[int, Field(ge=0, le=10)] = 2
    """How often an answer is asked for again; a greedy one at ``retry_temperature``, for it would be the same."""
    retry_temperature: Annotated[float, Field(gt=0, le=2)] = 0.7

    @field_validator("regex")
    @classmethod
    def _compiles(cls, pattern: str | None) -> str | None:
        try:
            regex.compile(pattern or "")
        except regex.error as error:
            raise ValueError(f"not a regular expression ({error}); mend it") from None
        return pattern

    @field_validator("json_schema")
    @classmethod
    def _is_schema(cls, text: str | None) -> str | None:
        if text is not None:
            # Late, because a server reads this section before it listens, and few experiments have a schema.
            from jsonschema.exceptions import SchemaError
            from jsonschema.validators import validator_for

            try:
                schema = json.loads(text)
                validator_for(schema).check_schema(schema)
            except (ValueError, SchemaError) as error:
                raise ValueError(f"not a JSON schema ({str(error).splitlines()[0]}); mend it") from None
        return text


class Limits(Section):
    """What one server takes at once."""

    queue: Count = 256
    """Answers that wait for a place; more are refused with 429."""
    running: Count = 64
    """Answers that are generated at once."""
    deadline_s: _Seconds = 300.0
    """How long a request may take, waiting included, where the client does not say less."""
    body_bytes: Count = 2 * 2**20
    connections: Count = 4096
    """Open connections; the one that has been idle longest is closed for the next."""
    header_s: _Seconds = 10.0
    """How long a client may take to send the head of a request, and as long again for each piece of its body."""
    drain_s: _Seconds = 30.0
    """How long answers that are being generated are waited for when the server is told to end."""
    choices: Count = 16
    """Answers to one request (``n``)."""


class Serve(Section):
    """Where a served model listens, what it is told, and what its answers must be."""

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8000
    system_prompt: str | None = None
    """The system turn of conversations that bring none; ``data.system`` where it is left out."""
    validate_: Annotated[Validate | None, Field(alias="validate")] = None
    limits: Limits = Limits()
    fallback: tuple[str, ...] = ()
    """Models that answer, in this order, while the first is not there: any name of a model, a server's too."""
    cache_bytes: Annotated[int, Field(ge=0)] = 0
    """Memory for answers to requests that were answered before, word for word; greedy ones only. 0 is no cache."""
    feedback: str | None = None
    """The file that ``/v1/feedback`` writes (SQLite); none is kept where it is left out."""
    store_prompts: bool = False
    """Keep prompts and answers beside feedback, so that a training set can be made of them."""
    embeddings: bool = False
    """Answer ``/v1/embeddings`` with the mean of the last hidden states."""

    @model_serializer(mode="wrap")
    def _what_was_said(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leaves out what need not be said, so that experiments keep their hash when there is more that could be."""
        values: dict[str, Any] = handler(self)
        fields = type(self).model_fields
        kept = {"host", "port"}
        said = {
            name: value for name, value in values.items() if name in kept or getattr(self, name) != fields[name].default
        }
        if "validate_" in said:
            said["validate"] = said.pop("validate_")
        return said
