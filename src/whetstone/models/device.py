"""Which device a model runs on, and how much memory it took there."""

import resource
import sys

import torch

from whetstone.errors import UserError

__all__ = ["choose_device", "peak_memory_bytes"]


def choose_device(asked: str) -> torch.device:
    """The device that was asked for; ``auto`` is CUDA, then MPS, then the CPU.

    Raises:
        UserError: The device is not there; nothing is moved elsewhere silently.
    """
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if asked == "auto":
        return torch.device(next(name for name, there in available.items() if there))
    if not available[asked]:
        raise UserError(f"model.device: '{asked}' is not available on this machine; set it to auto or cpu")
    return torch.device(asked)


def peak_memory_bytes(device: torch.device) -> int:
    """The most memory used so far: of the device on CUDA, of the process elsewhere."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Linux counts kibibytes, macOS bytes (getrusage(2) of each).
    return peak if sys.platform == "darwin" else peak * 1024
