"""What a request for an answer says, whether it brings a conversation or a text.

Sources: https://platform.openai.com/docs/api-reference/chat and https://docs.vllm.ai/en/latest/serving for ``top_k``,
``min_p``, ``repetition_penalty``, ``structured_outputs`` and ``return_token_ids``, which OpenAI does not have.
"""

import secrets
from typing import Annotated, Any, Literal

import orjson
from pydantic import ConfigDict, Field, Tag

from whetstone.engine.api import Constraint
from whetstone.serve.api.wanted import Prompt, Wanted
from whetstone.serve.errors import ServeError
from whetstone.serve.openai.fields import ModelName, Neutral, Text, TextOrTexts, Wire, by_shape, never_both, only_with

__all__ = ["RULES", "Asking"]

RULES = [only_with("stream_options", "object", "stream"), never_both("structured_outputs", "response_format")]
"""What :meth:`Asking.check` refuses, as JSON schema."""

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


def _format_shape(value: Any) -> str | None:
    kind = value.get("type") if isinstance(value, dict) else None
    return f"<{kind}>" if kind in ("text", "json_object", "json_schema") else None


ResponseFormat = Annotated[
    Annotated[AnyText, Tag("<text>")]
    | Annotated[JsonObject, Tag("<json_object>")]
    | Annotated[JsonOfSchema, Tag("<json_schema>")],
    by_shape("an object whose type is text, json_object or json_schema", _format_shape),
]


class StructuredOutputs(Wire):
    """What the answer must be where JSON says too little."""

    regex: Text
    """The whole answer matches it."""


class Asking(Wire):
    """The fields of chat and of completions alike; what is left out is as the model was judged."""

    model_config = ConfigDict(json_schema_extra={"allOf": [*RULES]})

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
    repetition_penalty: Annotated[float, Field(ge=0.1, le=10)] | None = None
    response_format: ResponseFormat | None = None
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
            ServeError: 400, it contradicts itself.
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
        """What the answer must be; whoever answers finds out whether the schema is one, and one that it can keep to.

        Raises:
            ServeError: 400, the schema is nested too deep to be sent on.
        """
        if self.structured_outputs is not None:
            return Constraint("regex", self.structured_outputs.regex)
        if isinstance(self.response_format, JsonObject):
            return Constraint("json_schema", '{"type":"object"}')
        if isinstance(self.response_format, JsonOfSchema):
            try:
                schema = orjson.dumps(self.response_format.json_schema.schema_)
            except orjson.JSONEncodeError:
                param = "response_format.json_schema.schema"
                raise ServeError.invalid(f"{param}: nested too deep", param) from None
            return Constraint("json_schema", schema.decode())
        return None
