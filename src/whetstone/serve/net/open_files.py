"""Enough files to open: each connection is one, and shells usually allow 1024 of them."""

import contextlib
import resource

__all__ = ["BESIDES", "raise_open_files"]

BESIDES = 512
"""What a server opens besides connections: those that arrive and those that leave, pipes, files, the feedback."""


def raise_open_files(connections: int) -> int:
    """Raises the limit of this process as far as connections need it, and it may.

    Args:
        connections: How many are wanted.

    Returns:
        How many there can be; fewer than wanted where the hard limit is lower.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = connections + BESIDES
    if soft != resource.RLIM_INFINITY and soft < needed:
        wanted = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        # macOS has a limit of its own below the one that it tells.
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            soft = wanted
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return connections
    return max(1, soft - BESIDES, soft // 2)
