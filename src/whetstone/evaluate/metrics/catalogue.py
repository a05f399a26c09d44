"""All metrics, in the order in which reports show them."""

from whetstone.evaluate.metrics.corpus_metric import CorpusMetric
from whetstone.evaluate.metrics.diversity import DISTINCT_1, DISTINCT_2, SELF_BLEU
from whetstone.evaluate.metrics.edit_similarity import EDIT_SIMILARITY
from whetstone.evaluate.metrics.edits import COPY_RATE, OVER_EDIT, UNDER_EDIT
from whetstone.evaluate.metrics.errant_f05 import ERRANT_F05, errant_is_installed, require_errant
from whetstone.evaluate.metrics.exact_match import EXACT_MATCH, EXACT_MATCH_LENIENT
from whetstone.evaluate.metrics.form import JSON_VALID, MEETS_REQUIREMENTS, PATTERN
from whetstone.evaluate.metrics.gleu import CORPUS_GLEU, GLEU
from whetstone.evaluate.metrics.length import LENGTH_TOKENS, LENGTH_WORDS
from whetstone.evaluate.metrics.likelihood import BITS_PER_BYTE, NLL
from whetstone.evaluate.metrics.manner import CLARIFICATION, REFUSAL
from whetstone.evaluate.metrics.metric import Metric
from whetstone.evaluate.metrics.preferred import PREFERRED_METRIC
from whetstone.evaluate.metrics.repetition import REPETITION
from whetstone.evaluate.metrics.rouge import ROUGE_L
from whetstone.evaluate.metrics.sacre import BLEU, CHRF, CORPUS_BLEU, CORPUS_CHRF
from whetstone.evaluate.metrics.shape import EMPTY, EXTRA_TEXT, TOO_SHORT, TRUNCATED
from whetstone.evaluate.metrics.special_tokens import SPECIAL_TOKEN_LEAK
from whetstone.evaluate.metrics.tests_passed import PASS_AT_1, PASS_AT_5, PASS_AT_10, PASSES_TESTS

__all__ = ["CORPUS_METRICS", "DEFAULT_METRICS", "METRICS", "available_metrics", "metric"]

DEFAULT_METRICS: tuple[str, ...] = (
    "exact_match",
    "over_edit",
    "copy_rate",
    "extra_text",
    "empty",
    "too_short",
    "truncated",
    "length_words",
)
"""What held-out examples are scored with; they take microseconds and mean something for every task with references."""

METRICS: tuple[Metric, ...] = (
    EXACT_MATCH,
    EXACT_MATCH_LENIENT,
    PASSES_TESTS,
    PASS_AT_1,
    PASS_AT_5,
    PASS_AT_10,
    MEETS_REQUIREMENTS,
    JSON_VALID,
    PATTERN,
    PREFERRED_METRIC,
    GLEU,
    ERRANT_F05,
    BLEU,
    CHRF,
    ROUGE_L,
    EDIT_SIMILARITY,
    NLL,
    BITS_PER_BYTE,
    OVER_EDIT,
    UNDER_EDIT,
    COPY_RATE,
    EXTRA_TEXT,
    EMPTY,
    TOO_SHORT,
    TRUNCATED,
    REPETITION,
    SPECIAL_TOKEN_LEAK,
    REFUSAL,
    CLARIFICATION,
    LENGTH_WORDS,
    LENGTH_TOKENS,
    DISTINCT_1,
    DISTINCT_2,
    SELF_BLEU,
)
"""Every metric; first what is right, then what is like it, then what an answer looks like."""

CORPUS_METRICS: tuple[CorpusMetric, ...] = (CORPUS_GLEU, CORPUS_BLEU, CORPUS_CHRF)
"""Those that score all answers of an arm together."""


def metric(name: str) -> Metric:
    """The metric of that name; experiments can only name metrics that exist.

    Raises:
        UserError: It needs an optional package that is not installed.
    """
    if name == ERRANT_F05.name:
        require_errant()
    return next(candidate for candidate in METRICS if candidate.name == name)


def available_metrics() -> tuple[Metric, ...]:
    """Those that can be measured with the packages that are installed."""
    if errant_is_installed():
        return METRICS
    return tuple(candidate for candidate in METRICS if candidate is not ERRANT_F05)
