"""What ``report/training/report.json`` holds; its JSON schema is made from these models.

Notable: a part whose rows are missing is null as a whole, so no number can outlive the rows that it came from.
"""

from typing import Any, Literal

from pydantic import Field

from whetstone.report.kinds.advice import Advice
from whetstone.report.kinds.part import Part
from whetstone.run import Hardware, RetentionRecord, WeightsRecord

__all__ = [
    "SCHEMA_VERSION",
    "Answer",
    "Answers",
    "AnswersAtStep",
    "AskedAndUsed",
    "Check",
    "CheckedPart",
    "Clipping",
    "Curve",
    "Event",
    "Guarded",
    "Origin",
    "Point",
    "Problem",
    "Progress",
    "Readings",
    "Row",
    "RunFacts",
    "TrainingReport",
    "Validation",
    "WatchedPrompt",
]

SCHEMA_VERSION: Literal[1] = 1


class Row(Part):
    """A logged step: what :class:`whetstone.train.recorder.StepMetrics` says, null where that was not recorded."""

    step: int
    steps: int | None
    epoch: float | None
    loss: float | None
    validation_loss: float | None
    learning_rate: float | None
    gradient_norm: float | None
    tokens_per_s: float | None
    computed_tokens_per_s: float | None
    loss_tokens: int | None
    loss_tokens_by_origin: dict[str, int] | None
    elapsed_s: float | None
    memory_bytes: int | None
    cpu_percent: float | None
    system_cpu_percent: float | None
    process_memory_bytes: int | None
    gpu_percent: float | None
    gpu_memory_bytes: int | None
    cpu_temperature_c: float | None
    gpu_temperature_c: float | None
    gpu_power_w: float | None


class Point(Part):
    """A value and the optimiser step at which it was measured."""

    step: int
    value: float


class Curve(Part):
    """The ends of the training loss and its lowest logged value."""

    first: Point
    last: Point
    lowest: Point


class Validation(Part):
    """The validation loss: how often it was measured, its best and its last value."""

    points: int
    best: Point
    last: Point


class Progress(Part):
    """How far training came and what it took, by its rows.

    Attributes:
        rows: Logged steps.
        step: The last of them.
        steps: How many were planned.
        epoch: Passes over the task rows.
        duration_s: Of training, with what happens between the steps.
        loss_tokens: Learned from.
        tokens_per_s: Median of the logged rates.
        computed_tokens_per_s: Median of the logged rates of tokens that went through the layers.
        peak_memory_bytes: The most that was logged.
        machine_memory_bytes: Of what that is a part; null where the run does not record it.
    """

    rows: int
    step: int
    steps: int | None
    epoch: float | None
    duration_s: float | None
    loss_tokens: int | None
    tokens_per_s: float | None
    computed_tokens_per_s: float | None
    peak_memory_bytes: int | None
    machine_memory_bytes: int | None


class Origin(Part):
    """Tokens learned from that came from rows of one origin."""

    origin: str
    tokens: int
    share: float


class Readings(Part):
    """What a sensor said over all rows that have it."""

    n: int
    median: float
    maximum: float
    last: float


class Clipping(Part):
    """Logged gradient norms above ``tune.max_gradient_norm``, which were clipped to it."""

    limit: float
    clipped: int
    n: int
    share: float


class Event(Part):
    """Something that the guard, the memory or the patience did, or that the rows show of it."""

    kind: Literal["not finite", "spike", "out of memory", "stopped early", "unfinished"]
    step: int | None
    text: str


class Guarded(Part):
    """The limits of the guard, as asked, and what happened; ``events`` is null where there are no rows to see it in."""

    spike: float
    spikes: int
    gradient_norm: float
    frozen_steps: int
    events: tuple[Event, ...] | None


class Answer(Part):
    """What the model said, and for how long it went on to say it."""

    step: int
    until: int
    text: str
    right: bool


class WatchedPrompt(Part):
    """One prompt with every answer that differs from the one before."""

    example: str
    prompt: str
    reference: str
    answers: tuple[Answer, ...]


class AnswersAtStep(Part):
    """How many of the watched prompts were answered with the reference, white space apart."""

    step: int
    n: int
    right: int


class Answers(Part):
    """Sample answers over time."""

    prompts: tuple[WatchedPrompt, ...]
    steps: tuple[AnswersAtStep, ...]


class CheckedPart(Part):
    """The rows of one part of the data, as the check measured them."""

    part: str
    examples: int
    groups: int
    rows: int
    too_long: int
    tokens: int
    loss_tokens: int
    median_tokens: float | None
    longest_tokens: int | None


class Problem(Part):
    """A finding of the check."""

    code: str
    severity: Literal["error", "warning", "note"]
    count: int
    total: int
    message: str
    mend: str


class Check(Part):
    """What was read and what was found in it before training."""

    parts: tuple[CheckedPart, ...]
    findings: tuple[Problem, ...]


class AskedAndUsed(Part):
    """A setting as the experiment asks for it, and as training really used it; null where the run does not say."""

    name: str
    asked: str
    used: str | None


class RunFacts(Part):
    """Which run this is of."""

    name: str
    created_at: str
    whetstone_version: str
    git_commit: str | None
    experiment_hash: str
    method: str
    device: str | None
    base: WeightsRecord | None
    hardware: Hardware
    packages: dict[str, str]
    finished: bool


class TrainingReport(Part):
    """The whole report. Every number on the page stands here, under the path that the page names."""

    schema_version: Literal[1] = SCHEMA_VERSION
    kind: Literal["training"] = "training"
    run: RunFacts
    advice: tuple[Advice, ...]
    progress: Progress | None
    loss: Curve | None
    validation: Validation | None
    origins: tuple[Origin, ...] | None
    clipping: Clipping | None
    readings: dict[str, Readings | None] = Field(description="By the name of the sensor in metrics.jsonl.")
    rows: tuple[Row, ...] | None
    retention: tuple[RetentionRecord, ...]
    settings: tuple[AskedAndUsed, ...]
    notes: tuple[str, ...]
    guard: Guarded
    answers: Answers | None
    check: Check | None
    experiment: dict[str, Any] = Field(description="The effective experiment.")
