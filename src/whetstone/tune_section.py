"""The ``tune`` section of an experiment: how the weights are changed, watched, kept and guarded.

Notable: what changes the tuned weights and what only watches, keeps or guards them are told apart, so that a run can be
resumed with another tracker or checkpoint interval and is still the same training.
"""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from whetstone.section import Count, KeyedError, Section, Seed, Share

__all__ = [
    "Checkpoints",
    "Guard",
    "Method",
    "Preference",
    "Reward",
    "Rewards",
    "Tracker",
    "Tune",
    "Validation",
    "Watch",
]

Method = Literal["lora", "qlora", "full", "scratch", "dpo", "orpo", "grpo"]
Optimiser = Literal["adamw", "adamw_8bit", "paged_adamw_32bit", "paged_adamw_8bit", "adafactor", "sgd"]
Tracker = Literal["wandb", "tensorboard", "mlflow", "trackio"]
Reward = Literal["exact_match", "format", "tests"]


class Validation(Section):
    """When the loss of the validation rows is measured, and what follows from it."""

    every: Count | None = None
    """Optimiser steps between two measurements; a quarter of the run when left out."""
    patience: Count | None = None
    """Stop after so many measurements in a row without a new best; never when left out."""
    keep: Literal["best", "last"] = "last"
    """Which weights become the tuned model."""


class Checkpoints(Section):
    """From where an interrupted training goes on."""

    every: Count | None = None
    """Optimiser steps between two checkpoints; a tenth of the run when left out."""
    keep: Count = 2
    """How many of the newest stay on disk; the best one stays beside them."""
    disk_gigabytes: Annotated[float, Field(gt=0)] | None = None
    """The most that all checkpoints may take; older ones go first. No limit when left out."""


class Guard(Section):
    """When training stops because it has gone wrong."""

    spike: Annotated[float, Field(gt=1)] = 4.0
    """A loss is a spike when it exceeds the median of the last 20 steps so many times, or by so many nats, whichever is
    less, and 2 nats in any case."""
    spikes: Count = 3
    """So many spikes in a row stop the run; more where spikes that pass are usual."""
    gradient_norm: Annotated[float, Field(gt=0)] = 1e4
    """A gradient norm (before clipping) above this stops the run."""
    frozen_steps: Count = 20
    """After so many steps the logits must differ from those at the start."""


class Watch(Section):
    """Who is told of the training while it runs."""

    track: tuple[Tracker, ...] = ()
    """Trackers beside ``metrics.jsonl``, which is always written."""
    samples_every: Count | None = None
    """Optimiser steps between sample answers to validation prompts; none when left out."""
    samples: Count = 3
    """How many prompts are answered each time."""


class Preference(Section):
    """Settings of ``dpo`` and ``orpo``."""

    beta: Annotated[float, Field(gt=0)] = 0.1
    """Strength of the preference term."""


class Rewards(Section):
    """Settings of ``grpo``."""

    functions: Annotated[tuple[Reward, ...], Field(min_length=1)] = ("exact_match",)
    """What is rewarded; the sum counts."""
    pattern: str | None = None
    """``format``: the regular expression that a whole answer must match."""
    generations: Annotated[int, Field(ge=2)] = 8
    """Answers for each prompt, compared with one another."""
    max_new_tokens: Count = 64
    temperature: Annotated[float, Field(gt=0)] = 1.0
    beta: Annotated[float, Field(ge=0)] = 0.0
    """Weight of the divergence from the model before tuning."""

    @model_validator(mode="after")
    def _format_has_pattern(self) -> "Rewards":
        if ("format" in self.functions) != (self.pattern is not None):
            raise KeyedError("pattern", "the reward 'format' and its 'pattern' go together: give both or neither")
        return self


class Tune(Section):
    """How the weights are changed."""

    method: Method = "lora"

    rank: Count = 16
    alpha: Count = 32
    dropout: Share = 0.0
    targets: Literal["all-linear"] | Annotated[tuple[str, ...], Field(min_length=1)] = "all-linear"
    dora: bool = False
    """Learn the magnitude of each column apart from its direction (Liu et al. 2024, arXiv:2402.09353)."""
    rslora: bool = False
    """Scale by alpha / sqrt(rank) instead of alpha / rank (Kalajdzievski 2023, arXiv:2312.03732)."""
    double_quantisation: bool = True
    """QLoRA: quantise the constants of the quantisation, too (Dettmers et al. 2023, arXiv:2305.14314)."""

    references: Literal["first", "all"] = "all"
    """Learn the first reference of an example, or every one (each becomes a training row)."""
    epochs: Annotated[float, Field(gt=0)] = 3.0
    """Passes over the rows of the task; replayed rows come on top."""
    steps: Count | None = None
    """Optimiser steps; when given, ``epochs`` is not used."""
    batch_size: Count = 16
    """Rows that are computed at once."""
    accumulation: Count = 1
    """Batches of an optimiser step."""

    optimiser: Optimiser = "adamw"
    learning_rate: Annotated[float, Field(gt=0)] = 2e-4
    warmup_ratio: Share | None = None
    """Share of the steps in which the learning rate rises; 0.1 when ``warmup_steps`` is not given either."""
    warmup_steps: Annotated[int, Field(ge=0)] | None = None
    schedule: Literal["cosine", "linear", "constant_with_warmup"] = "cosine"
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    max_gradient_norm: Annotated[float, Field(gt=0)] = 1.0
    seed: Seed = 0

    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Of products: ``auto`` is bfloat16 where the hardware multiplies it, float32 elsewhere and on MPS."""
    attention: Literal["auto", "sdpa", "eager", "flash_attention_2", "flex_attention"] = "auto"
    compile: bool = False
    """Compile each layer (torch.compile); pays off in long runs."""
    activation_checkpointing: bool = False
    """Compute activations twice and keep few of them: less memory, about a third more time."""
    share_tokens: bool = True
    """Compute tokens that rows have in common once (:mod:`whetstone.trie`)."""
    memory_fraction: Annotated[float, Field(gt=0, le=1)] | None = None
    """The most of the device's memory that this process may take; no cap when left out."""

    validation: Validation = Validation()
    checkpoints: Checkpoints = Checkpoints()
    guard: Guard = Guard()
    watch: Watch = Watch()
    preference: Preference = Preference()
    rewards: Rewards = Rewards()

    @model_validator(mode="after")
    def _consistent(self) -> "Tune":
        if self.warmup_ratio is not None and self.warmup_steps is not None:
            raise KeyedError("warmup_steps", "give warmup_steps or warmup_ratio, not both")
        if self.steps is not None and self.warmup_steps is not None and self.warmup_steps >= self.steps:
            raise KeyedError(
                "warmup_steps",
                f"{self.warmup_steps} steps of warm-up, but the run has {self.steps}; lower it, or give warmup_ratio",
            )
        return self

    @property
    def adapts(self) -> bool:
        """Whether an adapter is trained and the base stays as it is."""
        return self.method not in ("full", "scratch")

    @property
    def preferences(self) -> bool:
        """Whether TRL's trainers learn from preferences or rewards, instead of from answers."""
        return self.method in ("dpo", "orpo", "grpo")

    def what_learns(self) -> dict[str, Any]:
        """The settings that bear on the tuned weights."""
        return self.model_dump(mode="json", exclude={"checkpoints", "guard", "watch", "memory_fraction"})
