"""How much memory training will take, before a weight is read or a token is trained.

Notable: there is no formula per architecture. The model is built from its configuration with tensors that have a shape
but no memory (PyTorch's FakeTensorMode), and one real forward and backward pass of our own loss runs over them on the
largest micro-batch of the run. Every storage that an operation makes and drops is followed, so the peak includes what
autograd keeps, the buffers of the output head and the temporaries of the loss, whatever the release of transformers or
PEFT computes.

What a process holds on a CPU was measured against it (docs/benchmarks.md). For CUDA and MPS the same storages are
summed up: computed, not measured. Their attention keeps other workspaces and their allocators have another waste.
"""

import logging
import platform
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

from whetstone.errors import UserError
from whetstone.train.batch import IGNORE, Row, RowLengths, collate, cut_padding
from whetstone.train.lean_adapter import lean_adapters
from whetstone.train.loss import completion_loss, trie_loss
from whetstone.train.optimiser_memory import optimiser_bytes
from whetstone.train.packing import CostModel, pack
from whetstone.train.prepare import prepare
from whetstone.train.settings import Settings
from whetstone.train.stand_in import quantise_in_shape
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

_ARENA_WASTE = 0.5
"""Bytes in the holes of glibc's arena for each live byte in it: an aligned block does not fit into the hole that one of
its size has left. The median of 15 measured runs (0.2 to 1.1, docs/benchmarks.md)."""

_CGROUP = Path("/sys/fs/cgroup")


class UnforeseeableError(UserError):
    """The shapes of an architecture depend on data (routed experts, for instance), and there are none yet."""


@dataclass(frozen=True, slots=True)
class BatchShape:
    """The lengths of the rows of one micro-batch, the longest first.

    Attributes:
        row_tokens: Of each row, prompt and answer.
        answer_tokens: Of each row.
    """

    row_tokens: tuple[int, ...]
    answer_tokens: tuple[int, ...]

    def rows(self) -> list[Row]:
        """Rows of such lengths; no memory hangs on what their tokens are."""
        lengths = zip(self.row_tokens, self.answer_tokens, strict=True)
        return [Row("", [0] * tokens, tokens - answer) for tokens, answer in lengths]


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be trained.

    Attributes:
        config: The architecture.
        tune: How it is trained.
        settings: What of that the device can do (:func:`whetstone.train.settings.settle`).
        batch: The largest micro-batch of the run.
        device: Where.
    """

    config: PreTrainedConfig
    tune: Tune
    settings: Settings
    batch: BatchShape
    device: torch.device


@dataclass(frozen=True, slots=True)
class MemoryEstimate:
    """The parts of the peak, as they are at the moment of the peak.

    Attributes:
        device: The kind of device; only ``cpu`` was measured, the others are computed.
        total_parameters: Of the model with its adapter; tied ones count once.
        trainable_parameters: Those that change.
        weights_bytes: Parameters and buffers.
        gradients_bytes: Gradients that exist at the peak. Where it falls into the loss, there may be none yet.
        optimiser_bytes: What the optimiser keeps for each trainable parameter, such as AdamW's two moments.
        activations_bytes: What autograd keeps, and temporaries.
        logits_bytes: Logits that are held at once: themselves, a float32 copy, their log-softmax, their gradient.
        allocator_bytes: Holes in the arena of the C library (CPU with glibc alone).
        runtime_bytes: The process itself on a CPU: interpreter, libraries, and all that it holds now. On a GPU 0: what
            its driver takes is gone from ``available_bytes`` already.
        loading_bytes: The peak of loading, where weights are converted from the type that they are stored in.
        mapped_bytes: How much of that are pages of the weights' file, which the system takes back when memory is short.
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
    mapped_bytes: int
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
    def needed_bytes(self) -> int:
        """The most that must be there at any time."""
        return max(self.training_bytes, self.loading_bytes - self.mapped_bytes)

    @property
    def fits(self) -> bool:
        """Whether this machine can give what the process does not hold yet."""
        return self.needed_bytes - self.held_bytes <= self.available_bytes

    def as_row(self) -> dict[str, Any]:
        """The JSON object that ``--json`` prints."""
        return {**asdict(self), "calibrated": self.device == "cpu", "peak_bytes": self.peak_bytes, "fits": self.fits}


