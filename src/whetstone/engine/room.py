"""How long an answer may become beside its prompt."""

from whetstone.errors import UserError

__all__ = ["USUAL_NEW_TOKENS", "room_for"]

USUAL_NEW_TOKENS = 512
"""How long an answer may become where nobody says it and the context has the room."""


def room_for(prompt_tokens: int, new_tokens: int, context_tokens: int | None) -> int:
    """How many new tokens there is room for: those that are asked for, or the fewer that the context leaves.

    Args:
        prompt_tokens: Length of the prompt.
        new_tokens: How many are asked for.
        context_tokens: The longest sequence that the model takes; None where nobody knows.

    Raises:
        UserError: There is no room for a single one.
    """
    if context_tokens is None:
        return new_tokens
    if prompt_tokens >= context_tokens:
        raise UserError(f"the prompt of {prompt_tokens:,} tokens fills the model's context of {context_tokens:,}")
    return min(new_tokens, context_tokens - prompt_tokens)
