"""Computes the report of a training from its files and from nothing else."""

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from statistics import median

from whetstone.report.kinds.training.evidence import Evidence, Watched
from whetstone.report.kinds.training.rules import machine_memory, recommend
from whetstone.report.kinds.training.schema import (
    Answer,
    Answers,
    AnswersAtStep,
    AskedAndUsed,
    Clipping,
    Curve,
    Event,
    Guarded,
    Origin,
    Point,
    Progress,
    Readings,
    Row,
    RunFacts,
    TrainingReport,
    Validation,
    WatchedPrompt,
)
from whetstone.run import Manifest

__all__ = ["SENSORS", "summarise_training"]

SENSORS = (
    "cpu_percent",
    "system_cpu_percent",
    "process_memory_bytes",
    "gpu_percent",
    "gpu_memory_bytes",
    "cpu_temperature_c",
    "gpu_temperature_c",
    "gpu_power_w",
)
"""The readings of :class:`whetstone.train.sensors.Reading`; named here, because that module brings torch with it."""

_WINDOW_ROWS = 20
_FEW_ROWS = 5
_SPIKE_FLOOR = 2.0


def summarise_training(evidence: Evidence) -> TrainingReport:
    """Everything that the report says."""
    manifest, rows = evidence.manifest, evidence.rows
    return TrainingReport(
        run=_facts(manifest),
        advice=recommend(evidence),
        progress=_progress(evidence) if rows else None,
        loss=_curve(rows),
        validation=_validation(rows),
        origins=_origins(rows),
        clipping=_clipping(rows, manifest.experiment.tune.max_gradient_norm),
        readings={name: _readings(rows, name) for name in SENSORS},
        rows=rows or None,
        retention=manifest.retention,
        settings=tuple(_settings(manifest)),
        notes=manifest.notes,
        guard=_guarded(evidence),
        answers=None if evidence.watched is None else _answers(evidence.watched),
        check=evidence.check,
        experiment=manifest.experiment.model_dump(mode="json"),
    )


def _facts(manifest: Manifest) -> RunFacts:
    return RunFacts(
        name=manifest.name,
        created_at=manifest.created_at,
        whetstone_version=manifest.whetstone_version,
        git_commit=manifest.git_commit,
        experiment_hash=manifest.experiment_hash,
        method=manifest.experiment.tune.method,
        device=manifest.tuning.device if manifest.tuning else None,
        base=manifest.base,
        hardware=manifest.hardware,
        packages=manifest.packages,
        finished=manifest.tuning is not None,
    )


def _progress(evidence: Evidence) -> Progress:
    rows, last = evidence.rows, evidence.rows[-1]

    def middle(rates: Sequence[float | None]) -> float | None:
        known = [rate for rate in rates if rate is not None]
        return median(known) if known else None

    return Progress(
        rows=len(rows),
        step=last.step,
        steps=last.steps,
        epoch=last.epoch,
        duration_s=last.elapsed_s,
        loss_tokens=last.loss_tokens,
        tokens_per_s=middle([row.tokens_per_s for row in rows]),
        computed_tokens_per_s=middle([row.computed_tokens_per_s for row in rows]),
        peak_memory_bytes=max((row.memory_bytes for row in rows if row.memory_bytes is not None), default=None),
        machine_memory_bytes=machine_memory(evidence),
    )


def _points(rows: Sequence[Row], value: Callable[[Row], float | None]) -> list[Point]:
    measured = ((row.step, value(row)) for row in rows)
    return [Point(step=step, value=found) for step, found in measured if found is not None]


def _curve(rows: Sequence[Row]) -> Curve | None:
    points = _points(rows, lambda row: row.loss)
    if not points:
        return None
    return Curve(first=points[0], last=points[-1], lowest=min(points, key=lambda point: point.value))


def _validation(rows: Sequence[Row]) -> Validation | None:
    points = _points(rows, lambda row: row.validation_loss)
    if not points:
        return None
    return Validation(points=len(points), best=min(points, key=lambda point: point.value), last=points[-1])


def _origins(rows: Sequence[Row]) -> tuple[Origin, ...] | None:
    counted = [row.loss_tokens_by_origin for row in rows if row.loss_tokens_by_origin]
    if not counted:
        return None
    last = counted[-1]
    total = sum(last.values())
    return tuple(
        Origin(origin=origin, tokens=tokens, share=tokens / total if total else 0.0) for origin, tokens in last.items()
    )


def _clipping(rows: Sequence[Row], limit: float) -> Clipping | None:
    norms = [row.gradient_norm for row in rows if row.gradient_norm is not None]
    if not norms:
        return None
    clipped = sum(norm > limit for norm in norms)
    return Clipping(limit=limit, clipped=clipped, n=len(norms), share=clipped / len(norms))


