"""How much memory training will take, before a weight is read or a token is trained.

Notable: there is no formula per architecture. The model is built from its configuration with tensors that have a shape
but no memory (PyTorch's FakeTensorMode), and one real forward and backward pass of our own loss runs over them on the
largest batch of the run. Every storage that an operation makes and drops is followed, so the peak includes what
autograd keeps, the float32 copies of the logits and the temporaries of the loss, whatever the release of transformers
or PEFT computes.

What a process holds on a CPU was measured against it (docs/benchmarks.md). For CUDA and MPS the same storages are
summed up: computed, not measured. Their attention keeps other workspaces and their allocators have another waste.
"""

import platform
import weakref
from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any, Literal

import psutil
import torch
from accelerate.utils.operations import convert_outputs_to_fp32
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode, UnsupportedFakeTensorException
from torch._subclasses.fake_tensor import DataDependentOutputException as DataDependent
from torch._subclasses.fake_tensor import DynamicOutputShapeException as DynamicShape
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary
from transformers import AutoModelForCausalLM, PretrainedConfig, PreTrainedModel

from whetstone.errors import UserError
from whetstone.experiment import Tune
from whetstone.models.adapter import add_adapter
from whetstone.train.batch import IGNORE
from whetstone.train.loss import completion_loss

__all__ = ["BatchShape", "MemoryEstimate", "Plan", "StorageTracker", "estimate_memory"]

Kind = Literal["gradients", "optimiser", "activations", "logits", "allocator"]

_START_UP_BYTES = 50 * 2**20
"""What a training process holds on a CPU beside its tensors and the imported modules: code that the first step loads,
scratch space of the matrix products. Measured with the demo's base, whose tensors are small (docs/benchmarks.md)."""

_ARENA_LIMIT_BYTES = 32 * 2**20
"""glibc gives a block above this size pages of its own, which go back when it is freed (mallopt(3), M_MMAP_THRESHOLD);
smaller ones share an arena."""

_ARENA_WASTE = 0.6
"""Bytes in the holes of glibc's arena for each byte of live tensors in it: an aligned block does not fit into the hole
that one of its size left. Median over the measured runs (docs/benchmarks.md)."""


