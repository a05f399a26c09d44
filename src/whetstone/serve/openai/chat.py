"""``/v1/chat/completions``: conversations in, the next turn out."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, Tag, model_validator
from pydantic_core import PydanticCustomError

from whetstone.data.example import Message, Role
from whetstone.serve.api.wanted import Wanted
from whetstone.serve.errors import ServeError
from whetstone.serve.openai.asking import RULES, Asking
from whetstone.serve.openai.fields import UNSUPPORTED, Neutral, Wire, by_shape, never_both, only_with
from whetstone.serve.openai.usage import FinishReason, Usage

__all__ = ["ChatCompletion", "ChatCompletionChunk", "ChatRequest"]


class TextPart(Wire):
    """A part of a turn."""

    type: Literal["text"]
    text: str

    @model_validator(mode="before")
    @classmethod
    def _is_text(cls, values: Any) -> Any:
        kind = values.get("type") if isinstance(values, dict) else None
        if isinstance(kind, str) and kind != "text":
            raise PydanticCustomError(UNSUPPORTED, "only parts of type 'text' are served")
        return values


def _content_shape(value: Any) -> str | None:
    return "text" if isinstance(value, str) else "parts" if isinstance(value, list) else None


class Turn(Wire):
    """One turn. What an assistant's turn of a response holds beside its text may be sent back as it came."""

    role: Literal["system", "developer", "user", "assistant"]
    """``developer`` is another word for ``system``."""
    content: Annotated[
        Annotated[str, Tag("text")]
        | Annotated[list[TextPart], Field(min_length=1, max_length=64, fail_fast=True), Tag("parts")],
        by_shape("text or a list of text parts", _content_shape),
    ]
    """Parts are joined without anything between them."""
    name: Annotated[object, Neutral()] = None
    refusal: Annotated[object, Neutral()] = None
    annotations: Annotated[object, Neutral(([],))] = None
    audio: Annotated[object, Neutral()] = None
    function_call: Annotated[object, Neutral()] = None
    tool_calls: Annotated[object, Neutral(([],))] = None

    def as_message(self) -> Message:
        """The turn as templates take it."""
        role: Role = "system" if self.role == "developer" else self.role
        text = self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)
        return Message(role, text)


class ChatRequest(Asking):
    """A conversation that is to be continued."""

    model_config = ConfigDict(
        json_schema_extra={
            "allOf": [
                *RULES,
                only_with("top_logprobs", "integer", "logprobs"),
                never_both("max_tokens", "max_completion_tokens"),
            ]
        }
    )

    messages: Annotated[list[Turn], Field(min_length=1, max_length=2048, fail_fast=True)]
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    """Another word for ``max_tokens``."""
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    store: Annotated[object, Neutral((False,))] = None
    safety_identifier: Annotated[str, Field(max_length=512)] | None = None
    prompt_cache_key: Annotated[str, Field(max_length=512)] | None = None
    """Taken for the sake of clients: prompts that begin alike are found without it."""
    tools: Annotated[object, Neutral(([],))] = None
    tool_choice: Annotated[object, Neutral(("none", "auto"))] = None
    parallel_tool_calls: Annotated[object, Neutral((False, True))] = None
    functions: Annotated[object, Neutral(([],))] = None
    function_call: Annotated[object, Neutral(("none", "auto"))] = None
    audio: Annotated[object, Neutral()] = None
    modalities: Annotated[object, Neutral((["text"],))] = None
    moderation: Annotated[object, Neutral()] = None
    prediction: Annotated[object, Neutral()] = None
    prompt_cache_options: Annotated[object, Neutral()] = None
    prompt_cache_retention: Annotated[object, Neutral()] = None
    reasoning_effort: Annotated[object, Neutral(("none",))] = None
    service_tier: Annotated[object, Neutral(("auto", "default"))] = None
    verbosity: Annotated[object, Neutral(("medium",))] = None
    web_search_options: Annotated[object, Neutral()] = None

    def check(self) -> None:
        """Refuses fields that contradict each other."""
        super().check()
        if self.max_tokens is not None and self.max_completion_tokens is not None:
            raise ServeError.invalid(
                "max_tokens: not together with max_completion_tokens, which says the same; leave it out", "max_tokens"
            )
        if self.top_logprobs is not None and not self.logprobs:
            raise ServeError.invalid('top_logprobs: only with "logprobs": true', "top_logprobs")

    def as_wanted(self) -> Wanted:
        """The request in words of ours."""
        return self.wanted(
            "chat",
            (tuple(turn.as_message() for turn in self.messages),),
            max_new_tokens=self.max_completion_tokens or self.max_tokens,
            logprobs=(self.top_logprobs or 0) if self.logprobs else None,
        )


class TokenLogprob(BaseModel):
    """One of the likeliest tokens."""

    token: str
    bytes: list[int] | None
    logprob: float


class ChosenLogprob(TokenLogprob):
    """A token of the answer."""

    top_logprobs: list[TokenLogprob]


class ChatLogprobs(BaseModel):
    """How likely the tokens were; one for each, the one that ended the answer included."""

    content: list[ChosenLogprob]
    refusal: None


class AssistantTurn(BaseModel):
    """The answer."""

    role: Literal["assistant"]
    content: str
    refusal: None


class ChatChoice(BaseModel):
    """One answer."""

    index: int
    message: AssistantTurn
    logprobs: ChatLogprobs | None
    finish_reason: FinishReason
    token_ids: list[int] | None = None


class ChatCompletion(BaseModel):
    """The answers to one request."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    system_fingerprint: str
    choices: list[ChatChoice]
    usage: Usage


class Delta(BaseModel):
    """What is new."""

    role: Literal["assistant"] | None = None
    content: str | None = None


class ChunkChoice(BaseModel):
    """What is new of one answer."""

    index: int
    delta: Delta
    logprobs: ChatLogprobs | None
    finish_reason: FinishReason | None
    token_ids: list[int] | None = None


class ChatCompletionChunk(BaseModel):
    """One event of a stream."""

    id: str
    object: Literal["chat.completion.chunk"]
    created: int
    model: str
    system_fingerprint: str
    choices: list[ChunkChoice]
    usage: Usage | None = None