def _readings(rows: Sequence[Row], sensor: str) -> Readings | None:
    values: list[float] = [value for row in rows if (value := getattr(row, sensor)) is not None]
    if not values:
        return None
    return Readings(n=len(values), median=median(values), maximum=max(values), last=values[-1])


def _settings(manifest: Manifest) -> Iterator[AskedAndUsed]:
    tune, used = manifest.experiment.tune, manifest.settings
    yes = {True: "yes", False: "no"}
    asked = {
        "precision of products": tune.precision,
        "weights": manifest.experiment.model.dtype,
        "attention": tune.attention,
        "optimiser": tune.optimiser,
        "layers compiled": yes[tune.compile],
        "activations computed twice": yes[tune.activation_checkpointing],
    }
    really: dict[str, str] = {}
    if used is not None:
        really = {
            "precision of products": used.precision,
            "weights": used.weights + (" over a base in NF4" if used.quantised else ""),
            "attention": used.attention,
            "optimiser": used.optimiser,
            "layers compiled": yes[used.compiled],
            "activations computed twice": yes[used.activation_checkpointing],
        }
    for name, value in asked.items():
        yield AskedAndUsed(name=name, asked=value, used=really.get(name))


def _guarded(evidence: Evidence) -> Guarded:
    limits = evidence.manifest.experiment.tune.guard
    events = tuple(sorted(_events(evidence), key=lambda event: event.step or 0)) if evidence.rows else None
    return Guarded(
        spike=limits.spike,
        spikes=limits.spikes,
        gradient_norm=limits.gradient_norm,
        frozen_steps=limits.frozen_steps,
        events=events,
    )


def _events(evidence: Evidence) -> Iterator[Event]:
    rows, manifest = evidence.rows, evidence.manifest
    for row in rows:
        if row.loss is None or row.gradient_norm is None:
            yield Event(kind="not finite", step=row.step, text="The loss or the gradient norm was not a number.")
    yield from _spikes(rows, manifest.experiment.tune.guard.spike)
    for note in manifest.notes:
        if note.startswith("Out of memory at step "):
            step = int(note.removeprefix("Out of memory at step ").partition(":")[0])
            yield Event(kind="out of memory", step=step, text=note)
        if note.startswith("Stopped early"):
            yield Event(kind="stopped early", step=rows[-1].step, text=note)
    if manifest.tuning is None:
        yield Event(kind="unfinished", step=rows[-1].step, text="The last row of a training that has not ended.")


def _spikes(rows: Sequence[Row], spike: float) -> Iterator[Event]:
    """Logged losses that the guard would count as spikes; it looks at every step, and rows are means of several.

    See :class:`whetstone.train.guard.Guard` for the rule.
    """
    before: list[float] = []
    for row in rows:
        if row.loss is None:
            continue
        usual = median(before[-_WINDOW_ROWS:]) if len(before) >= _FEW_ROWS else None
        if usual is not None and row.loss > max(min(spike * usual, usual + spike), _SPIKE_FLOOR):
            text = f"A logged loss of {row.loss:.4f}, where the median of the rows before is {usual:.4f}."
            yield Event(kind="spike", step=row.step, text=text)
        else:
            before.append(row.loss)


def _answers(watched: Sequence[Watched]) -> Answers:
    by_example: dict[str, list[Watched]] = {}
    for row in watched:
        by_example.setdefault(row.example, []).append(row)
    steps = sorted({row.step for row in watched})
    at_step = {step: [row for row in watched if row.step == step] for step in steps}
    return Answers(
        prompts=tuple(_prompt(example, rows) for example, rows in by_example.items()),
        steps=tuple(
            AnswersAtStep(step=step, n=len(rows), right=sum(_right(row) for row in rows))
            for step, rows in at_step.items()
        ),
    )


def _prompt(example: str, rows: Sequence[Watched]) -> WatchedPrompt:
    """Answers that say the same as the one before are one answer that lasts."""
    starts = [0, *(index for index, (one, other) in enumerate(pairwise(rows), 1) if one.answer != other.answer)]
    runs = [rows[start:end] for start, end in zip(starts, [*starts[1:], len(rows)], strict=True)]
    return WatchedPrompt(
        example=example,
        prompt=rows[0].prompt,
        reference=rows[0].reference,
        answers=tuple(
            Answer(step=run[0].step, until=run[-1].step, text=run[0].answer, right=_right(run[0])) for run in runs
        ),
    )


def _right(row: Watched) -> bool:
    return row.answer.split() == row.reference.split()
