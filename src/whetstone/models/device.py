"""Which device a model runs on, and how much memory it took."""

import os
import resource
import sys

import torch

from whetstone.cores import usable_cores
from whetstone.errors import UserError

__all__ = ["choose_device", "limit_threads", "peak_memory_bytes", "reset_peak_memory"]


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


def limit_threads() -> None:
    """Has torch use no more threads than there are usable cores; ``OMP_NUM_THREADS``, the user's own word, wins."""
    if "OMP_NUM_THREADS" not in os.environ and usable_cores() < torch.get_num_threads():
        torch.set_num_threads(usable_cores())


def reset_peak_memory(device: torch.device) -> None:
    """Forgets the peak on CUDA; elsewhere the operating system keeps the process's peak for good."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_memory_bytes(device: torch.device) -> int:
    """The most memory used: of the device since the last reset on CUDA, of the process since its start elsewhere."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Linux counts kibibytes, macOS bytes (getrusage(2) of each).
    return peak if sys.platform == "darwin" else peak * 1024
