"""Pre-trains the decoder of the recipe scratch-cpu by one contestant; the worker of scratch_vs_eager.py.

Run as: python benchmarks/peers_scratch.py '{"setting": {...}, "folder": "...", "seed": 0, "threads": 2}'

The loop is the plain one that people write, in plain torch; every field of a setting switches on one thing. Time counts
from the end of the third step to the end of the last, so compiling is left out; what the first three took is told
apart. The validation loss is computed by one function over the trained weights, in float32.
"""

# Much of PyTorch (spawn, split, backward) is untyped.
# mypy: allow-untyped-calls

import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
import torch.distributed
from peers_steps import StepTime, in_order
from torch import Tensor, nn
from torch.multiprocessing.spawn import spawn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from whetstone.train.batch import Row
from whetstone.tune_section import Tune

__all__ = ["BATCH", "Setting"]

BATCH = 32
WARM_UP_STEPS = 3
LEARNING_RATE, WEIGHT_DECAY, MAX_NORM = 1e-3, 0.01, 1.0
CHUNK = 1024
IGNORE = -100

LossOf = Callable[[Tensor, Tensor], Tensor]
"""Mean loss of ids and labels, each ``(batch, tokens)``."""


@dataclass(frozen=True, slots=True)
class Setting:
    """What is switched on besides the plain loop; ``whet`` stands for Whetstone's trainer, compiled or not.

    Attributes:
        fused: Fused AdamW.
        medium: ``torch.set_float32_matmul_precision("medium")``: oneDNN multiplies in bfloat16.
        bfloat16: Autocast.
        compile: The whole model, or each layer and the loss.
        chunked_loss: Logits of 1,024 tokens at a time, computed again for the gradient.
        rms_norm: PyTorch's, instead of the module of transformers.
        attention: As transformers calls it.
        processes: Each takes its share of the batch; gradients are averaged through gloo.
        padded: A text is a row, padded to the longest of its batch; texts are packed into full rows without.
    """

    whet: bool = False
    fused: bool = False
    medium: bool = False
    bfloat16: bool = False
    compile: Literal["", "model", "layers"] = ""
    chunked_loss: bool = False
    rms_norm: bool = False
    attention: Literal["sdpa", "eager"] = "sdpa"
    processes: int = 1
    padded: bool = False


@dataclass(frozen=True, slots=True)
class Job:
    """What a worker is asked to do; ``folder`` holds config.json and data.json."""

    setting: Setting
    folder: Path
    seed: int
    threads: int

    def new_model(self) -> PreTrainedModel:
        """Random weights, the same for every contestant."""
        torch.manual_seed(self.seed)
        config = AutoConfig.from_pretrained(self.folder)
        return AutoModelForCausalLM.from_config(config, attn_implementation=self.setting.attention)

    def rows(self, part: str) -> list[list[int]]:
        """``packed``, ``padded`` or ``validation`` rows."""
        rows: list[list[int]] = json.loads((self.folder / "data.json").read_text(encoding="utf-8"))[part]
        return rows


class _RmsNorm(nn.Module):
    def __init__(self, weight: nn.Parameter, epsilon: float) -> None:
        super().__init__()
        self.weight = weight
        self.epsilon = epsilon

    def forward(self, x: Tensor) -> Tensor:
        return functional.rms_norm(x, (x.shape[-1],), self.weight, self.epsilon)


