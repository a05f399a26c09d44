"""How many cores this process may keep busy."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

__all__ = ["usable_cores"]

_MEMBERSHIP = Path("/proc/self/cgroup")
_CGROUPS = Path("/sys/fs/cgroup")


def usable_cores() -> int:
    """The cores that this process may keep busy: those it may be scheduled on, and no more than its share of time.

    A container that may use two of 64 cores sees all 64 (Linux CFS bandwidth control: ``cpu.max`` of cgroup v2,
    ``cpu.cfs_quota_us`` of v1). More threads than that are stopped together at the end of every period.
    """
    scheduled = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    return max(1, int(min((scheduled, *_quotas()))))


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
