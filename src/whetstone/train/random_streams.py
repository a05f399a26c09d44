"""The random streams that training draws from: saved in checkpoints, and kept where others draw from them."""

import contextlib
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

__all__ = ["random_state", "restore_random_state", "unmoved_random_streams"]


def random_state() -> dict[str, Any]:
    """The states of all generators that training may draw from."""
    kind, key, position, has_gauss, cached_gaussian = np.random.get_state(legacy=True)
    return {
        "python": random.getstate(),
        "numpy": (kind, np.asarray(key).tolist(), position, has_gauss, cached_gaussian),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "mps": torch.mps.get_rng_state() if torch.backends.mps.is_available() else None,
    }


def restore_random_state(state: dict[str, Any]) -> None:
    """Puts back what :func:`random_state` gave, here or in another process."""
    random.setstate(state["python"])
    np.random.set_state(state["numpy"])
    torch.set_rng_state(state["torch"])
    for device, of_device in enumerate(state["cuda"][: torch.cuda.device_count()]):
        torch.cuda.set_rng_state(of_device, device)
    if state["mps"] is not None and torch.backends.mps.is_available():
        torch.mps.set_rng_state(state["mps"])


@contextlib.contextmanager
def unmoved_random_streams() -> Iterator[None]:
    """Whatever the block draws, the streams go on afterwards as if it had drawn nothing."""
    state = random_state()
    try:
        yield
    finally:
        restore_random_state(state)
