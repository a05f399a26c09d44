"""Everything a report says, computed from the rows of a run and from nothing else.

What only training could measure, its time and what it left of the base, is taken from the run's record.

Renderers take a :class:`Summary` and add no number of their own, so a number is right in all of them or in none.
"""

import math
from dataclasses import dataclass
from typing import Any

from whetstone.evaluate.evidence import Evidence
from whetstone.evaluate.metrics.catalogue import metric
from whetstone.evaluate.metrics.metric import Metric
from whetstone.evaluate.sample import ARMS, BASE, TUNED
from whetstone.evaluate.sanity import Sanity
from whetstone.files import read_jsonl
from whetstone.judge_section import HELD_OUT, Judge
from whetstone.report.listing import Listing, choose
from whetstone.report.suite_summary import SuiteSummary, summarise_suite
from whetstone.report.tradeoff import TradeOff, trade_off
from whetstone.run import Manifest, RetentionRecord, Run
from whetstone.stats.comparison import Comparison, compare_arms
from whetstone.verdict.decide import Verdict
from whetstone.verdict.of_run import read_run

__all__ = ["Summary", "summarise"]


@dataclass(frozen=True, slots=True, eq=False)
class Summary:
    """What the report says.

    Attributes:
        manifest: The run; without what its training did when the candidate was trained elsewhere.
        verdict: The rule's outcome and its gates.
        held_out: The experiment's own examples.
        suites: What was asked beside them.
        sanity: What was tried beside asking; None when nothing was, or for another judgement.
        without_leaks: Tuned against base on the primary metric, without the held-out examples that training saw; None
            where there are none, or too few others.
        listing: Which examples the page lists with all answers.
        training: The rows of ``metrics.jsonl``; none when the candidate was trained elsewhere.
    """

    manifest: Manifest
    verdict: Verdict
    held_out: SuiteSummary
    suites: tuple[SuiteSummary, ...]
    sanity: Sanity | None
    without_leaks: Comparison | None
    listing: Listing
    training: tuple[dict[str, Any], ...]

    @property
    def arm_names(self) -> tuple[str, ...]:
        """The usual arms, then those beside them."""
        return (*ARMS, *(arm.name for arm in self.manifest.experiment.judge.arms))

    @property
    def primary(self) -> Metric:
        """What the first gate on the held-out examples looks at."""
        return self.held_out.primary

    @property
    def all_suites(self) -> tuple[SuiteSummary, ...]:
        """The held-out examples, then the suites beside them."""
        return (self.held_out, *self.suites)

    @property
    def tradeoff(self) -> TradeOff:
        """Quality against latency and memory, on the held-out examples."""
        return trade_off(self.held_out, self.arm_names)

    def comparison(self, metric_name: str, baseline: str) -> Comparison | None:
        """Tuned against ``baseline`` on one metric of the held-out examples, if it was measured."""
        return self.held_out.comparison(metric_name, baseline)

    def variant(self, arm: str) -> Comparison | None:
        """An arm beside the usual ones against the arm that it is a variant of, if it was measured."""
        return next((found for found in self.held_out.variants if found.candidate == arm), None)

    @property
    def unguarded_losses(self) -> tuple[tuple[str, Comparison], ...]:
        """Suites and metrics on which the tuned arm is worse than the base beyond its interval, and no gate looks."""
        guarded = {(rule.suite, rule.metric) for rule in self.manifest.experiment.judge.rules()}
        return tuple(
            (suite.name, found)
            for suite in self.all_suites
            for found in suite.comparisons
            if found.baseline == BASE and found.gain_high < 0 and (suite.name, found.metric.name) not in guarded
        )

    @property
    def forgotten(self) -> tuple[RetentionRecord, ...]:
        """Texts beside the task that are predicted worse than before, beyond the interval, and no gate looks."""
        if self.manifest.experiment.judge.retention is not None:
            return ()
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


def summarise(run: Run, later_rule: Judge | None = None) -> Summary:
    """Computes the summary of a run from its folder.

    Args:
        run: Judged.
        later_rule: Applied instead of the rule that was frozen; the verdict says so.

    Raises:
        UserError: There are no samples, or rows are damaged.
    """
    read = read_run(run, later_rule)
    manifest, evidence = read.manifest, read.evidence
    judge = later_rule or manifest.experiment.judge
    records = manifest.judgement.suites if manifest.judgement is not None else ()
    primary = _held_out_primary(manifest.experiment.judge, evidence[HELD_OUT])
    held_out, *suites = (
        summarise_suite(name, about, evidence[name], one, judge.arms, judge.confidence)
        for name, about, one in (
            (HELD_OUT, "The experiment's own examples that training did not see.", primary),
            *((record.name, record.about, _primary(evidence[record.name])) for record in records),
        )
    )
    return Summary(
        manifest=manifest,
        verdict=read.verdict(later_rule),
        held_out=held_out,
        suites=tuple(suites),
        sanity=read.sanity,
        without_leaks=_without_leaks(evidence[HELD_OUT], read.sanity, primary, judge.confidence),
        listing=choose((held_out, *suites)),
        training=() if read.trained_elsewhere else _training(run),
    )


def _training(run: Run) -> tuple[dict[str, Any], ...]:
    return tuple(read_jsonl(run.metrics_path)) if run.metrics_path.exists() else ()


def _without_leaks(evidence: Evidence, sanity: Sanity | None, primary: Metric, confidence: float) -> Comparison | None:
    if sanity is None or not sanity.leaked or not {BASE, TUNED} <= evidence.arms.keys():
        return None
    without = evidence.places(set(sanity.leaked))
    return compare_arms(evidence, primary, BASE, TUNED, confidence=confidence, without=without)


def _held_out_primary(judge: Judge, evidence: Evidence) -> Metric:
    """What the first gate on the held-out examples looks at."""
    gated = [rule.metric for rule in judge.must_improve if rule.suite == HELD_OUT]
    return metric(gated[0]) if gated else _primary(evidence)


def _primary(evidence: Evidence) -> Metric:
    """The first metric of a suite that can be won; the first of all where none can."""
    return next((one for one in evidence.metrics if one.direction != "neutral"), evidence.metrics[0])
