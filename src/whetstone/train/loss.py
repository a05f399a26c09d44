"""The loss: cross-entropy summed over the answer's tokens, with logits only where an answer is predicted."""

import torch
from torch import nn
from torch.nn import functional

from whetstone.train.batch import IGNORE

__all__ = ["completion_loss"]


def completion_loss(model: nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Sum (not mean) of the cross-entropy over the labelled tokens of a batch.

    The caller divides by the loss tokens of the whole optimiser step, so accumulating k micro-batches equals one batch
    k times as large. Prompts differ in length within a batch, so logits are computed at the columns where *any* row
    predicts an answer token; the vocabulary projection over the common part of the prompts is never computed.

    Args:
        model: A causal language model of transformers, bare or wrapped by PEFT.
        batch: ``input_ids``, ``attention_mask``, ``labels``, each ``(batch, tokens)``.

    Returns:
        A scalar, in float32 or in the model's own type where that is wider.
    """
    targets = batch["labels"][:, 1:]
    columns = (targets != IGNORE).any(dim=0).nonzero().squeeze(1)
    logits = model(
        input_ids=batch["input_ids"],
        attention_mask=batch["attention_mask"],
        logits_to_keep=columns,
        use_cache=False,
    ).logits
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return functional.cross_entropy(
        wide.flatten(0, 1), targets[:, columns].flatten(), ignore_index=IGNORE, reduction="sum"
    )