@dataclass(frozen=True, slots=True)
class BatchShape:
    """The size of one batch.

    Attributes:
        rows: Sequences.
        tokens: Columns, padding included.
        loss_columns: Columns at which any row predicts a learned token; logits are computed there alone.
    """

    rows: int
    tokens: int
    loss_columns: int


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be trained.

    Attributes:
        config: The architecture.
        tune: How it is trained.
        dtype: ``model.dtype`` of the experiment: ``float32`` or ``bfloat16``.
        batch: The largest batch of the run.
        device: Where.
    """

    config: PretrainedConfig
    tune: Tune
    dtype: str
    batch: BatchShape
    device: torch.device


@dataclass(frozen=True, slots=True)
class MemoryEstimate:
    """The parts of the peak, at the moment of the peak.

    Attributes:
        device: Kind of device; only ``cpu`` was measured, the others are computed.
        total_parameters: Of the model, its adapter included; tied ones count once.
        trainable_parameters: Those that change.
        weights_bytes: Parameters and buffers.
        gradients_bytes: Gradients that exist at the peak. Where it falls into the loss, there are none yet.
        optimiser_bytes: AdamW's two moments of each trainable parameter.
        activations_bytes: What autograd keeps, and temporaries.
        logits_bytes: Tensors of the logits' shape: themselves, their float32 copy, log-softmax and gradient.
        allocator_bytes: Holes in the arena of the C library (CPU with glibc alone).
        runtime_bytes: The process itself (CPU): interpreter, libraries and all that it holds now. On a GPU 0: what its
            driver takes is gone from ``available_bytes`` already.
        loading_bytes: The peak before training, where weights are converted from the type that they are stored in.
        held_bytes: What the process holds already of all that.
        available_bytes: What this machine can still give.
    """

    device: str
    total_parameters: int
    trainable_parameters: int
    weights_bytes: int
    gradients_bytes: int
    optimiser_bytes: int
    activations_bytes: int
    logits_bytes: int
    allocator_bytes: int
    runtime_bytes: int
    loading_bytes: int
    held_bytes: int
    available_bytes: int

    @property
    def training_bytes(self) -> int:
        """All parts together."""
        return (
            self.weights_bytes
            + self.gradients_bytes
            + self.optimiser_bytes
            + self.activations_bytes
            + self.logits_bytes
            + self.allocator_bytes
            + self.runtime_bytes
        )

    @property
    def peak_bytes(self) -> int:
        """The most that is held at any time."""
        return max(self.training_bytes, self.loading_bytes)

    @property
    def fits(self) -> bool:
        """Whether this machine can give what the process does not hold yet."""
        return self.peak_bytes - self.held_bytes <= self.available_bytes

    def as_row(self) -> dict[str, Any]:
        """The JSON object that ``--json`` prints."""
        return {
            "device": self.device,
            "measured_on_this_device": self.device == "cpu",
            "total_parameters": self.total_parameters,
            "trainable_parameters": self.trainable_parameters,
            "weights_bytes": self.weights_bytes,
            "gradients_bytes": self.gradients_bytes,
            "optimiser_bytes": self.optimiser_bytes,
            "activations_bytes": self.activations_bytes,
            "logits_bytes": self.logits_bytes,
            "allocator_bytes": self.allocator_bytes,
            "runtime_bytes": self.runtime_bytes,
            "peak_bytes": self.peak_bytes,
            "available_bytes": self.available_bytes,
            "fits": self.fits,
        }


class StorageTracker(TorchDispatchMode):
    """Follows the bytes of all storages that operations make, until the last tensor on them is gone.

    Two operations need data that fake tensors lack: which columns are learned is answered with their number, and a
    condition on values with no. Conditions choose between factors in some rotary embeddings, never between shapes.

    Attributes:
        live: Bytes by kind now.
        peak: Bytes by kind when their sum was largest.
    """

    def __init__(self, batch: BatchShape, vocabulary_size: int, waste: float = 0.0) -> None:
        """Starts with nothing.

        Args:
            batch: Tells logits by their size, and how many columns are learned.
            vocabulary_size: Logits for each token.
            waste: Bytes in holes for each live byte of a block that is small enough to share an arena.
        """
        super().__init__()
        self.live: dict[Kind, float] = {}
        self.peak: dict[Kind, float] = {}
        self._peak_bytes = 0.0
        self._batch = batch
        self._logits = batch.rows * batch.loss_columns * vocabulary_size
        self._waste = waste
        self._kinds = WeakIdKeyDictionary()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None) -> Any:
        """Runs an operation and follows what it made."""
        if func is torch.ops.aten.nonzero.default:
            made = torch.empty(self._batch.loss_columns, 1, dtype=torch.int64)
        elif func is torch.ops.aten._local_scalar_dense.default and args[0].dtype == torch.bool:
            return False
        else:
            made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, torch.Tensor) and tensor.untyped_storage() not in self._kinds:
                self._begin(tensor)
        return made

    def exclude(self, tensors: Iterable[torch.Tensor]) -> None:
        """Leaves out storages that were there before: parameters and buffers."""
        for tensor in tensors:
            self._kinds[tensor.untyped_storage()] = "weights"

    def add(self, kind: Kind, count: float) -> None:
        """Counts bytes as live."""
        self.live[kind] = self.live.get(kind, 0) + count
        total = sum(self.live.values())
        if total > self._peak_bytes:
            self._peak_bytes, self.peak = total, dict(self.live)

    def as_gradient(self, parameter: torch.Tensor) -> None:
        """Calls what has become a parameter's gradient by its name."""
        if parameter.grad is None:
            return
        storage = parameter.grad.untyped_storage()
        if storage in self._kinds and self._kinds[storage] != "gradients":
            self.live[self._kinds[storage]] -= storage.nbytes()
            self._kinds[storage] = "gradients"
            self.add("gradients", storage.nbytes())

    def _begin(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        count = storage.nbytes()
        self._kinds[storage] = "logits" if tensor.numel() == self._logits else "activations"
        weakref.finalize(storage, self._end, storage._cdata, count)

    def _end(self) -> None: ...
