"""What an optimiser keeps for each parameter."""

from torch import nn

__all__ = ["optimiser_bytes"]

_BLOCK = 256
_SMALLEST_8BIT = 4096
"""bitsandbytes keeps the moments of smaller parameters, and those of embeddings, in 32 bits."""


def optimiser_bytes(optimiser: str, model: nn.Module) -> int:
    """Of all parameters that train.

    Args:
        optimiser: As transformers' ``TrainingArguments.optim`` calls it.
        model: What is trained.
    """
    embeddings = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    return sum(
        _state_bytes(optimiser, weight, embeds=id(weight) in embeddings)
        for weight in model.parameters()
        if weight.requires_grad
    )


def _state_bytes(optimiser: str, weight: nn.Parameter, *, embeds: bool) -> int:
    count = weight.numel()
    if optimiser == "sgd":
        return 0
    if optimiser == "adafactor":
        # A mean for each row and each column (Shazeer and Stern 2018, arXiv:1804.04235).
        return 4 * (count if weight.ndim < 2 else count // weight.shape[-1] + count // weight.shape[-2])
    if "8bit" in optimiser and count >= _SMALLEST_8BIT and not embeds:
        return 2 * (count + 4 * -(-count // _BLOCK))
    return 8 * count