def largest_batch(
    task: RowLengths, replay: RowLengths | None, tune: Tune, limit_tokens: int, replay_fraction: float = 0.0
) -> BatchShape:
    """The micro-batch of the run that needs most memory, or a little more.

    Rows of a step are of similar length, so the worst micro-batch is made of the longest rows. Its answers are the
    longest of all; they need not belong to the longest rows, so this is an upper bound. Replayed rows may be much
    longer; a micro-batch has at most their share of a step and one more, since the rows of a step are ordered by
    length. What rows share is unknown from their lengths: here it is nothing.

    Args:
        task: Lengths of the rows of the task.
        replay: Lengths of the rows to replay.
        tune: Says how many rows a micro-batch has.
        limit_tokens: Longer rows are cut or left out.
        replay_fraction: The share of all loss tokens that is replayed.
    """
    size = tune.batch_size
    longest = [_longest(task, size, limit_tokens)]
    if replay is not None and len(replay.answer_tokens):
        per_task_row = replay_fraction / (1 - replay_fraction) * task.answer_tokens.mean() / replay.answer_tokens.mean()
        share = per_task_row / (1 + per_task_row)
        replayed = min(size, int(np.ceil(share * size * tune.accumulation)) + 1)
        longest.append(_longest(replay, replayed, limit_tokens))
    row_tokens, answer_tokens = (sorted(chain(*lengths), reverse=True) for lengths in zip(*longest, strict=True))
    return BatchShape(tuple(row_tokens[:size]), tuple(answer_tokens[:size]))


def _longest(lengths: RowLengths, count: int, limit_tokens: int) -> tuple[list[int], list[int]]:
    """The tokens of the longest rows, and of the longest answers."""
    prompts = lengths.prompt_tokens.astype(np.int64)
    fitting = prompts < limit_tokens
    if not fitting.any():
        return [limit_tokens] * count, [limit_tokens] * count
    totals = np.minimum(prompts + lengths.answer_tokens, limit_tokens)
    tokens, answers = (np.sort(counts[fitting])[::-1][:count].tolist() for counts in (totals, totals - prompts))
    return tokens, answers


def estimate_memory(plan: Plan) -> MemoryEstimate:
    """Follows one training step of a plan without weights or data; seconds for some billions of parameters.

    Layers that are compiled are followed as they are: the compiler keeps less.

    Raises:
        UnforeseeableError: The architecture cannot be followed without data, or TRL makes the batches.
        UserError: It is not a causal language model.
    """
    if plan.tune.preferences:
        raise UnforeseeableError(
            f"tune.method: the memory that '{plan.tune.method}' takes is not foreseen, since its batches are made "
            "while it trains; watch the first steps instead"
        )
    # Its log would show the traceback of what is said in one line below.
    logging.getLogger("torch._subclasses.fake_tensor").setLevel(logging.CRITICAL)
    try:
        subject, tracker = _follow(plan)
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
    peak = {kind: int(count) for kind, count in tracker.peak.items()}
    return MemoryEstimate(
        device=plan.device.type,
        total_parameters=_count(subject.model.parameters()),
        trainable_parameters=_count(subject.trainable),
        weights_bytes=peak["weights"],
        gradients_bytes=peak.get("gradients", 0),
        optimiser_bytes=peak["optimiser"],
        activations_bytes=peak.get("activations", 0),
        logits_bytes=peak.get("logits", 0),
        allocator_bytes=peak.get("allocator", 0),
        runtime_bytes=runtime,
        loading_bytes=runtime + subject.stored_bytes + subject.copied_bytes if on_cpu else 0,
        mapped_bytes=subject.stored_bytes if on_cpu else 0,
        held_bytes=held,
        available_bytes=available_bytes(plan.device),
    )


def _count(parameters: Iterable[nn.Parameter]) -> int:
    """Of NF4 weights two are packed into a byte."""
    return sum(weight.numel() * (2 if weight.dtype == torch.uint8 else 1) for weight in parameters)


@dataclass(frozen=True, slots=True)
class _Subject:
    """A model without memory.

    Attributes:
        model: As it is trained.
        causal: The causal language model in it, or itself.
        stored_bytes: Of the weights as they are stored, which are mapped into memory.
        copied_bytes: Of the copy that is made of them where they are used in another type.
    """

    model: PreTrainedModel
    causal: PreTrainedModel
    stored_bytes: int
    copied_bytes: int

    @property
    def trainable(self) -> list[nn.Parameter]:
        """What changes."""
        return [parameter for parameter in self.model.parameters() if parameter.requires_grad]


