"""What a report says of one suite: every arm on every metric, the tuned arm against the others, and what flipped."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from whetstone.data.example import Example
from whetstone.evaluate.evidence import Evidence
from whetstone.evaluate.metrics.catalogue import CORPUS_METRICS
from whetstone.evaluate.metrics.metric import Metric
from whetstone.evaluate.preference_rows import chosen, read_preferences
from whetstone.evaluate.sample import BASE, BASE_AGAIN, COPY_INPUT, FEW_SHOT, TUNED, Sample
from whetstone.evaluate.scoring import AnswerColumns
from whetstone.judge_section import ExtraArm
from whetstone.report.categories import CategoryTable, category_table
from whetstone.report.difference import similarity
from whetstone.stats.agreement import krippendorff_alpha
from whetstone.stats.comparison import Comparison, compare_arms
from whetstone.stats.paired import Interval, mean_interval

__all__ = [
    "BASELINES",
    "ArmSummary",
    "Change",
    "Estimate",
    "Speed",
    "SuiteSummary",
    "summarise_suite",
]

BASELINES = (BASE, COPY_INPUT, FEW_SHOT)
"""What the tuned arm is compared with."""

_CORPUS_AT_MOST = 20_000
"""Examples whose answers are scored together: they are all in memory then."""

_RANKED_AT_MOST = 2_000
"""Broken examples that are put in order, the worst first; of more than that, the first so many."""


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


@dataclass(frozen=True, slots=True, eq=False)
class SuiteSummary:
    """One suite.

    Attributes:
        name: Of the suite.
        about: What it measures.
        evidence: Its rows.
        metrics: What it is scored with.
        primary: What stands for it where there is room for one metric.
        arms: In the order of the design: copy-input, base, base-again, few-shot, tuned, then those beside them; only
            those that were measured.
        comparisons: Tuned against base, copy-input and few-shot, on every metric that has a better direction.
        variants: Each arm beside the usual ones against the arm that it is a variant of, on the primary metric; only
            those that were measured.
        noise: Base again against base on the primary metric; None when not measured.
        fixed: Examples that the base got wrong and the tuned arm right, as places in the evidence.
        broken: Right by the base, wrong by the tuned arm.
        categories: The primary metric by category.
        corpus: By corpus metric and arm, the score of all (first) answers together, to be set beside published numbers;
            empty where no metric asks for it, or there are too many answers.
        agreement: Krippendorff's alpha of what graders chose, over both orders and all graders; None where none was
            asked, or all chose alike.
    """

    name: str
    about: str
    evidence: Evidence
    metrics: tuple[Metric, ...]
    primary: Metric
    arms: tuple[ArmSummary, ...]
    comparisons: tuple[Comparison, ...]
    variants: tuple[Comparison, ...]
    noise: Comparison | None
    fixed: tuple[int, ...]
    broken: tuple[int, ...]
    categories: CategoryTable
    corpus: dict[str, dict[str, float | None]]
    agreement: float | None

    def comparison(self, metric_name: str, baseline: str) -> Comparison | None:
        """Tuned against ``baseline`` on one metric, if it was measured."""
        for found in self.comparisons:
            if found.metric.name == metric_name and found.baseline == baseline:
                return found
        return None

    def change(self, index: int) -> Change:
        """A fixed or broken example with its answers, read from disk."""
        evidence = self.evidence
        return Change(evidence.example(index), evidence.answers(BASE, index)[0], evidence.answers(TUNED, index)[0])


def summarise_suite(
    name: str, about: str, evidence: Evidence, primary: Metric, extra: Sequence[ExtraArm], confidence: float
) -> SuiteSummary:
    """Computes all numbers of a suite.

    Args:
        name: Of the suite.
        about: What it measures.
        evidence: Its rows.
        primary: What stands for it where there is room for one metric.
        extra: The arms beside the usual ones.
        confidence: Of all intervals.
    """
    fixed, broken = _changes(evidence)
    return SuiteSummary(
        name=name,
        about=about,
        evidence=evidence,
        metrics=evidence.metrics,
        primary=primary,
        arms=tuple(_arm(evidence, arm, confidence) for arm in evidence.arms),
        comparisons=_comparisons(evidence, confidence),
        variants=_variants(evidence, primary, extra, confidence),
        noise=_compared(evidence, primary, BASE, BASE_AGAIN, confidence),
        fixed=fixed,
        broken=broken,
        categories=category_table(evidence, primary, confidence),
        corpus=_corpus(evidence),
        agreement=_agreement(evidence),
    )


def _agreement(evidence: Evidence) -> float | None:
    """A grader who likes what stands first chooses another arm in each order, and agrees with nobody."""
    chosen_of: dict[str, list[str]] = {}
    for one in read_preferences(evidence.folder):
        chosen_of.setdefault(one.example, []).append(chosen(one) or one.choice)
    return krippendorff_alpha(list(chosen_of.values()))


def _corpus(evidence: Evidence) -> dict[str, dict[str, float | None]]:
    """The scores of all answers together, beside the metrics that score them one by one."""
    names = {f"corpus_{one.name}" for one in evidence.metrics}
    wanted = [one for one in CORPUS_METRICS if one.name in names]
    if not wanted or evidence.count > _CORPUS_AT_MOST:
        return {}
    places = range(evidence.count)
    examples = list(evidence.examples_at(places))
    pairs = {arm: list(zip(examples, evidence.first_answers(arm, places), strict=True)) for arm in evidence.arms}
    return {one.name: {arm: one.score(answered) for arm, answered in pairs.items()} for one in wanted}


def _arm(evidence: Evidence, arm: str, confidence: float) -> ArmSummary:
    return ArmSummary(
        arm=arm,
        scores={one.name: _estimate(evidence, arm, one, confidence) for one in evidence.metrics},
        speed=_speed(evidence.arms[arm]),
    )


def _estimate(evidence: Evidence, arm: str, metric: Metric, confidence: float) -> Estimate | None:
    scores = evidence.scores(arm, metric)
    applies = np.isfinite(scores)
    if not applies.any():
        return None
    scores, groups = scores[applies], evidence.groups[applies]
    distinct = len(np.unique(groups))
    interval = mean_interval(scores, groups, level=confidence) if distinct > 1 else None
    return Estimate(float(scores.mean()), len(scores), distinct, interval)


def _speed(found: AnswerColumns) -> Speed | None:
    if not len(found.end_s) or not np.isfinite(found.end_s).all():
        return None
    longest = np.zeros(int(found.batch.max()) + 1)
    np.maximum.at(longest, found.batch, found.end_s)
    if not longest.sum():
        return None
    counted = np.isfinite(found.new_tokens).all()
    return Speed(
        tokens_per_s=float(found.new_tokens.sum() / longest.sum()) if counted else None,
        latency_p50_s=float(np.median(found.end_s)),
        first_token_p50_s=float(np.median(found.first_token_s)),
        memory_bytes=int(found.memory_bytes.max()),
    )


def _comparisons(evidence: Evidence, confidence: float) -> tuple[Comparison, ...]:
    found = [
        _compared(evidence, one, baseline, TUNED, confidence)
        for one in evidence.metrics
        if one.direction != "neutral"
        for baseline in BASELINES
    ]
    return tuple(comparison for comparison in found if comparison is not None)


def _variants(
    evidence: Evidence, primary: Metric, extra: Sequence[ExtraArm], confidence: float
) -> tuple[Comparison, ...]:
    found = [_compared(evidence, primary, arm.baseline, arm.name, confidence) for arm in extra]
    return tuple(comparison for comparison in found if comparison is not None)


def _compared(
    evidence: Evidence, metric: Metric, baseline: str, candidate: str, confidence: float
) -> Comparison | None:
    if not {baseline, candidate} <= evidence.arms.keys():
        return None
    return compare_arms(evidence, metric, baseline, candidate, confidence=confidence)


def _changes(evidence: Evidence) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The examples whose exact match differs between base and tuned, fixed and broken."""
    exact = next((one for one in evidence.metrics if one.name == "exact_match"), None)
    if exact is None or not {BASE, TUNED} <= evidence.arms.keys():
        return (), ()
    before, after = evidence.scores(BASE, exact), evidence.scores(TUNED, exact)
    fixed, broken = (np.flatnonzero(after > before).tolist(), np.flatnonzero(after < before).tolist())
    head = broken[:_RANKED_AT_MOST]
    read = zip(head, evidence.examples_at(head), evidence.first_answers(TUNED, head), strict=True)
    nearness = {index: similarity(answer.text, example.references) for index, example, answer in read}
    return tuple(fixed), (*sorted(head, key=nearness.__getitem__), *broken[_RANKED_AT_MOST:])
