"""What a model of transformers says before its output head."""

from typing import Any

import torch
from transformers import PreTrainedModel

__all__ = ["last_states"]


def last_states(model: PreTrainedModel, input_ids: torch.Tensor, **how: Any) -> torch.Tensor:
    """What the last layer says of each token, after the last norm: ``(tokens, size)``.

    Args:
        model: A decoder.
        input_ids: ``(1, tokens)``.
        how: More of what its forward pass takes.
    """
    body = model.base_model
    if body is not model:
        states: torch.Tensor = body(input_ids=input_ids, use_cache=False, **how).last_hidden_state
        return states[0]
    # The body of Llama 4 has another name than transformers looks for.
    output = model(input_ids=input_ids, use_cache=False, logits_to_keep=1, output_hidden_states=True, **how)
    states = output.hidden_states[-1]
    return states[0]
