"""Trains one LoRA adapter by one contestant and prints what it took; the worker of train_vs_trl.py.

Run as: python benchmarks/peers_train.py '{"setting": {...}, "folder": "...", "data_set": "...", "seed": 0, ...}'

Time counts from the end of the second optimiser step to the end of the last: imports, loading, the preparation of the
data and what is done once are left out for all. The held-out loss is computed by one function over the saved adapter.
"""

# The callbacks of transformers are untyped here, and they are meant to be subclassed.
# mypy: allow-subclassing-any

import json
import sys
import tempfile
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from datasets import Dataset
from peers_data import Pair, read_pairs
from peers_steps import StepTime, in_order
from peft import LoraConfig, PeftModel, get_peft_model
from torch.nn import functional
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    DataCollatorForSeq2Seq,
    PreTrainedModel,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
    set_seed,
)
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import SFTTrainer

from whetstone.train.batch import Row
from whetstone.tune_section import Tune

__all__ = ["STEP_PAIRS", "Setting"]

STEP_PAIRS = 64
"""Pairs of an optimiser step, for every contestant."""

WARM_UP_STEPS = 2
LEARNING_RATE = 2e-4
PACK_TOKENS = 512
LAST_STEPS = 5


@dataclass(frozen=True, slots=True)
class Setting:
    """One way to train.

    Attributes:
        trainer: ``whet``, TRL's ``SFTTrainer`` or the Trainer of transformers with its own loss.
        batch: Pairs that are computed at once; the accumulation makes a step of them.
        bfloat16: Autocast; the trainer's own choice where it is None.
        checkpointing: Activation checkpointing; the trainer's own choice where it is None.
        layout: TRL's packing (first-fit decreasing into 512 tokens) or its padding-free batches.
        order: ``random``; ``group_by_length`` of transformers; ``sequential``, which is the order that whet takes.
        attention: As transformers calls it.
    """

    trainer: Literal["whet", "trl", "transformers"]
    batch: int = 8
    bfloat16: bool | None = None
    checkpointing: bool | None = None
    layout: Literal["padded", "packed", "padding-free"] = "padded"
    order: Literal["random", "group_by_length", "sequential"] = "random"
    attention: Literal["sdpa", "eager"] = "sdpa"


class _Clock(TrainerCallback):
    """Notes when each step of a Trainer ends."""

    def __init__(self) -> None:
        self.steps: list[tuple[float, float]] = []

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self.steps.append((time.perf_counter(), time.process_time()))


@dataclass(frozen=True, slots=True)
class Job:
    """What a worker is asked to do."""

    setting: Setting
    folder: Path
    data_set: str
    seed: int
    threads: int
    step_pairs: int

    @property
    def model(self) -> Path:
        """Weights and tokenizer."""
        return self.folder / "model"


