"""What answers took, as responses tell it."""

from typing import Literal

from pydantic import BaseModel

__all__ = ["FinishReason", "Usage"]

FinishReason = Literal["stop", "length"]


class PromptDetails(BaseModel):
    """More about the prompt."""

    cached_tokens: int
    """Those that were not computed, because an earlier request began alike."""


class Usage(BaseModel):
    """How many tokens; a prompt counts once, however many answers it has."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptDetails
