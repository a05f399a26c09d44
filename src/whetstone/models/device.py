"""Which device a model runs on, how many cores it may use, and how much memory it took."""

import os
import resource
import sys
from collections.abc import Iterator
from pathlib import Path

import torch

from whetstone.errors import UserError

__all__ = ["choose_device", "limit_threads", "peak_memory_bytes", "reset_peak_memory", "usable_cores"]

_MEMBERSHIP = Path("/proc/self/cgroup")
_CGROUPS = Path("/sys/fs/cgroup")


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


def usable_cores() -> int:
    """The cores that this process may keep busy: those it may be scheduled on, and no more than its share of time.

    A container that may use two of 64 cores sees all 64 (Linux CFS bandwidth control: ``cpu.max`` of cgroup v2,
    ``cpu.cfs_quota_us`` of v1). More threads than that are stopped together at the end of every period.
    """
    scheduled = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    return max(1, int(min((scheduled, *_quotas()))))


def limit_threads() -> None:
    """Has torch use no more threads than there are usable cores; ``OMP_NUM_THREADS``, the user's own word, wins."""
    if "OMP_NUM_THREADS" not in os.environ and usable_cores() < torch.get_num_threads():
        torch.set_num_threads(usable_cores())


def _quotas() -> Iterator[float]:
    """The shares of time, in cores, of this process's control groups and of the groups that these are in."""
    try:
        memberships = _MEMBERSHIP.read_text().splitlines()
    except OSError:
        return
    for membership in memberships:
        _, _, named = membership.partition(":")
        controllers, _, path = named.partition(":")
        if controllers and "cpu" not in controllers.split(","):
            continue
        root = _CGROUPS / controllers
        group = root / path.lstrip("/")
        # In a container the path may be the host's, of which only the root is to be seen.
        for folder in (group, *group.parents):
            if not folder.is_relative_to(root):
                break
            quota = _quota_v1(folder) if controllers else _quota_v2(folder)
            if quota is not None:
                yield quota


def _quota_v2(folder: Path) -> float | None:
    try:
        quota, period = (folder / "cpu.max").read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        return None


def _quota_v1(folder: Path) -> float | None:
    try:
        quota, period = (int((folder / f"cpu.cfs_{name}_us").read_text()) for name in ("quota", "period"))
        return None if quota < 0 else quota / period
    except (OSError, ValueError, ZeroDivisionError):
        return None


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
