"""Computes the report of a campaign from what each run's own rows give.

Notable: runs on other examples, or with another primary metric, answer other questions; they are put in groups, and
nothing is averaged or ranked across groups.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from whetstone.evaluate.metrics.metric import Metric
from whetstone.evaluate.sample import BASE, TUNED
from whetstone.report.kinds.campaign.read import Judged, Reading
from whetstone.report.kinds.campaign.rules import recommend
from whetstone.report.kinds.campaign.schema import (
    Best,
    Bounds,
    CampaignReport,
    CampaignRun,
    Effect,
    Measured,
    Primary,
    Recipe,
    RunGroup,
    Setting,
    Took,
)
from whetstone.run import Manifest
from whetstone.section import stable_hash
from whetstone.stats.comparison import paired_scores
from whetstone.stats.paired import Interval, compare_paired
from whetstone.stats.seeds import compare_seeds

__all__ = ["NOT_SET", "summarise_campaign"]

NOT_SET = "not set"
_COMPARED_SECTIONS = {"tune", "model", "data"}


def summarise_campaign(readings: Sequence[Reading]) -> CampaignReport:
    """Everything that the report says.

    Args:
        readings: Of the runs, in the order in which they are shown.
    """
    judged = {index: reading.judged for index, reading in enumerate(readings) if reading.judged is not None}
    by_question: dict[tuple[str, str], list[int]] = {}
    for index, found in judged.items():
        key = (found.summary.held_out.evidence.data_hash, found.summary.primary.name)
        by_question.setdefault(key, []).append(index)
    groups = list(by_question.values())
    report = CampaignReport(
        runs=tuple(map(_run, readings)),
        settings=tuple(_settings([reading.manifest for reading in readings])),
        groups=tuple(_group(judged, runs) for runs in groups),
        recipes=tuple(recipe for place, runs in enumerate(groups) for recipe in _recipes(judged, runs, place)),
        advice=(),
    )
    return report.model_copy(update={"advice": recommend(report)})


def _run(reading: Reading) -> CampaignRun:
    manifest = reading.manifest
    tuning = None if manifest is None else manifest.tuning
    return CampaignRun(
        name=reading.name,
        base=None if manifest is None else manifest.base.origin if manifest.base else manifest.experiment.model.base,
        method=None if manifest is None else manifest.experiment.tune.method,
        seed=None if manifest is None else manifest.experiment.tune.seed,
        training=None
        if tuning is None
        else Took(duration_s=tuning.duration_s, peak_memory_bytes=tuning.peak_memory_bytes),
        measured=None if reading.judged is None else _measured(reading.judged),
        reason=reading.reason,
    )


def _measured(judged: Judged) -> Measured:
    paired = judged.comparison.paired
    return Measured(
        data_hash=judged.summary.held_out.evidence.data_hash,
        primary=_primary(judged.summary.primary),
        effect=Effect(
            baseline_mean=paired.baseline_mean,
            candidate_mean=paired.candidate_mean,
            difference=paired.difference,
            interval=_bounds(paired.interval),
            p_value=paired.p_value,
            n=paired.n,
            groups=paired.groups,
        ),
        verdict=judged.summary.verdict.outcome,
        stopped_early=judged.stopped_early,
    )


def _primary(metric: Metric) -> Primary:
    return Primary(name=metric.name, title=metric.title, unit=metric.unit, direction=metric.direction)


def _bounds(interval: Interval) -> Bounds:
    return Bounds(low=interval.low, high=interval.high, level=interval.level, method=interval.method)


def _settings(manifests: Sequence[Manifest | None]) -> Iterator[Setting]:
    """The keys in which the experiments differ; a run that cannot be read differs from none."""
    flat = [None if manifest is None else dict(_flat(_sections(manifest))) for manifest in manifests]
    keys = dict.fromkeys(key for values in flat if values is not None for key in values)
    for key in keys:
        values = [None if found is None else found.get(key, NOT_SET) for found in flat]
        if len({value for value in values if value is not None}) > 1:
            yield Setting(key=key, values=tuple(values))


def _sections(manifest: Manifest) -> dict[str, Any]:
    return manifest.experiment.model_dump(mode="json", include=_COMPARED_SECTIONS)


def _flat(values: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, str]]:
    """Keys joined by dots, with their values as YAML has them."""
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{above}{key}.")
        elif value is None:
            yield f"{above}{key}", NOT_SET
        else:
            yield f"{above}{key}", value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _group(judged: Mapping[int, Judged], runs: Sequence[int]) -> RunGroup:
    first = judged[runs[0]].summary
    return RunGroup(
        data_hash=first.held_out.evidence.data_hash,
        primary=_primary(first.primary),
        runs=tuple(runs),
        bases=len({_base_sha256(judged[run]) for run in runs}),
        best=_best(judged, runs),
    )


def _best(judged: Mapping[int, Judged], runs: Sequence[int]) -> Best | None:
    complete = [run for run in runs if not judged[run].stopped_early]
    if len(runs) < 2 or not complete:
        return None
    best = max(complete, key=lambda run: judged[run].comparison.gain)
    summary, found = judged[best].summary, judged[best].comparison
    before, after, groups = paired_scores(summary.held_out.evidence, summary.primary, BASE, TUNED)
    level = 1 - (1 - found.paired.interval.level) / len(runs)
    again = compare_paired(before, after, groups, level=level)
    return Best(run=best, runs=len(runs), difference=again.difference, interval=_bounds(again.interval))


def _recipes(judged: Mapping[int, Judged], runs: Sequence[int], place: int) -> Iterator[Recipe]:
    """Of one group: runs whose own training made what was judged, and that answered everything."""
    same: dict[str, list[int]] = {}
    for run in runs:
        if judged[run].summary.manifest.tuning is not None and not judged[run].stopped_early:
            same.setdefault(_without_seed(judged[run]), []).append(run)
    for members in same.values():
        by_seed: dict[int, int] = {}
        for run in members:
            by_seed.setdefault(_seed(judged[run]), run)
        recipe = _recipe(judged, by_seed, place, [run for run in members if run not in by_seed.values()])
        if recipe is not None:
            yield recipe


def _recipe(
    judged: Mapping[int, Judged], by_seed: Mapping[int, int], place: int, repeated: Sequence[int]
) -> Recipe | None:
    if len(by_seed) < 2:
        return None
    of_seed = [judged[run].summary for run in by_seed.values()]
    evidence = of_seed[0].held_out.evidence
    differences = np.stack(
        [
            one.held_out.evidence.scores(TUNED, one.primary) - one.held_out.evidence.scores(BASE, one.primary)
            for one in of_seed
        ]
    )
    scored = np.isfinite(differences).all(axis=0)
    if len(np.unique(evidence.groups[scored])) < 2:
        return None
    level = of_seed[0].manifest.experiment.judge.confidence
    found = compare_seeds(list(differences[:, scored]), evidence.groups[scored], level=level)
    return Recipe(
        group=place,
        runs=tuple(by_seed.values()),
        seeds=tuple(by_seed),
        seed_count=found.seeds,
        repeated=tuple(repeated),
        n=found.n,
        groups=found.groups,
        seed_differences=found.seed_differences,
        spread=max(found.seed_differences) - min(found.seed_differences),
        difference=found.difference,
        interval=None if found.interval is None else _bounds(found.interval),
        p_value=found.p_value,
        seed_share=found.seed_share,
    )


def _without_seed(judged: Judged) -> str:
    """What two runs of a recipe share: the experiment but for its name and seed, the base, and what was asked."""
    manifest = judged.summary.manifest
    values = manifest.experiment.model_dump(mode="json", exclude={"name": True, "tune": {"seed"}})
    judgement = manifest.judgement
    asked = None if judgement is None else judgement.prompts_hash
    return stable_hash({"experiment": values, "base": _base_sha256(judged), "prompts": asked})


def _base_sha256(judged: Judged) -> str | None:
    judgement = judged.summary.manifest.judgement
    return None if judgement is None else judgement.base_sha256


def _seed(judged: Judged) -> int:
    return judged.summary.manifest.experiment.tune.seed
