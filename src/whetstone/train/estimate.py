"""How much memory training will take, before a weight is read or a token is trained.

Notable: there is no formula per architecture. The model is built from its configuration with tensors that have a shape
but no memory (PyTorch's FakeTensorMode), and one real forward and backward pass of our own loss runs over them on the
largest batch of the run. Every storage that an operation makes and drops is followed, so the peak includes what
autograd keeps, the float32 copies of the logits and the temporaries of the loss, whatever the release of transformers
or PEFT computes.

What a process holds on a CPU was measured against it (docs/benchmarks.md). For CUDA and MPS the same storages are
summed up: computed, not measured. Their attention keeps other workspaces and their allocators have another waste.
"""

import logging
import platform
from contextlib import nullcontext
from copy import deepcopy
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from accelerate.utils.operations import convert_outputs_to_fp32
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import AutoModelForCausalLM, PretrainedConfig, PreTrainedModel

from whetstone.errors import UserError
from whetstone.models.adapter import add_adapter
from whetstone.train.batch import RowLengths
from whetstone.train.loss import completion_loss
from whetstone.train.storages import StorageTracker
from whetstone.tune_section import Tune

__all__ = [
    "BatchShape",
    "MemoryEstimate",
    "Plan",
    "UnforeseeableError",
    "available_bytes",
    "estimate_memory",
    "largest_batch",
]

_START_UP_BYTES = 40 * 2**20
"""What a training process holds on a CPU beside its tensors and the modules imported before: code that the first step
loads, and scratch space of the matrix products. Measured with the demo's base, whose tensors are small."""

_ARENA_WASTE = 0.7
"""Bytes in the holes of glibc's arena for each live byte in it: an aligned block does not fit into the hole that one of
its size has left. The median of 16 measured runs (0.4 to 1.8, docs/benchmarks.md)."""

_CGROUP = Path("/sys/fs/cgroup")


class UnforeseeableError(UserError):
    """The shapes of an architecture depend on data (routed experts, for instance), and there are none yet."""


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
        dtype: ``model.dtype`` of the experiment, ``float32`` or ``bfloat16``.
        batch: The largest batch of the run.
        device: Where.
    """

    config: PretrainedConfig
    tune: Tune
    dtype: str
    batch: BatchShape
    device: torch.device

    @property
    def weights_dtype(self) -> torch.dtype:
        """Full training keeps float32 weights; bfloat16 is then the type of the products alone."""
        return torch.bfloat16 if self.dtype == "bfloat16" and self.tune.method == "lora" else torch.float32


@dataclass(frozen=True, slots=True)
class MemoryEstimate:
    """The parts of the peak, as they are at the moment of the peak.

    Attributes:
        device: The kind of device; only ``cpu`` was measured, the others are computed.
        total_parameters: Of the model with its adapter; tied ones count once.
        trainable_parameters: Those that change.
        weights_bytes: Parameters and buffers.
        gradients_bytes: Gradients that exist at the peak. Where it falls into the loss, there may be none yet.
        optimiser_bytes: AdamW's two moments of each trainable parameter.
        activations_bytes: What autograd keeps, and temporaries.
        logits_bytes: Tensors of the logits' size: themselves, a float32 copy, their log-softmax, their gradient.
        allocator_bytes: Holes in the arena of the C library (CPU with glibc alone).
        runtime_bytes: The process itself on a CPU: interpreter, libraries, and all that it holds now. On a GPU 0: what
            its driver takes is gone from ``available_bytes`` already.
        loading_bytes: The peak of loading, where weights are converted from the type that they are stored in.
        held_bytes: How much of that the process holds already.
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
        """All parts of the peak of training together."""
        tensors = self.weights_bytes + self.gradients_bytes + self.optimiser_bytes
        return tensors + self.activations_bytes + self.logits_bytes + self.allocator_bytes + self.runtime_bytes

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
        return {**asdict(self), "calibrated": self.device == "cpu", "peak_bytes": self.peak_bytes, "fits": self.fits}


