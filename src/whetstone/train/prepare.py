"""Makes loaded weights ready to be trained, and caps the memory that the training may take."""

import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import torch
from peft import PeftModel
from torch import nn
from transformers import PreTrainedModel, set_seed

from whetstone.errors import UserError
from whetstone.models.adapter import add_adapter
from whetstone.train.lean_adapter import lean_adapters
from whetstone.train.settings import Settings
from whetstone.tune_section import Tune

__all__ = ["compiled_layers", "memory_cap", "prepare"]

_CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")
_MPS_DEFAULT_FRACTION = 1.7
"""PYTORCH_MPS_HIGH_WATERMARK_RATIO's default; the fraction is of the recommended working set."""


def prepare(model: PreTrainedModel, tune: Tune, settings: Settings) -> PreTrainedModel:
    """A model with what the method trains, in training mode; what is drawn at random comes from the seed.

    Args:
        model: As it was loaded, on its device, quantised where ``settings`` say so.
        tune: The method.
        settings: What the device can do.

    Raises:
        UserError: The model has no module of the names in ``tune.targets``.
    """
    set_seed(tune.seed)
    prepared = add_adapter(model, tune) if tune.adapts else model
    if not settings.compile:
        # The compiler sees through PEFT's forward, and not through ours.
        lean_adapters(prepared)
    if settings.activation_checkpointing:
        # Reentrant checkpoints lose the gradients of adapters where a layer's input needs none.
        model.activation_checkpointing_enable({"use_reentrant": False})
    return prepared.train()


@contextmanager
def compiled_layers(model: PreTrainedModel | PeftModel, *, compiled: bool) -> Iterator[None]:
    """Lets the decoder layers of a model run compiled inside the block.

    The compiler makes one graph for the first shape that it meets, and slower ones for all lengths when others come: so
    nothing but training should run inside.

    Args:
        model: Bare or wrapped by PEFT.
        compiled: Whether they should.
    """
    base: PreTrainedModel = model.get_base_model() if isinstance(model, PeftModel) else model
    layers = _layers(base) if compiled else []
    for layer in layers:
        layer.compile()
    try:
        yield
    finally:
        for layer in layers:
            # What Module.compile() sets; there is no public way back.
            layer._compiled_call_impl = None


def _layers(model: PreTrainedModel) -> list[nn.Module]:
    """The decoder layers: of the classes that transformers never splits over devices, those that stand in a list."""
    names = set(model._no_split_modules or ())
    stacks = [module for module in model.modules() if isinstance(module, nn.ModuleList)]
    return [layer for stack in stacks for layer in stack if type(layer).__name__ in names]


@contextmanager
def memory_cap(fraction: float | None, device: torch.device) -> Iterator[None]:
    """Caps what this process may take of a device's memory, until the block ends.

    Beyond the cap PyTorch's allocator raises the error that it raises when memory is out. On CUDA the cap is on what
    PyTorch allocates, on MPS it is a share of the recommended working set. On Linux it is on the private writable
    memory of the process (``RLIMIT_DATA``, setrlimit(2)), which is what tensors on a CPU live in; the whole is the
    machine's memory, or its control group's limit. Elsewhere there is no cap, and
    :func:`whetstone.train.settings.settle` notes it.

    Args:
        fraction: ``tune.memory_fraction``; no cap when None.
        device: Whose memory.

    Raises:
        UserError: The process holds more than that before it begins.
    """
    if fraction is None:
        yield
    elif device.type == "cuda":
        torch.cuda.set_per_process_memory_fraction(fraction, device)
        try:
            yield
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0, device)
    elif device.type == "mps":
        torch.mps.set_per_process_memory_fraction(fraction)
        try:
            yield
        finally:
            torch.mps.set_per_process_memory_fraction(_MPS_DEFAULT_FRACTION)
    elif sys.platform == "linux":
        with _data_limit(round(fraction * _total_bytes())):
            yield
    else:
        yield


@contextmanager
def _data_limit(limit_bytes: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    held_bytes = _data_bytes()
    if held_bytes >= limit_bytes:
        raise UserError(
            f"tune.memory_fraction: allows {limit_bytes / 2**20:,.0f} MiB, and {held_bytes / 2**20:,.0f} MiB are taken "
            "before training begins; raise it"
        )
    limits = [limit_bytes, *(bound for bound in (soft, hard) if bound != resource.RLIM_INFINITY)]
    resource.setrlimit(resource.RLIMIT_DATA, (min(limits), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def _total_bytes() -> int:
    """Of the machine, or what its control group may take where that is less (containers)."""
    total = int(psutil.virtual_memory().total)
    if _CGROUP_LIMIT.exists() and (text := _CGROUP_LIMIT.read_text().strip()) != "max":
        return min(total, int(text))
    return total


def _data_bytes() -> int:
    """What RLIMIT_DATA counts (``VmData``, proc(5))."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmData:"))