def main() -> None:
    """Trains, saves, measures, and prints one JSON object."""
    warnings.simplefilter("ignore")
    asked = json.loads(sys.argv[1])
    job = Job(**{**asked, "setting": Setting(**asked["setting"]), "folder": Path(asked["folder"])})
    torch.set_num_threads(job.threads)
    learned, held_out = read_pairs(job.folder, job.data_set)
    pairs = learned[: len(learned) // job.step_pairs * job.step_pairs]
    model, steps = (_whet if job.setting.trainer == "whet" else _peer)(job, pairs)
    with tempfile.TemporaryDirectory() as adapter:
        model.save_pretrained(adapter)
        loss = held_out_loss(job.model, Path(adapter), held_out)
    timed_pairs = len(pairs) * (len(steps) - WARM_UP_STEPS) / len(steps)
    first, last = steps[WARM_UP_STEPS - 1], steps[-1]
    per_thousand = 1000 / timed_pairs
    result = {
        "seconds": (last.wall_s - first.wall_s) * per_thousand,
        "processor_seconds": (last.processor_s - first.processor_s) * per_thousand,
        "steps": len(steps),
        "final_loss": sum(step.loss for step in steps[-LAST_STEPS:]) / len(steps[-LAST_STEPS:]),
        "held_out_loss": loss,
    }
    sys.stdout.write(f"\n{json.dumps(result)}\n")


def _whet(job: Job, pairs: Sequence[Pair]) -> tuple[PreTrainedModel, list[StepTime]]:
    # Not for its peers: what it sets up on import should not be theirs.
    from peers_whet import train

    tune = Tune(
        batch_size=job.step_pairs,
        learning_rate=LEARNING_RATE,
        schedule="constant_with_warmup",
        warmup_steps=0,
        epochs=1,
        seed=job.seed,
    )
    return train(job.model, _rows(pairs), tune)


def _rows(pairs: Sequence[Pair]) -> list[Row]:
    return [Row(pair.source, [*pair.prompt, *pair.answer], len(pair.prompt)) for pair in pairs]


def _peer(job: Job, pairs: Sequence[Pair]) -> tuple[PreTrainedModel, list[StepTime]]:
    """TRL's or transformers' trainer over the same ids."""
    base = AutoModelForCausalLM.from_pretrained(
        job.model, dtype=torch.float32, attn_implementation=job.setting.attention
    )
    adapter = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
    tokenizer = AutoTokenizer.from_pretrained(job.model)
    if job.setting.order == "sequential":
        pairs = [pairs[index] for index in in_order(_rows(pairs), job.step_pairs, job.seed)]
    clock = _Clock()
    arguments = _arguments(job, pairs)
    set_seed(job.seed)
    if job.setting.trainer == "trl":
        trainer = SFTTrainer(
            model=base,
            args=SFTConfig(**arguments),
            train_dataset=_data_set(pairs, "completion_mask"),
            processing_class=tokenizer,
            peft_config=adapter,
            callbacks=[clock],
        )
    else:
        trainer = Trainer(
            model=get_peft_model(base, adapter),
            args=TrainingArguments(**arguments),
            train_dataset=_data_set(pairs, "labels"),
            data_collator=DataCollatorForSeq2Seq(tokenizer),
            callbacks=[clock],
        )
    trainer.train()
    losses = [row["loss"] for row in trainer.state.log_history if "loss" in row]
    return trainer.model, [StepTime(*at, loss) for at, loss in zip(clock.steps, losses, strict=True)]


def _data_set(pairs: Sequence[Pair], column: Literal["completion_mask", "labels"]) -> Dataset:
    """Ids, and what of them is learned in the way that the trainer is told so."""
    return Dataset.from_list(
        [
            {
                "input_ids": [*pair.prompt, *pair.answer],
                column: [0] * len(pair.prompt) + [1] * len(pair.answer)
                if column == "completion_mask"
                else [-100] * len(pair.prompt) + pair.answer,
            }
            for pair in pairs
        ]
    )


def _arguments(job: Job, pairs: Sequence[Pair]) -> dict[str, Any]:
    """The arguments of a Trainer: its defaults, but for what all contestants share and what the setting changes."""
    setting = job.setting
    batch, at_once = setting.batch, setting.batch
    arguments: dict[str, Any] = {}
    if setting.layout == "packed":
        tokens = sum(len(pair.prompt) + len(pair.answer) for pair in pairs) / len(pairs)
        batch, at_once = 1, max(1, round(PACK_TOKENS / tokens))
        arguments |= {"packing": True, "max_length": PACK_TOKENS}
    elif setting.layout == "padding-free":
        arguments |= {"padding_free": True, "max_length": None}
    if setting.trainer == "trl":
        arguments["completion_only_loss"] = True
    if setting.bfloat16 is not None:
        arguments["bf16"] = setting.bfloat16
    if setting.checkpointing is not None:
        arguments["gradient_checkpointing"] = setting.checkpointing
    if setting.order != "random":
        arguments["train_sampling_strategy"] = setting.order
    return {
        **arguments,
        "output_dir": tempfile.gettempdir(),
        "per_device_train_batch_size": min(batch, job.step_pairs),
        "gradient_accumulation_steps": max(1, round(job.step_pairs / at_once)),
        "num_train_epochs": 1,
        "learning_rate": LEARNING_RATE,
        "lr_scheduler_type": "constant",
        "seed": job.seed,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": True,
        "dataloader_pin_memory": False,
    }


@torch.no_grad()
def held_out_loss(base: Path, adapter: Path, pairs: Sequence[Pair]) -> float:
    """Mean cross-entropy of an answer's token, in float32, a pair at a time: nothing of any trainer is in it."""
    torch.set_float32_matmul_precision("highest")
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    model = PeftModel.from_pretrained(model, adapter).eval()
    total, tokens = 0.0, 0
    for pair in pairs:
        ids = torch.tensor([[*pair.prompt, *pair.answer]])
        before = slice(len(pair.prompt) - 1, -1)
        logits = model(input_ids=ids, use_cache=False).logits[0, before]
        total += functional.cross_entropy(logits, ids[0, len(pair.prompt) :], reduction="sum").item()
        tokens += len(pair.answer)
    return total / tokens


if __name__ == "__main__":
    main()
