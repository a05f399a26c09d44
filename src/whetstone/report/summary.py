"""Everything a report says, computed from the rows of a run and from nothing else.

What only training could measure, its time and what it left of the base, is taken from the run's record.

Renderers take a :class:`Summary` and add no number of their own, so a number is right in all of them or in none.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from whetstone.data.example import Example
from whetstone.evaluate.evidence import Evidence, load_evidence
from whetstone.evaluate.metrics.catalogue import METRICS, metric
from whetstone.evaluate.metrics.metric import Metric
from whetstone.evaluate.sample import ARMS, BASE, BASE_AGAIN, COPY_INPUT, TUNED, Sample
from whetstone.files import read_jsonl
from whetstone.judge_section import Judge
from whetstone.report.difference import similarity
from whetstone.run import Manifest, RetentionRecord, Run
from whetstone.stats.comparison import Comparison, compare_arms
from whetstone.stats.paired import Interval, mean_interval
from whetstone.verdict import Verdict, decide

__all__ = ["ArmSummary", "Change", "Estimate", "Speed", "Summary", "summarise"]

_BASELINES = (BASE, COPY_INPUT)


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean score with its interval.

    Attributes:
        mean: Over the examples to which the metric applies.
        n: How many those are.
        groups: How many groups they form.
        interval: None with fewer than two groups.
    """

    mean: float
    n: int
    groups: int
    interval: Interval | None


@dataclass(frozen=True, slots=True)
class Speed:
    """How fast an arm answered, and in how much memory.

    Attributes:
        tokens_per_s: Generated tokens over the summed time of the batches; None where a server did not count them.
        latency_p50_s: Median time from a batch's start to the end of one answer in it.
        first_token_p50_s: Median time from a batch's start to the first token.
        memory_bytes: The most that a batch took on CUDA; the most that the process had taken by then elsewhere.
    """

    tokens_per_s: float | None
    latency_p50_s: float
    first_token_p50_s: float
    memory_bytes: int


@dataclass(frozen=True, slots=True)
class ArmSummary:
    """One row of the table of arms; ``scores`` holds None where a metric applies to no example."""

    arm: str
    scores: dict[str, Estimate | None]
    speed: Speed | None


@dataclass(frozen=True, slots=True)
class Change:
    """An example that the candidate fixed or broke: its exact match differs from the baseline's."""

    example: Example
    baseline: Sample
    candidate: Sample


@dataclass(frozen=True, slots=True)
class Summary:
    """What the report says.

    Attributes:
        manifest: The run; without what its training did when the candidate was trained elsewhere.
        verdict: The rule's outcome and its gates.
        arms: In the order of the design: copy-input, base, base-again, tuned, then those beside them; only those that
            were measured.
        comparisons: Tuned against base and copy-input, on every metric that has a better direction.
        variants: Each arm beside the four against the arm that it is a variant of, on the primary metric; only those
            that were measured.
        noise: Base again against base on the primary metric; None when not measured.
        fixed: Wrong by the base, right by the tuned arm.
        broken: Right by the base, wrong by the tuned arm; worst (furthest from the references) first.
        training: The rows of ``metrics.jsonl``; none when the candidate was trained elsewhere.
    """

    manifest: Manifest
    verdict: Verdict
    evidence: Evidence
    arms: tuple[ArmSummary, ...]
    comparisons: tuple[Comparison, ...]
    variants: tuple[Comparison, ...]
    noise: Comparison | None
    fixed: tuple[Change, ...]
    broken: tuple[Change, ...]
    training: tuple[dict[str, Any], ...]

    def comparison(self, metric_name: str, baseline: str) -> Comparison | None:
        """Tuned against ``baseline`` on one metric, if it was measured."""
        for found in self.comparisons:
            if found.metric.name == metric_name and found.baseline == baseline:
                return found
        return None

    @property
    def arm_names(self) -> tuple[str, ...]:
        """The four arms, then those beside them."""
        return (*ARMS, *(arm.name for arm in self.manifest.experiment.judge.arms))

    @property
    def primary(self) -> Metric:
        """What the first gate looks at."""
        return metric(self.manifest.experiment.judge.must_improve[0].metric)

    def variant(self, arm: str) -> Comparison | None:
        """An arm beside the four against the arm that it is a variant of, if it was measured."""
        return next((found for found in self.variants if found.candidate == arm), None)

    @property
    def unguarded_losses(self) -> tuple[Comparison, ...]:
        """Metrics on which the tuned arm is worse than the base beyond its interval, and which no gate looks at."""
        guarded = {rule.metric for rule in self.manifest.experiment.judge.rules()}
        return tuple(
            found
            for found in self.comparisons
            if found.baseline == BASE and found.gain_high < 0 and found.metric.name not in guarded
        )

    @property
    def forgotten(self) -> tuple[RetentionRecord, ...]:
        """Texts beside the task that the tuned weights predict worse than the base, beyond the interval."""
        return tuple(found for found in self.manifest.retention if found.low is not None and found.low > 0)

    @property
    def losses(self) -> tuple[dict[str, float], ...]:
        """The points of the training curve: a step with its ``loss``, or with its ``validation_loss``."""
        return tuple(
            {"step": row["step"], key: row[key]}
            for row in self.training
            for key in ("loss", "validation_loss")
            if row.get(key) is not None and math.isfinite(row[key])
        )