def main() -> None:
    """Trains, measures, and prints one JSON object."""
    asked = json.loads(sys.argv[1])
    job = Job(**{**asked, "setting": Setting(**asked["setting"]), "folder": Path(asked["folder"])})
    torch.set_num_threads(max(1, job.threads // job.setting.processes))
    if job.setting.processes == 1:
        result = _whet(job) if job.setting.whet else _loop(job, 0)
    else:
        with tempfile.TemporaryDirectory() as meeting:
            spawn(_one_of_several, (job, Path(meeting)), job.setting.processes)
            result = json.loads((Path(meeting) / "result.json").read_text(encoding="utf-8"))
    sys.stdout.write(f"\n{json.dumps(result)}\n")


def _one_of_several(rank: int, job: Job, meeting: Path) -> None:
    torch.set_num_threads(max(1, job.threads // job.setting.processes))
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{meeting}/gloo", rank=rank, world_size=job.setting.processes
    )
    result = _loop(job, rank)
    if rank == 0:
        (meeting / "result.json").write_text(json.dumps(result), encoding="utf-8")
    torch.distributed.destroy_process_group()


def _whet(job: Job) -> dict[str, float]:
    rows = [Row(str(index), ids, 1) for index, ids in enumerate(job.rows("packed"))]
    # Not for its peers: what it sets up on import should not be theirs.
    from peers_whet import train

    tune = Tune(
        method="scratch",
        batch_size=BATCH,
        epochs=1,
        learning_rate=LEARNING_RATE,
        weight_decay=WEIGHT_DECAY,
        max_gradient_norm=MAX_NORM,
        schedule="constant_with_warmup",
        warmup_steps=0,
        seed=job.seed,
        compile=job.setting.compile != "",
    )
    with tempfile.TemporaryDirectory() as weights:
        job.new_model().save_pretrained(weights)
        began = StepTime(time.perf_counter(), time.process_time(), 0.0)
        model, steps = train(Path(weights), rows, tune)
    return _result(job, model, [began, *steps], len(rows) * len(rows[0].input_ids))


def _loop(job: Job, rank: int) -> dict[str, float]:
    setting = job.setting
    torch.set_float32_matmul_precision("medium" if setting.medium else "highest")
    model = job.new_model()
    parameters = list(model.parameters())
    loss_of = _loss_function(model, setting)
    optimiser = torch.optim.AdamW(
        parameters, lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY, fused=True if setting.fused else None
    )
    times = [StepTime(time.perf_counter(), time.process_time(), 0.0)]
    tokens = 0
    for rows in _batches(job):
        tokens += sum(map(len, rows))
        ids, labels = _padded(rows[rank :: setting.processes])
        with torch.autocast("cpu", torch.bfloat16, enabled=setting.bfloat16):
            loss = loss_of(ids, labels)
        loss.backward()
        if setting.processes > 1:
            _average_gradients(parameters)
        nn.utils.clip_grad_norm_(parameters, MAX_NORM)
        optimiser.step()
        optimiser.zero_grad()
        times.append(StepTime(time.perf_counter(), time.process_time(), loss.item()))
    return _result(job, model, times, tokens)


def _loss_function(model: PreTrainedModel, setting: Setting) -> LossOf:
    if setting.rms_norm:
        for name, module in list(model.named_modules()):
            if name.endswith("norm"):
                model.set_submodule(name, _RmsNorm(module.weight, module.variance_epsilon))
    if setting.compile == "layers":
        for layer in model.model.layers:
            layer.compile()
    if setting.compile == "layers" or setting.chunked_loss:
        head = torch.compile(_head_loss) if setting.compile else _head_loss
        chunk = CHUNK if setting.chunked_loss else BATCH * model.config.max_position_embeddings

        def apart(ids: Tensor, labels: Tensor) -> Tensor:
            hidden = model.model(input_ids=ids, use_cache=False).last_hidden_state[:, :-1].flatten(0, 1)
            targets = labels[:, 1:].flatten()
            parts = zip(hidden.split(chunk), targets.split(chunk), strict=True)
            weight = model.lm_head.weight
            if setting.chunked_loss:
                total = torch.stack([checkpoint(head, x, weight, y, use_reentrant=False) for x, y in parts]).sum()
            else:
                total = torch.stack([head(x, weight, y) for x, y in parts]).sum()
            return total / (targets != IGNORE).sum()

        return apart
    whole = torch.compile(model) if setting.compile == "model" else model
    if setting.padded:
        return lambda ids, labels: whole(input_ids=ids, attention_mask=(labels != IGNORE).long(), labels=labels).loss
    return lambda ids, labels: whole(input_ids=ids, labels=labels).loss


def _head_loss(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    logits = functional.linear(hidden, weight).float()
    return functional.cross_entropy(logits, targets, ignore_index=IGNORE, reduction="sum")


def _batches(job: Job) -> list[list[list[int]]]:
    """The rows of each step: packed ones in the order in which whet learns them."""
    rows = job.rows("padded" if job.setting.padded else "packed")
    if not job.setting.padded:
        order = in_order([Row(str(index), ids, 1) for index, ids in enumerate(rows)], BATCH, job.seed)
        rows = [rows[index] for index in order]
    return [rows[start : start + BATCH] for start in range(0, len(rows) - BATCH + 1, BATCH)]


def _padded(rows: Sequence[list[int]]) -> tuple[Tensor, Tensor]:
    width = max(map(len, rows))
    ids = torch.tensor([row + [0] * (width - len(row)) for row in rows])
    labels = torch.tensor([row + [IGNORE] * (width - len(row)) for row in rows])
    return ids, labels


def _average_gradients(parameters: Sequence[nn.Parameter]) -> None:
    """In one message; the shares of the batch have equally many tokens."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    torch.distributed.all_reduce(flat, torch.distributed.ReduceOp.AVG)
    for gradient, part in zip(gradients, flat.split([gradient.numel() for gradient in gradients]), strict=True):
        gradient.copy_(part.view_as(gradient))


def _result(job: Job, model: PreTrainedModel, times: Sequence[StepTime], tokens: int) -> dict[str, float]:
    """Times of the steps after the first three; the processor's are of all processes."""
    first, last = times[WARM_UP_STEPS], times[-1]
    steps = len(times) - 1
    timed_tokens = tokens * (steps - WARM_UP_STEPS) / steps
    seconds = last.wall_s - first.wall_s
    return {
        "seconds": seconds / timed_tokens * 1e5,
        "processor_seconds": (last.processor_s - first.processor_s) * job.setting.processes / timed_tokens * 1e5,
        "tokens_per_s": timed_tokens / seconds,
        "warm_up_s": first.wall_s - times[0].wall_s,
        "validation_loss": _validation_loss(job, model),
    }


@torch.no_grad()
def _validation_loss(job: Job, trained: PreTrainedModel) -> float:
    """Mean cross-entropy of a token, by a fresh uncompiled model with the trained weights, in float32."""
    torch.set_float32_matmul_precision("highest")
    model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(job.folder)).eval()
    values = {name.replace("_orig_mod.", ""): value.float() for name, value in trained.state_dict().items()}
    model.load_state_dict(values)
    ids = torch.tensor(job.rows("validation"))
    return float(torch.stack([model(input_ids=part, labels=part).loss for part in ids.split(BATCH)]).mean())


if __name__ == "__main__":
    main()
