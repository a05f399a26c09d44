"""Bases in fewer bits: int8, and NF4, on which an adapter can be trained (QLoRA, Dettmers et al., arXiv:2305.14314).

Notable: int8 rounds the weights alone. LLM.int8 (arXiv:2208.07339), which bitsandbytes has, rounds activations too, and
takes those out that are large anywhere in a batch, so an answer would depend on its neighbours: a logit of the shipped
base moved by 0.1 with another sentence beside it. Rounding the weights alone was also half as far from float32.

On processors with AVX512-BF16, bitsandbytes 0.50.2 repacks a layer in place at its first evaluation without
gradients. The kernel for that layout has no backward pass (training that goes on learns from wrong gradients, and only
a warning says so) and refuses layers whose rows are no multiple of 32. :func:`keep_gradients` turns the repacking off.
"""

import importlib.util

import torch
from torch import nn
from torch.nn.utils import parametrize
from transformers import BitsAndBytesConfig, PreTrainedModel

from whetstone.errors import UserError

__all__ = ["keep_gradients", "nf4", "require_bitsandbytes", "round_to_int8"]

_INT8_MAX = 127


def require_bitsandbytes(key: str, value: str) -> None:
    """Refuses a setting that needs bitsandbytes where it is not installed.

    Args:
        key: What was set: a key of the experiment, or the name of a model.
        value: What it is set to.

    Raises:
        UserError: The package is missing.
    """
    if importlib.util.find_spec("bitsandbytes") is None:
        raise UserError(f"{key}: '{value}' needs bitsandbytes, which is not installed: pip install 'whetstone[qlora]'")


def nf4(
    device: torch.device, *, compute_dtype: torch.dtype, double: bool = True, asked: str | None = None
) -> BitsAndBytesConfig:
    """How a base is quantised while it is read; the output head and the embeddings stay as they are.

    Args:
        device: Where the base will be.
        compute_dtype: In which the weights are multiplied, once they are dequantised.
        double: Quantise the constants of the quantisation, too: 4.13 instead of 4.5 bits a weight.
        asked: The name of the model that asks for it, to answer with; None where an experiment asks for QLoRA.

    Raises:
        UserError: bitsandbytes is missing, or does not run on this device.
    """
    if device.type == "mps":
        raise UserError(
            "tune.method: 'qlora' cannot be trained on MPS: bitsandbytes has no backward pass that is tested there; "
            "use lora with model.dtype: bfloat16, or set model.device: cpu"
            if asked is None
            else f"{asked}: NF4 is not tested on MPS; use @int8 or @bfloat16, or the device cpu"
        )
    if asked is None:
        require_bitsandbytes("tune.method", "qlora")
    else:
        require_bitsandbytes(asked, "nf4")
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=double,
        bnb_4bit_compute_dtype=compute_dtype,
    )


def keep_gradients(model: PreTrainedModel) -> None:
    """Has every 4-bit layer compute the same products in training and in evaluation, with a backward pass.

    Without it, a loss measured on the validation rows would spoil the gradients of all steps that follow.
    """
    from bitsandbytes.nn.modules import Linear4bit  # an optional package

    for module in model.modules():
        if isinstance(module, Linear4bit):
            module.support_avx512bf16_for_cpu = False


def round_to_int8(model: PreTrainedModel) -> int:
    """Rounds the weights of the linear layers to 8 bits, in place: one scale for each output, the nearest of 255 steps.

    Output head and embeddings stay as they are, and so does whatever is no linear layer. A layer multiplies the rounded
    weights in their old type; its ``weight`` is what it multiplies, so adapters of every kind fit on it.

    Returns:
        How many layers were rounded.
    """
    head = model.get_output_embeddings()
    layers = [module for module in model.modules() if type(module) is nn.Linear and module is not head]
    for layer in layers:
        layer.weight.requires_grad_(False)
        # Not "safe": what is kept is of another type than what is computed with, and that is the point.
        parametrize.register_parametrization(layer, "weight", _Int8(), unsafe=True)
    return len(layers)


class _Int8(nn.Module):
    """A weight, ``(outputs, inputs)``, as 8-bit codes and scales; torch calls this on every access to ``weight``."""

    def right_inverse(self, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """From the weight to its codes, ``(outputs, inputs)``, and scales, ``(outputs, 1)``."""
        exact = weight.float()
        scales = (exact.abs().amax(dim=1, keepdim=True) / _INT8_MAX).to(weight.dtype)
        # An output that is all zeros has no scale; a scale that its type rounded down may leave codes beyond 127.
        divisors = scales.float().where(scales > 0, 1.0)
        return (exact / divisors).round().clamp(-_INT8_MAX, _INT8_MAX).to(torch.int8), scales

    def forward(self, codes: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
        """From the codes to the weight that is multiplied."""
        return codes * scales