def summarise(run: Run) -> Summary:
    """Computes the summary of a run from its folder.

    Raises:
        UserError: There are no samples, or rows are damaged.
    """
    manifest = run.manifest()
    foreign = _judged_other_weights(manifest)
    if foreign:
        # The run's own steps and losses are not those of the weights that were judged.
        manifest = manifest.model_copy(update={"tuning": None, "settings": None, "retention": ()})
    judge = manifest.experiment.judge
    evidence, confidence = load_evidence(run.samples, [arm.name for arm in judge.arms]), judge.confidence
    fixed, broken = _changes(evidence)
    return Summary(
        manifest=manifest,
        verdict=decide(evidence, manifest),
        evidence=evidence,
        arms=tuple(_arm(evidence, arm, confidence) for arm in evidence.samples),
        comparisons=_comparisons(evidence, confidence),
        variants=_variants(evidence, judge),
        noise=_noise(evidence, manifest),
        fixed=fixed,
        broken=broken,
        training=tuple(read_jsonl(run.metrics_path)) if run.metrics_path.exists() and not foreign else (),
    )


def _judged_other_weights(manifest: Manifest) -> bool:
    judgement, tuning, settings = manifest.judgement, manifest.tuning, manifest.settings
    if judgement is None or tuning is None:
        return False
    # An adapter that was trained on a quantised base is another model on the whole one.
    moved = settings is not None and settings.quantised and "bitsandbytes" not in judgement.packages
    return moved or judgement.candidate.sha256 != tuning.tuned.sha256


def _arm(evidence: Evidence, arm: str, confidence: float) -> ArmSummary:
    return ArmSummary(
        arm=arm,
        scores={candidate.name: _estimate(evidence, arm, candidate.name, confidence) for candidate in METRICS},
        speed=_speed(evidence.samples[arm]),
    )


def _estimate(evidence: Evidence, arm: str, name: str, confidence: float) -> Estimate | None:
    scored = [
        (score, example.group)
        for score, example in zip(evidence.scores(arm, metric(name)), evidence.examples, strict=True)
        if score is not None
    ]
    if not scored:
        return None
    scores = np.array([score for score, _ in scored])
    groups = [group for _, group in scored]
    distinct = len(set(groups))
    interval = mean_interval(scores, groups, level=confidence) if distinct > 1 else None
    return Estimate(float(scores.mean()), len(scores), distinct, interval)


def _speed(samples: Sequence[Sample]) -> Speed | None:
    batches: dict[int, float] = {}
    latencies, first_tokens = [], []
    for sample in samples:
        if sample.first_token_s is None or sample.end_s is None:
            return None
        batches[sample.batch] = max(sample.end_s, batches.get(sample.batch, 0.0))
        latencies.append(sample.end_s)
        first_tokens.append(sample.first_token_s)
    if not sum(batches.values()):
        return None
    tokens = [sample.new_tokens for sample in samples if sample.new_tokens is not None]
    return Speed(
        tokens_per_s=sum(tokens) / sum(batches.values()) if len(tokens) == len(samples) else None,
        latency_p50_s=float(np.median(latencies)),
        first_token_p50_s=float(np.median(first_tokens)),
        memory_bytes=max(sample.memory_bytes or 0 for sample in samples),
    )


def _comparisons(evidence: Evidence, confidence: float) -> tuple[Comparison, ...]:
    if TUNED not in evidence.samples:
        return ()
    found = [
        compare_arms(evidence, candidate, baseline, TUNED, confidence=confidence)
        for candidate in METRICS
        if candidate.direction != "neutral"
        for baseline in _BASELINES
        if baseline in evidence.samples
    ]
    return tuple(comparison for comparison in found if comparison is not None)


def _variants(evidence: Evidence, judge: Judge) -> tuple[Comparison, ...]:
    primary = metric(judge.must_improve[0].metric)
    found = [
        compare_arms(evidence, primary, arm.baseline, arm.name, confidence=judge.confidence)
        for arm in judge.arms
        if {arm.name, arm.baseline} <= evidence.samples.keys()
    ]
    return tuple(comparison for comparison in found if comparison is not None)


def _noise(evidence: Evidence, manifest: Manifest) -> Comparison | None:
    judge = manifest.experiment.judge
    if BASE not in evidence.samples or BASE_AGAIN not in evidence.samples:
        return None
    primary = metric(judge.must_improve[0].metric)
    return compare_arms(evidence, primary, BASE, BASE_AGAIN, confidence=judge.confidence)


def _changes(evidence: Evidence) -> tuple[tuple[Change, ...], tuple[Change, ...]]:
    """Splits the examples whose exact match differs between base and tuned into fixed and broken."""
    if BASE not in evidence.samples or TUNED not in evidence.samples:
        return (), ()
    exact = metric("exact_match")
    rows = zip(evidence.examples, evidence.samples[BASE], evidence.samples[TUNED], strict=True)
    before, after = evidence.scores(BASE, exact), evidence.scores(TUNED, exact)
    fixed: list[Change] = []
    broken: list[Change] = []
    for (example, baseline, candidate), old, new in zip(rows, before, after, strict=True):
        if old != new:
            (fixed if new else broken).append(Change(example, baseline, candidate))
    broken.sort(key=lambda change: similarity(change.candidate.text, change.example.references))
    return tuple(fixed), tuple(broken)