def largest_batch(
    task: RowLengths, replay: RowLengths | None, tune: Tune, limit_tokens: int, replay_fraction: float = 0.0
) -> BatchShape:
    """The batch of the run that needs most memory, or a little more.

    Rows of a step are of similar length, so the worst batch is made of the longest rows. Its width is that of the
    longest row, its loss columns are the most that rows which are neighbours in length have: the two need not come from
    the same rows, so this is an upper bound. Replayed rows may be much longer; a batch has at most their share of a
    step and one more, and the trainer computes the others as wide as they need to be. The result has as many tokens as
    both together.

    Args:
        task: Lengths of the rows of the task.
        replay: Lengths of the rows to replay.
        tune: Says how many rows a batch has.
        limit_tokens: Longer rows are cut or left out.
        replay_fraction: The share of all loss tokens that is replayed.
    """
    size = tune.batch_size
    replayed = 0
    if replay is not None and len(replay.answer_tokens):
        per_task_row = replay_fraction / (1 - replay_fraction) * task.answer_tokens.mean() / replay.answer_tokens.mean()
        share = per_task_row / (1 + per_task_row)
        replayed = min(size, int(np.ceil(share * size * tune.accumulation)) + 1)
    width, columns = _extent(task, max(1, size - replayed), limit_tokens)
    if replay is None or replayed == 0:
        return BatchShape(min(size, len(task.answer_tokens)), width, columns)
    replay_width, replay_columns = _extent(replay, replayed, limit_tokens)
    tokens = (size - replayed) * width + replayed * replay_width
    learned = (size - replayed) * columns + replayed * replay_columns
    return BatchShape(size, -(-tokens // size), -(-learned // size))


def _extent(lengths: RowLengths, size: int, limit_tokens: int) -> tuple[int, int]:
    """Tokens of the longest row, and the most loss columns of ``size`` rows that are neighbours in length."""
    prompts = lengths.prompt_tokens.astype(np.int64)
    fitting = prompts < limit_tokens
    if not fitting.any():
        return limit_tokens, limit_tokens
    totals = np.minimum(prompts + lengths.answer_tokens, limit_tokens)[fitting]
    longest_first = np.argsort(-totals, kind="stable")
    starts = np.arange(0, len(totals), size)
    # The first token of a sequence is predicted by nothing.
    shortest_prompts = np.minimum.reduceat(np.maximum(prompts[fitting][longest_first], 1), starts)
    widths = totals[longest_first][starts]
    return int(widths[0]), max(1, int((widths - shortest_prompts).max()))


def estimate_memory(plan: Plan) -> MemoryEstimate:
    """Follows one training step of a plan without weights or data; seconds for some billions of parameters.

    Raises:
        UnforeseeableError: The architecture cannot be followed without data.
        UserError: It is not a causal language model.
    """
    # Its log would show the traceback of what is said in one line below.
    logging.getLogger("torch._subclasses.fake_tensor").setLevel(logging.CRITICAL)
    try:
        model, base = _without_memory(plan)
        with FakeTensorMode(allow_non_fake_inputs=True):
            model.to_empty(device="cpu")
            base.tie_weights()
            tracker = _follow_step(model, plan)
    except RuntimeError as error:
        # What depends on data, such as which expert a token goes to, or has no kernel on this device.
        reason = str(error).strip().splitlines()[0]
        raise UnforeseeableError(
            f"model.base: the memory that '{plan.config.model_type}' takes cannot be foreseen ({reason}); "
            "watch the first steps instead"
        ) from None
    on_cpu = plan.device.type == "cpu"
    held = psutil.Process().memory_info().rss if on_cpu else 0
    runtime = held + _START_UP_BYTES if on_cpu else 0
    parameters = list(model.parameters())
    peak = {kind: int(count) for kind, count in tracker.peak.items()}
    return MemoryEstimate(
        device=plan.device.type,
        total_parameters=sum(parameter.numel() for parameter in parameters),
        trainable_parameters=sum(parameter.numel() for parameter in parameters if parameter.requires_grad),
        weights_bytes=peak["weights"],
        gradients_bytes=peak.get("gradients", 0),
        optimiser_bytes=peak["optimiser"],
        activations_bytes=peak.get("activations", 0),
        logits_bytes=peak.get("logits", 0),
        allocator_bytes=peak.get("allocator", 0),
        runtime_bytes=runtime,
        loading_bytes=runtime + _loading_bytes(plan, base) if on_cpu else 0,
        held_bytes=held,
        available_bytes=available_bytes(plan.device),
    )


def _without_memory(plan: Plan) -> tuple[nn.Module, PreTrainedModel]:
    """The model as it will be trained, on the meta device, and the base model inside."""
    with torch.device("meta"):
        try:
            # transformers writes the type into the configuration that it is given.
            base = AutoModelForCausalLM.from_config(deepcopy(plan.config), dtype=plan.weights_dtype)
        except ValueError as error:
            reason = str(error).strip().splitlines()[0]
            raise UserError(f"model.base: is not a causal language model that transformers knows ({reason})") from None
        model = add_adapter(base, plan.tune) if plan.tune.method == "lora" else base
    return model.train(), base


def _follow_step(model: nn.Module, plan: Plan) -> StorageTracker:
    """Runs forward, loss and backward over fake tensors, as the trainer would when the optimiser has its moments."""
    batch, half = plan.batch, plan.dtype == "bfloat16"
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    waste = _ARENA_WASTE if plan.device.type == "cpu" and platform.libc_ver()[0] == "glibc" else 0.0
    logits = batch.rows * batch.loss_columns * plan.config.get_text_config().vocab_size
    tracker = StorageTracker(batch.loss_columns, logits, waste)
    tracker.hold("weights", chain(model.parameters(), model.buffers()))
    tracker.add("optimiser", 2 * sum(parameter.nbytes for parameter in trainable))
    for parameter in trainable:
        parameter.register_post_accumulate_grad_hook(tracker.name_gradient)  # type: ignore[no-untyped-call]
        if plan.tune.accumulation > 1:
            # The gradients of the micro-batches before live through this one.
            parameter.grad = torch.empty_like(parameter)
            tracker.hold("gradients", [parameter.grad])
    if half:
        # As accelerate does; the logits' float32 copy is then made inside the model.
        model.forward = convert_outputs_to_fp32(model.forward)
    shape = batch.rows, batch.tokens
    with tracker:
        zeros = torch.zeros(shape, dtype=torch.long)
        inputs = {"input_ids": zeros, "attention_mask": torch.ones_like(zeros), "labels": torch.zeros_like(zeros)}
        with torch.autocast("cpu", torch.bfloat16) if half else nullcontext():
            loss = completion_loss(model, inputs)
        loss.backward()  # type: ignore[no-untyped-call]
    return tracker


def _loading_bytes(plan: Plan, base: PreTrainedModel) -> int:
    """Weights as they are stored are mapped into memory; where their type is another one, a copy lives beside them."""
    count = sum(parameter.numel() for parameter in base.parameters())
    stored: torch.dtype = plan.config.dtype or plan.weights_dtype
    copies = {stored, plan.weights_dtype}
    return sum(count * dtype.itemsize for dtype in copies)


def available_bytes(device: torch.device) -> int:
    """What a device can give to this process now, beyond what the process has already.

    On a CPU that is what the system calls available, or what is left of the control group's limit where that is less
    (containers). On MPS it is the driver's recommended working set.
    """
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    if device.type == "mps":
        return int(torch.mps.recommended_max_memory()) - int(torch.mps.driver_allocated_memory())
    available = int(psutil.virtual_memory().available)
    limit, used, statistics = (_CGROUP / name for name in ("memory.max", "memory.current", "memory.stat"))
    if limit.exists() and (text := limit.read_text().strip()) != "max":
        # File pages that nobody uses are given back before the limit stops anybody.
        pages = dict(line.split() for line in statistics.read_text().splitlines())
        available = min(available, int(text) - int(used.read_text()) + int(pages["inactive_file"]))
    return available
