"""``/v1/completions``: text in, its continuation out."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, Tag

from whetstone.serve.api.wanted import Wanted
from whetstone.serve.openai.asking import Asking
from whetstone.serve.openai.fields import Neutral, Text, TokenId, by_shape
from whetstone.serve.openai.usage import FinishReason, Usage

__all__ = ["Completion", "CompletionRequest", "TextsOrTokens", "as_prompts"]

_TokenIds = Annotated[list[TokenId], Field(min_length=1, fail_fast=True)]


def _prompt_shape(value: Any) -> str | None:
    if not isinstance(value, list):
        return "text" if isinstance(value, str) else None
    first = value[0] if value else ""
    return {str: "texts", int: "tokens", list: "several"}.get(type(first))


TextsOrTokens = Annotated[
    Annotated[Text, Tag("text")]
    | Annotated[list[Text], Field(min_length=1, max_length=2048, fail_fast=True), Tag("texts")]
    | Annotated[_TokenIds, Tag("tokens")]
    | Annotated[list[_TokenIds], Field(min_length=1, max_length=2048, fail_fast=True), Tag("several")],
    by_shape("text, a list of texts, a list of token ids, or a list of such lists", _prompt_shape),
]


def as_prompts(said: str | list[str] | list[int] | list[list[int]]) -> tuple[str | tuple[int, ...], ...]:
    """One or several prompts, as one or several."""
    if isinstance(said, str):
        return (said,)
    texts = tuple(one for one in said if isinstance(one, str))
    lists = tuple(tuple(one) for one in said if isinstance(one, list))
    return texts or lists or (tuple(one for one in said if isinstance(one, int)),)


class CompletionRequest(Asking):
    """Texts that are to be continued."""

    prompt: TextsOrTokens
    logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    echo: Annotated[object, Neutral((False,))] = None
    suffix: Annotated[object, Neutral(("",))] = None
    best_of: Annotated[object, Neutral((1,))] = None

    def as_wanted(self) -> Wanted:
        """The request in words of ours."""
        return self.wanted(
            "completions", as_prompts(self.prompt), max_new_tokens=self.max_tokens, logprobs=self.logprobs
        )


class CompletionLogprobs(BaseModel):
    """How likely the tokens were; one for each, the one that ended the answer included."""

    tokens: list[str]
    token_logprobs: list[float]
    top_logprobs: list[dict[str, float]]
    text_offset: list[int]
    """Where in the text of the choice each begins, in characters."""


class CompletionChoice(BaseModel):
    """One answer."""

    index: int
    text: str
    logprobs: CompletionLogprobs | None
    finish_reason: FinishReason | None
    token_ids: list[int] | None = None


class Completion(BaseModel):
    """The answers to one request, or what is new of them."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    system_fingerprint: str
    choices: list[CompletionChoice]
    usage: Usage | None = None
