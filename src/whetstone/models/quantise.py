"""NF4: a base in 4 bits a weight, on which an adapter is trained (QLoRA, Dettmers et al. 2023, arXiv:2305.14314).

Notable: on processors with AVX512-BF16, bitsandbytes 0.50.2 repacks a layer in place at its first evaluation without
gradients. The kernel for that layout has no backward pass (training that goes on learns from wrong gradients, and only
a warning says so) and refuses layers whose rows are no multiple of 32. :func:`keep_gradients` turns the repacking off.
"""

import importlib.util

import torch
from transformers import BitsAndBytesConfig, PreTrainedModel

from whetstone.errors import UserError

__all__ = ["keep_gradients", "nf4", "require_bitsandbytes"]


def require_bitsandbytes(key: str, value: str) -> None:
    """Refuses a setting that needs bitsandbytes where it is not installed.

    Args:
        key: The key of the experiment, ``tune.method``.
        value: What it is set to.

    Raises:
        UserError: The package is missing.
    """
    if importlib.util.find_spec("bitsandbytes") is None:
        raise UserError(f"{key}: '{value}' needs bitsandbytes, which is not installed: pip install 'whetstone[qlora]'")


def nf4(device: torch.device, *, compute_dtype: torch.dtype, double: bool = True) -> BitsAndBytesConfig:
    """How a base is quantised while it is read; the output head and the embeddings stay as they are.

    Args:
        device: Where the base will be.
        compute_dtype: In which the weights are multiplied, once they are dequantised.
        double: Quantise the constants of the quantisation, too: 4.13 instead of 4.5 bits a weight.

    Raises:
        UserError: bitsandbytes is missing, or trains nothing on this device.
    """
    if device.type == "mps":
        raise UserError(
            "tune.method: 'qlora' cannot be trained on MPS: bitsandbytes has no backward pass that is tested there; "
            "use lora with model.dtype: bfloat16, or set model.device: cpu"
        )
    require_bitsandbytes("tune.method", "qlora")
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
