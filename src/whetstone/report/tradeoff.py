"""Quality against latency and memory: which arms no other arm beats in both quality and latency."""

from dataclasses import dataclass, replace

from whetstone.evaluate.metrics.metric import Metric
from whetstone.report.suite_summary import SuiteSummary

__all__ = ["TradeOff", "TradeOffPoint", "trade_off"]


@dataclass(frozen=True, slots=True)
class TradeOffPoint:
    """An arm whose speed was measured.

    Attributes:
        arm: Its name.
        quality: Its mean on the primary metric.
        latency_p50_s: Median time to the end of an answer.
        memory_bytes: The most that it took; None where that was not measured.
        beaten_by: The best arm that is no worse in either and better in one of quality and latency; None for an arm of
            the Pareto front.
    """

    arm: str
    quality: float
    latency_p50_s: float
    memory_bytes: int | None
    beaten_by: str | None = None


@dataclass(frozen=True, slots=True)
class TradeOff:
    """All arms of a suite.

    Attributes:
        metric: What quality is.
        points: The fastest first.
        unmeasured: The arms whose quality or speed was not measured.
    """

    metric: Metric
    points: tuple[TradeOffPoint, ...]
    unmeasured: tuple[str, ...]

    @property
    def front(self) -> tuple[TradeOffPoint, ...]:
        """The points that none beats, the fastest first."""
        return tuple(point for point in self.points if point.beaten_by is None)


def trade_off(suite: SuiteSummary, arms: tuple[str, ...]) -> TradeOff:
    """Sets the arms of a suite against each other.

    Args:
        suite: The held-out examples.
        arms: All that the experiment names, measured or not.
    """
    metric = suite.primary
    points = []
    for found in suite.arms:
        score = found.scores[metric.name]
        if score is not None and found.speed is not None:
            memory = found.speed.memory_bytes or None
            points.append(TradeOffPoint(found.arm, score.mean, found.speed.latency_p50_s, memory))
    sign = -1 if metric.direction == "lower" else 1
    points.sort(key=lambda point: (point.latency_p50_s, -sign * point.quality))
    measured = {point.arm for point in points}
    return TradeOff(
        metric=metric,
        points=tuple(replace(point, beaten_by=_winner(point, points, sign)) for point in points),
        unmeasured=tuple(arm for arm in arms if arm not in measured),
    )


def _winner(point: TradeOffPoint, points: list[TradeOffPoint], sign: int) -> str | None:
    """The best of the arms that beat a point."""
    here = (sign * point.quality, -point.latency_p50_s)
    winners = []
    for other in points:
        there = (sign * other.quality, -other.latency_p50_s)
        if there != here and there[0] >= here[0] and there[1] >= here[1]:
            winners.append((there, other.arm))
    return max(winners)[1] if winners else None
