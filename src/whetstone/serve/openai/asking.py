"""What a request for an answer says, whether it brings a conversation or a text.

Sources: https://platform.openai.com/docs/api-reference/chat and https://docs.vllm.ai/en/latest/serving for ``top_k``,
``min_p``, ``repetition_penalty``, ``structured_outputs`` and ``return_token_ids``, which OpenAI does not have.
"""

import secrets
from typing import Annotated, Any, Literal

import orjson
from jsonschema.exceptions import SchemaError
from jsonschema.validators import validator_for
from pydantic import Field

from whetstone.engine.api import Constraint
from whetstone.serve.errors import ServeError
from whetstone.serve.openai.fields import ModelName, Neutral, Text, TextOrTexts, Wire
from whetstone.serve.wanted import Prompt, Wanted

__all__ = ["Asking"]

_ShortText = Annotated[str, Field(max_length=512)]


class StreamOptions(Wire):
    """How a stream is told."""

    include_usage: bool | None = None
    """A chunk with the usage, without choices, before the end."""
    include_obfuscation: Annotated[object, Neutral((False,))] = None


class AnyText(Wire):
    """The answer may be anything."""

    type: Literal["text"]


class JsonObject(Wire):
    """The answer is a JSON object."""

    type: Literal["json_object"]


class NamedSchema(Wire):
    """A JSON schema."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
    description: str | None = None
    schema_: Annotated[dict[str, Any], Field(alias="schema")]
    strict: bool | None = None
    """Taken for the sake of clients: an answer always keeps to the schema."""


class JsonOfSchema(Wire):
    """The answer is JSON of this schema."""

    type: Literal["json_schema"]
    json_schema: NamedSchema


class StructuredOutputs(Wire):
    """What the answer must be where JSON says too little."""

    regex: Text
    """The whole answer matches it."""


class Asking(Wire):
    """The fields of chat and of completions alike; what is left out is as the model was judged."""

    model: ModelName
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: Annotated[int, Field(ge=1)] | None = None
    """Answers to each prompt. The first has the ``seed`` itself, the others have the numbers that follow it."""
    stop: TextOrTexts | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=-1)] | None = None
    """At most so many tokens are drawn from; 0 and -1 are all of them."""
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    repetition_penalty: Annotated[float, Field(gt=0)] | None = None
    response_format: Annotated[AnyText | JsonObject | JsonOfSchema, Field(discriminator="type")] | None = None
    structured_outputs: StructuredOutputs | None = None
    return_token_ids: bool | None = None
    """Tells ``token_ids`` in each choice."""
    user: _ShortText | None = None
    """Of the client's own; it changes nothing, and is kept nowhere."""
    metadata: Annotated[dict[str, _ShortText], Field(max_length=16)] | None = None
    frequency_penalty: Annotated[object, Neutral((0,))] = None
    presence_penalty: Annotated[object, Neutral((0,))] = None
    logit_bias: Annotated[object, Neutral(({},))] = None

    def check(self) -> None:
        """Refuses fields that contradict each other.

        Raises:
            ServeError: 400, with the field that is to be left out.
        """
        if self.stream_options is not None and not self.stream:
            raise ServeError.invalid('stream_options: only with "stream": true; leave it out', "stream_options")
        if self.structured_outputs is not None and self.response_format is not None:
            raise ServeError.invalid("structured_outputs: not together with response_format", "structured_outputs")

    def wanted(
        self,
        endpoint: Literal["chat", "completions"],
        prompts: tuple[Prompt, ...],
        *,
        max_new_tokens: int | None,
        logprobs: int | None,
    ) -> Wanted:
        """The request in words of ours.

        Args:
            endpoint: Where it was sent.
            prompts: What is asked.
            max_new_tokens: Where the answers are cut off.
            logprobs: How many of the likeliest tokens are told beside each one.

        Raises:
            ServeError: 400, it contradicts itself, or its JSON schema is none.
        """
        self.check()
        return Wanted(
            endpoint=endpoint,
            model=self.model,
            prompts=prompts,
            n=self.n or 1,
            seed=secrets.randbelow(2**32) if self.seed is None else self.seed,
            streamed=bool(self.stream),
            include_usage=self.stream_options is not None and bool(self.stream_options.include_usage),
            token_ids=bool(self.return_token_ids),
            max_new_tokens=max_new_tokens,
            temperature=self.temperature,
            top_p=self.top_p,
            top_k=self.top_k if self.top_k is not None and self.top_k > 0 else None,
            min_p=self.min_p or 0.0,
            repetition_penalty=self.repetition_penalty or 1.0,
            stop=(self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ()),
            logprobs=logprobs,
            constraint=self._constraint(),
        )

    def _constraint(self) -> Constraint | None:
        """What the answer must be.

        Raises:
            ServeError: 400, it is no JSON schema.
        """
        if self.structured_outputs is not None:
            return Constraint("regex", self.structured_outputs.regex)
        if isinstance(self.response_format, JsonObject):
            return Constraint("json_schema", '{"type":"object"}')
        if isinstance(self.response_format, JsonOfSchema):
            schema = self.response_format.json_schema.schema_
            _check_schema(schema)
            return Constraint("json_schema", orjson.dumps(schema).decode())
        return None


def _check_schema(schema: dict[str, Any]) -> None:
    param = "response_format.json_schema.schema"
    try:
        validator_for(schema).check_schema(schema)
    except (SchemaError, RecursionError) as error:
        said = error.message if isinstance(error, SchemaError) else "it is nested too deep"
        raise ServeError.invalid(f"{param}: not a JSON schema ({said[:200]})", param) from None