def _without_memory(plan: Plan) -> _Subject:
    """The model as it will be trained, on the meta device."""
    settings = plan.settings
    # No kernel of FlashAttention follows tensors without data; as to memory, SDPA is like it.
    attention = "eager" if settings.attention == "eager" else None
    with torch.device("meta"):
        try:
            # transformers writes the type into the configuration that it is given.
            causal = AutoModelForCausalLM.from_config(
                deepcopy(plan.config), dtype=settings.weights_dtype, attn_implementation=attention
            )
        except ValueError as error:
            reason = str(error).strip().splitlines()[0]
            raise UserError(f"model.base: is not a causal language model that transformers knows ({reason})") from None
        stored_bytes = _count(causal.parameters()) * (plan.config.dtype or settings.weights_dtype).itemsize
        if settings.quantised:
            quantise_in_shape(causal, settings.compute_dtype, double=settings.double_quantisation)
        weights_bytes = sum(weight.nbytes for weight in chain(causal.parameters(), causal.buffers()))
        as_stored = plan.config.dtype in (None, settings.weights_dtype) and not settings.quantised
        model = prepare(causal, plan.tune, replace(settings, compile=False))
    if not settings.compile:
        lean_adapters(model)
    return _Subject(model, causal, stored_bytes, 0 if as_stored else weights_bytes)


def _follow(plan: Plan) -> tuple[_Subject, StorageTracker]:
    """Runs forward, loss and backward over fake tensors, as the trainer would when the optimiser has its moments."""
    try:
        return _follow_step(plan, _trie_step)
    # Whatever an architecture says to a mask that it does not take: it is trained on padded rows.
    except (ValueError, RuntimeError, TypeError, KeyError, IndexError, AttributeError):
        return _follow_step(plan, _padded_step)


_Step = tuple[Callable[[], torch.Tensor], int]
"""What computes the loss, and the columns of a padded batch in which it is learned."""


def _trie_step(subject: _Subject, batch: BatchShape) -> _Step:
    tries = pack(batch.rows(), CostModel.of(subject.causal), share=False)
    return lambda: trie_loss(subject.causal, tries, plain_head=_head_is_plain(subject.causal)), 0


def _padded_step(subject: _Subject, batch: BatchShape) -> _Step:
    parts = cut_padding(collate(batch.rows(), 0), batch.row_tokens)
    largest = max(parts, key=lambda part: part["labels"].numel())
    columns = int((largest["labels"][:, 1:] != IGNORE).any(dim=0).sum())
    return lambda: completion_loss(subject.model, largest), columns


def _follow_step(plan: Plan, make_step: Callable[[_Subject, BatchShape], _Step]) -> tuple[_Subject, StorageTracker]:
    subject, settings = _without_memory(plan), plan.settings
    compute_loss, columns = make_step(subject, plan.batch)
    waste = _ARENA_WASTE if plan.device.type == "cpu" and platform.libc_ver()[0] == "glibc" else 0.0
    tracker = StorageTracker(columns, plan.config.get_text_config().vocab_size, waste)
    narrows = settings.precision != "float32" and subject.model.dtype == torch.float32
    with FakeTensorMode(allow_non_fake_inputs=True):
        subject.model.to_empty(device="cpu")
        subject.causal.tie_weights()
        tracker.hold("weights", chain(subject.model.parameters(), subject.model.buffers()))
        tracker.add("optimiser", optimiser_bytes(settings.optimiser, subject.model))
        for parameter in subject.trainable:
            parameter.register_post_accumulate_grad_hook(tracker.name_gradient)  # type: ignore[no-untyped-call]
            if plan.tune.accumulation > 1:
                # The gradients of the micro-batches before live through this one.
                parameter.grad = torch.empty_like(parameter)
                tracker.hold("gradients", [parameter.grad])
        with tracker:
            with torch.autocast("cpu", settings.compute_dtype) if narrows else nullcontext():
                loss = compute_loss()
            loss.backward()  # type: ignore[no-untyped-call]
    return subject, tracker


@torch.no_grad()
def _head_is_plain(causal: PreTrainedModel) -> bool:
    """Whether what the output head gives is what the model gives."""
    head = causal.get_output_embeddings()
    given: list[torch.Tensor] = []
    watch = head.register_forward_hook(lambda module, inputs, output: given.append(output))
    try:
        logits = causal(input_ids=torch.zeros(1, 2, dtype=torch.long), use_cache=False).logits
    finally:
        watch.remove()
    return type(head) is nn.Linear and logits is given[0]


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
