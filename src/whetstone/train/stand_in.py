"""NF4 layers that take the memory of bitsandbytes' own and compute nothing; for tensors without data.

bitsandbytes' parameters are tensors of a class of their own, which PyTorch's FakeTensorMode does not follow.
"""

from typing import Any

import torch
from torch import nn
from torch.autograd.function import once_differentiable
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D
from transformers.quantizers.base import get_keys_to_not_convert

__all__ = ["quantise_in_shape"]

_BLOCK = 64
"""Weights that share a constant."""

_CONSTANT_BLOCK = 256
"""Constants that share one of their own, where they are quantised, too."""


def quantise_in_shape(model: PreTrainedModel, compute_dtype: torch.dtype, *, double: bool) -> None:
    """Puts a stand-in where transformers would put an NF4 layer: everywhere but at the output head.

    Args:
        model: On the meta device.
        compute_dtype: Of products.
        double: Whether the constants of the quantisation are quantised, too.
    """
    kept = set(get_keys_to_not_convert(model))
    for name, module in list(model.named_modules()):
        if name not in kept and (type(module) is nn.Linear or isinstance(module, Conv1D)):
            model.set_submodule(name, _Nf4Layer(module, compute_dtype, double=double))


class _Nf4Layer(nn.Linear):
    """4 bits a weight, and 32 bits (8, and 32 for each 256th, where doubly quantised) for each 64 weights."""

    def __init__(self, layer: nn.Linear | Conv1D, compute_dtype: torch.dtype, *, double: bool) -> None:
        inputs, outputs = layer.weight.shape if isinstance(layer, Conv1D) else reversed(layer.weight.shape)
        super().__init__(inputs, outputs, bias=False, device="meta")
        self.bias = layer.bias
        self.compute_dtype = compute_dtype
        blocks = -(-self.weight.numel() // _BLOCK)
        packed = torch.empty(-(-self.weight.numel() // 2), 1, dtype=torch.uint8, device="meta")
        self.weight = nn.Parameter(packed, requires_grad=False)
        constants = torch.empty(blocks, dtype=torch.uint8 if double else torch.float32, device="meta")
        self.register_buffer("constants", constants)
        if double:
            self.register_buffer("constants_of_constants", torch.empty(-(-blocks // _CONSTANT_BLOCK), device="meta"))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        product: torch.Tensor = _Nf4Product.apply(x.to(self.compute_dtype), self.out_features)  # type: ignore[no-untyped-call]
        return (product if self.bias is None else product + self.bias.to(self.compute_dtype)).to(x.dtype)


class _Nf4Product(torch.autograd.Function):
    """As bitsandbytes does, the weights of one layer are dequantised for each product, and nothing else is kept."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, outputs: int) -> torch.Tensor:
        ctx.shape = outputs, x.shape[-1]
        return x @ x.new_empty(x.shape[-1], outputs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: torch.Tensor) -> tuple[torch.Tensor, None]:
        return upstream @ upstream.new_empty(ctx.shape), None
