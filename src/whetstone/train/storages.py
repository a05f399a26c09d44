"""Follows every byte that tensor operations allocate and drop, by what it is for."""

import weakref
from collections.abc import Iterable
from typing import Any, Literal

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

__all__ = ["Kind", "StorageTracker"]

Kind = Literal["weights", "gradients", "optimiser", "activations", "logits", "allocator"]

_ARENA_LIMIT_BYTES = 32 * 2**20


class _Block:
    """The bytes of one storage; what they are for may turn out later."""

    def __init__(self, kind: Kind, size_bytes: int) -> None:
        self.kind = kind
        self.size_bytes = size_bytes


class StorageTracker(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Sums up the storages that live, from the operation that makes each until the last tensor on it is gone.

    Under FakeTensorMode nothing is allocated. Two operations then need data that is not there: which columns of a
    padded batch are learned is answered with their number, and a condition on values with no. Such conditions choose
    between factors of rotary embeddings, not between shapes.

    Attributes:
        live: Bytes by kind now.
        peak: Bytes by kind when their sum was largest.
    """

    def __init__(self, loss_columns: int, vocabulary: int, arena_waste: float = 0.0) -> None:
        """Starts with nothing.

        Args:
            loss_columns: Columns of a padded batch at which an answer is predicted.
            vocabulary: Words; a matrix whose rows are so long is of the logits' kind.
            arena_waste: Bytes in the holes of the C library's arena for each live byte in it. glibc gives blocks above
                32 MiB pages of their own (mallopt(3), M_MMAP_THRESHOLD); they leave no holes.
        """
        super().__init__()  # type: ignore[no-untyped-call]
        self.live: dict[Kind, float] = {}
        self.peak: dict[Kind, float] = {}
        self._peak_bytes = 0.0
        self._loss_columns = loss_columns
        self._vocabulary = vocabulary
        self._arena_waste = arena_waste
        self._blocks = WeakIdKeyDictionary()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None) -> Any:
        """Runs one operation and follows what it made."""
        if func is torch.ops.aten.nonzero.default:
            made = torch.zeros(self._loss_columns, 1, dtype=torch.int64)
        elif func is torch.ops.aten._local_scalar_dense.default and args[0].dtype == torch.bool:
            return False
        else:
            made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, torch.Tensor) and tensor.untyped_storage() not in self._blocks:
                self._follow(tensor)
        return made

    def hold(self, kind: Kind, tensors: Iterable[torch.Tensor]) -> None:
        """Counts tensors that were there before and stay, each storage once."""
        for tensor in tensors:
            storage = tensor.untyped_storage()
            if storage not in self._blocks:
                self._blocks[storage] = _Block(kind, storage.nbytes())
                self.add(kind, storage.nbytes())

    def add(self, kind: Kind, size_bytes: float) -> None:
        """Counts bytes as live, or no longer when negative."""
        self.live[kind] = self.live.get(kind, 0) + size_bytes
        total = sum(self.live.values())
        if total > self._peak_bytes:
            self._peak_bytes, self.peak = total, dict(self.live)

    def name_gradient(self, parameter: torch.Tensor) -> None:
        """Counts a parameter's gradient as such; until it is accumulated it is a tensor like others."""
        if parameter.grad is None:
            return
        block = self._blocks[parameter.grad.untyped_storage()]
        # Out before in: a change of name must not look like a peak.
        self.add(block.kind, -block.size_bytes)
        block.kind = "gradients"
        self.add(block.kind, block.size_bytes)

    def _follow(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        scores = tensor.ndim > 1 and tensor.shape[-1] == self._vocabulary
        block = _Block("logits" if scores else "activations", storage.nbytes())
        self._blocks[storage] = block
        self._count(block, +1)
        weakref.finalize(storage, self._count, block, -1)

    def _count(self, block: _Block, sign: int) -> None:
        if block.size_bytes <= _ARENA_LIMIT_BYTES:
            self.add("allocator", sign * self._arena_waste * block.size_bytes)
        self.add(block.kind, sign * block.size_bytes)
