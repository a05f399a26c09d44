"""``/v1/embeddings``: texts in, vectors out."""

from typing import Annotated, Literal

from pydantic import BaseModel, Field

from whetstone.serve.openai.completions import TextsOrTokens
from whetstone.serve.openai.fields import ModelName, Neutral, Wire

__all__ = ["EmbeddingList", "EmbeddingRequest"]


class EmbeddingRequest(Wire):
    """Texts that are wanted as vectors."""

    model: ModelName
    input: TextsOrTokens
    encoding_format: Literal["float", "base64"] | None = None
    """``base64``: of 32-bit floats, the lowest byte first."""
    dimensions: Annotated[object, Neutral()] = None
    user: Annotated[str, Field(max_length=512)] | None = None


class EmbeddingItem(BaseModel):
    """One vector."""

    object: Literal["embedding"]
    index: int
    embedding: list[float] | str


class EmbeddingUsage(BaseModel):
    """How many tokens."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingList(BaseModel):
    """The vectors, in the order of the texts."""

    object: Literal["list"]
    data: list[EmbeddingItem]
    model: str
    usage: EmbeddingUsage
