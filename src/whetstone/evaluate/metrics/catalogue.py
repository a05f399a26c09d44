"""All metrics, in the order in which reports show them."""

from whetstone.evaluate.metrics.correctness import COPY_RATE, EXACT_MATCH, OVER_EDIT
from whetstone.evaluate.metrics.metric import Metric
from whetstone.evaluate.metrics.shape import EMPTY, EXTRA_TEXT, LENGTH_WORDS, TOO_SHORT, TRUNCATED

__all__ = ["DEFAULT_METRICS", "METRICS", "metric"]

METRICS: tuple[Metric, ...] = (
    EXACT_MATCH,
    OVER_EDIT,
    COPY_RATE,
    EXTRA_TEXT,
    EMPTY,
    TOO_SHORT,
    TRUNCATED,
    LENGTH_WORDS,
)

DEFAULT_METRICS = tuple(metric.name for metric in METRICS)


def metric(name: str) -> Metric:
    """The metric of that name; experiments can only name metrics that exist."""
    return next(candidate for candidate in METRICS if candidate.name == name)
