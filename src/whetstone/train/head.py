"""The loss of a linear output head, without ever holding the logits of a whole batch.

Notable: with a vocabulary of 32,000 the logits of a thousand tokens are 128 MB, and the ordinary cross-entropy reads
and writes them several times. Here a few hundred positions at a time pass through buffers that are used again and
again, and the gradient is made while they are there: the loss is a sum, so its gradient is known in the forward pass.
The idea is that of Liger's fused linear cross-entropy (Hsu et al. 2024, arXiv:2410.10989) and of cut cross-entropy
(Wijmans et al. 2024, arXiv:2411.09009), in plain PyTorch.
"""

from typing import Any

import torch
from torch import nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from whetstone.trie import TrieBatch

__all__ = ["compiled_head_loss", "head_loss"]

_CHUNK = 256

_COMPILED_LOGITS = 2**26
"""The most logits that the compiled loss holds at once."""


def head_loss(hidden: torch.Tensor, head: nn.Linear, batch: TrieBatch) -> torch.Tensor:
    """Sum of the weighted cross-entropy of next tokens.

    Args:
        hidden: ``(predictors, dim)``, what predicts.
        head: The output head.
        batch: Says what each row of ``hidden`` should predict, and how often that counts.

    Returns:
        A scalar, float32 or wider.
    """
    loss: torch.Tensor = _HeadLoss.apply(hidden, head.weight, head.bias, batch)  # type: ignore[no-untyped-call]
    return loss


def compiled_head_loss(hidden: torch.Tensor, head: nn.Linear, batch: TrieBatch) -> torch.Tensor:
    """The same by the compiler, which fuses softmax and sums; for vocabularies whose logits may be held.

    Where there are too many logits, this is :func:`head_loss`.
    """
    if hidden.shape[0] * head.weight.shape[0] > _COMPILED_LOGITS:
        return head_loss(hidden, head, batch)
    pairs = batch.pair_predictor, batch.pair_target, batch.pair_weight
    return _compiled(hidden, head.weight, head.bias, *pairs)


@torch.compile(dynamic=True)
def _compiled(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    pair_predictor: torch.Tensor,
    pair_target: torch.Tensor,
    pair_weight: torch.Tensor,
) -> torch.Tensor:
    logits = functional.linear(hidden, weight.to(hidden.dtype), bias)
    logs = torch.log_softmax(logits.to(torch.promote_types(logits.dtype, torch.float32)), -1)
    return -(logs[pair_predictor, pair_target] * pair_weight).sum()


class _HeadLoss(torch.autograd.Function):
    """Products in the type of ``hidden``; softmax, sums and the gradient of the head in float32 or wider."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        batch: TrieBatch,
    ) -> torch.Tensor:
        wide = torch.promote_types(hidden.dtype, torch.float32)
        count, vocabulary = hidden.shape[0], weight.shape[0]
        narrow = weight.to(hidden.dtype)
        pair_predictor, pair_target, counts = batch.pair_predictor, batch.pair_target, batch.pair_weight.to(wide)
        weights = torch.zeros(count, dtype=wide, device=hidden.device).index_add_(0, pair_predictor, counts)
        loss = torch.zeros((), dtype=wide, device=hidden.device)
        learns_hidden, learns_weight, learns_bias = ctx.needs_input_grad[:3]
        d_hidden = torch.empty_like(hidden) if learns_hidden else None
        d_weight = torch.zeros_like(weight, dtype=wide) if learns_weight else None
        d_bias = torch.zeros_like(bias, dtype=wide) if learns_bias and bias is not None else None
        size = min(_CHUNK, count)
        products = torch.empty(size, vocabulary, dtype=hidden.dtype, device=hidden.device)
        buffer = torch.empty(size, vocabulary, dtype=wide, device=hidden.device)
        for start in range(0, count, _CHUNK):
            part = slice(start, min(start + _CHUNK, count))
            pairs = slice(int(batch.first_pair[start]), int(batch.first_pair[part.stop]))
            rows = pair_predictor[pairs] - start
            product, logs = products[: part.stop - start], buffer[: part.stop - start]
            torch.mm(hidden[part], narrow.t(), out=product)
            logs.copy_(product)
            if bias is not None:
                logs += bias
            torch.log_softmax(logs, -1, out=logs)
            loss -= logs[rows, pair_target[pairs]] @ counts[pairs]
            if not any(ctx.needs_input_grad[:3]):
                continue
            # From here on the buffer holds the gradient of the logits.
            gradient = logs.exp_().mul_(weights[part, None])
            gradient.index_put_((rows, pair_target[pairs]), -counts[pairs], accumulate=True)
            product.copy_(gradient)
            if d_hidden is not None:
                torch.mm(product, narrow, out=d_hidden[part])
            if d_weight is not None:
                d_weight += product.t() @ hidden[part]
            if d_bias is not None:
                d_bias += gradient.sum(0)
        ctx.save_for_backward(d_hidden, d_weight, d_bias)
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        gradients = (None if kept is None else kept * upstream.to(kept.dtype) for kept in ctx.saved_tensors)
        return (*gradients, None)
