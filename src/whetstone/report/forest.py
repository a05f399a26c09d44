"""The layout of the forest plot: which rows, on which scale; the page and the charts draw it."""

import math
from dataclasses import dataclass
from typing import Literal

from whetstone.evaluate.metrics.metric import Metric
from whetstone.evaluate.sample import TUNED
from whetstone.report.suite_summary import BASELINES
from whetstone.report.summary import Summary
from whetstone.stats.comparison import Comparison

__all__ = ["Effect", "Forest", "forest_of"]

_MOST_TICKS = 8
_LEAST_SPAN = 0.01


@dataclass(frozen=True, slots=True)
class Effect:
    """One row of the forest plot.

    Attributes:
        metric: What was scored.
        candidate: The arm compared.
        baseline: The arm compared with.
        comparison: None when not measured.
        margin: The loss that the rule tolerates here; None when the rule says nothing.
    """

    metric: Metric
    candidate: str
    baseline: str
    comparison: Comparison | None
    margin: float | None

    @property
    def on_scale(self) -> bool:
        """Whether it is measured, and in points, as the scale is."""
        return self.comparison is not None and self.metric.unit in ("share", "score")

    @property
    def direction(self) -> Literal["better", "worse", "unclear"]:
        """On which side of zero the whole interval lies."""
        if self.comparison is None or self.comparison.gain_low <= 0 <= self.comparison.gain_high:
            return "unclear"
        return "better" if self.comparison.gain_low > 0 else "worse"


@dataclass(frozen=True, slots=True)
class Forest:
    """Rows and scale of the forest plot, in gains: right of zero is better whatever the metric.

    Attributes:
        effects: The tuned arm, by baseline, then by metric.
        variants: The arms beside the four, each against the arm that it is a variant of.
        low: The left end of the scale.
        high: The right end of the scale.
        ticks: Round numbers between the ends, zero among them.
    """

    effects: tuple[Effect, ...]
    variants: tuple[Effect, ...]
    low: float
    high: float
    ticks: tuple[float, ...]

    def position(self, gain: float) -> float:
        """Where a gain lies on the scale, in percent of its width."""
        return 100 * (gain - self.low) / (self.high - self.low)


def forest_of(summary: Summary) -> Forest:
    """Lays out the tuned arm against each baseline on every metric that has a better direction."""
    tolerated = summary.manifest.experiment.judge.must_not_regress
    margins: dict[tuple[str, str], float] = {(rule.metric, rule.over): rule.margin for rule in tolerated}
    effects = tuple(
        Effect(metric, TUNED, over, summary.comparison(metric.name, over), margins.get((metric.name, over)))
        for over in BASELINES
        for metric in summary.held_out.metrics
        if metric.direction != "neutral"
    )
    variants = tuple(
        Effect(summary.primary, arm.name, arm.baseline, summary.variant(arm.name), None)
        for arm in summary.manifest.experiment.judge.arms
    )
    measured = [one.comparison for one in (*effects, *variants) if one.comparison is not None and one.on_scale]
    margins_shown = [-effect.margin for effect in effects if effect.margin is not None and effect.on_scale]
    low = min([-_LEAST_SPAN, *margins_shown, *(found.gain_low for found in measured)])
    high = max([_LEAST_SPAN, *(found.gain_high for found in measured)])
    padding = 0.04 * (high - low)
    low, high = low - padding, high + padding
    step = _round_step(high - low)
    ticks = tuple(step * i for i in range(math.ceil(low / step), math.floor(high / step) + 1))
    return Forest(effects, variants, low, high, ticks)


def _round_step(span: float) -> float:
    """The smallest of 1, 2 and 5 times a power of ten that divides a span into few enough ticks."""
    power = 10.0 ** math.floor(math.log10(span / _MOST_TICKS))
    return next(factor * power for factor in (1, 2, 5, 10) if span / (factor * power) <= _MOST_TICKS)
