"""What Prometheus is told: times, tokens and outcomes of answers, beside how the server is.

Names follow https://prometheus.io/docs/practices/naming/: seconds and bytes, and counters end in ``_total``. Labels
have few values, whatever clients send: a model that is not served is ``unknown``, and so is a backend that is not one
of the server's.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from operator import attrgetter

from fastapi import APIRouter, Header, Response
from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.openmetrics import exposition as openmetrics

from whetstone.serve.answered import Answered
from whetstone.serve.backend import Backend
from whetstone.serve.gate.admission_state import AdmissionState
from whetstone.serve.observe.drift import DriftWatch
from whetstone.serve.observe.gauges import Gauges
from whetstone.serve.observe.histogram import Histogram

__all__ = ["Metrics", "metrics_router"]

_UNKNOWN = "unknown"
"""The label of a model or backend that the server has not."""
_NOBODY = "none"
"""The label of the backend where none answered."""
_OTHER = "other"
"""The label of an outcome or an endpoint beyond those that are told apart."""

_ENDPOINTS = frozenset(("chat", "completions", "embeddings"))
_MOST_OUTCOMES = 48
_MOST_MODELS = 128
"""Adapters come and go under new names, and a series stays for good."""

_HISTOGRAMS = (
    (
        "whetstone_time_to_first_token_seconds",
        "From the arrival of a request to the first token of its answer.",
        attrgetter("first_token"),
    ),
    (
        "whetstone_inter_token_latency_seconds",
        "Between two tokens of an answer; zero between those that came together.",
        attrgetter("inter_token"),
    ),
    (
        "whetstone_queue_wait_seconds",
        "From the arrival of a request to its place, of those that got one.",
        attrgetter("queue"),
    ),
    (
        "whetstone_request_duration_seconds",
        "From the arrival of a request to the end of its answer, of those with outcome ok.",
        attrgetter("duration"),
    ),
)
_COUNTERS = (
    ("whetstone_prompt_tokens", "Tokens of prompts, without those of cached answers.", attrgetter("prompt")),
    (
        "whetstone_generated_tokens",
        "Tokens of answers, without cached answers and those that did not pass validation.",
        attrgetter("generated"),
    ),
    (
        "whetstone_reused_tokens",
        "Prompt tokens that were not computed, because an earlier prompt began alike.",
        attrgetter("reused"),
    ),
    ("whetstone_answer_cache_hits", "Answers that were given from the cache.", attrgetter("cache_hits")),
    (
        "whetstone_validation_failures",
        "Answers that did not pass validation, those that were asked for again too.",
        attrgetter("invalid"),
    ),
)


class _Tally:
    """What is known of the answers of one backend under one name."""

    __slots__ = (
        "cache_hits",
        "duration",
        "first_token",
        "generated",
        "inter_token",
        "invalid",
        "outcomes",
        "prompt",
        "queue",
        "reused",
    )

    def __init__(self) -> None:
        self.first_token = Histogram((0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60))
        self.inter_token = Histogram(
            (0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1, 2.5)
        )
        self.queue = Histogram((0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300))
        self.duration = Histogram((0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300))
        self.prompt = self.generated = self.reused = self.cache_hits = self.invalid = 0
        self.outcomes: dict[tuple[str, str], int] = {}

    def add(self, answered: Answered, outcome: str) -> None:
        key = answered.endpoint if answered.endpoint in _ENDPOINTS else _OTHER, outcome
        self.outcomes[key] = self.outcomes.get(key, 0) + 1
        self.invalid += answered.invalid
        if outcome == "ok":
            self.duration.add(answered.ended_s - answered.arrived_s)
        if answered.cached:
            self.cache_hits += 1
            return
        self.prompt += answered.prompt_tokens
        self.generated += answered.new_tokens
        self.reused += answered.reused_tokens
        if answered.admitted_s is not None and answered.choice == 0:
            self.queue.add(answered.admitted_s - answered.arrived_s)
        if answered.token_s:
            self.first_token.add(answered.token_s[0] - answered.arrived_s)
            self.inter_token.add_all(later - earlier for earlier, later in pairwise(answered.token_s))


class Metrics:
    """Counts what became of every request, and looks at the server whenever it is asked; in one event loop.

    Args:
        backends: Of the server.
        admission: Of the server.
        drift: Its watch.

    Attributes:
        registry: Its own, so that two servers of one process do not count together.
    """

    def __init__(
        self,
        backends: Sequence[Backend],
        fallbacks: Sequence[Backend],
        admission: AdmissionState,
        drift: DriftWatch,
    ) -> None:
        self._backends = backends
        self._tallies: dict[tuple[str, str], _Tally] = {}
        self._models: set[str] = set()
        self._outcomes = {"ok", "disconnected"}
        self.registry = CollectorRegistry()
        self.registry.register(self)
        self.registry.register(Gauges(backends, fallbacks, admission, drift))
        ProcessCollector(registry=self.registry)

    def answered(self, answered: Answered) -> None:
        """Counts one answer, or a request that got none."""
        # What has a tally is served, or was.
        tally = self._tallies.get((answered.model, answered.backend))
        if tally is None:
            tally = self._tally(self._model_label(answered.model), self._backend_label(answered.backend))
        tally.add(answered, self._outcome_label(answered.outcome))

    def collect(self) -> Iterator[Metric]:
        """What was counted, for the registry."""
        for backend in self._backends:
            for model in backend.models:
                # A series begins at zero, so that its first increase is one.
                self._tally(self._model_label(model), backend.name).outcomes.setdefault(("chat", "ok"), 0)
        tallies = sorted(self._tallies.items())
        for name, documentation, histogram_of in _HISTOGRAMS:
            histograms = HistogramMetricFamily(name, documentation, labels=("model", "backend"))
            for labels, tally in tallies:
                histogram: Histogram = histogram_of(tally)
                histograms.add_metric(labels, histogram.cumulative(), histogram.total)
            yield histograms
        for name, documentation, count_of in _COUNTERS:
            counters = CounterMetricFamily(name, documentation, labels=("model", "backend"))
            for labels, tally in tallies:
                counters.add_metric(labels, count_of(tally))
            yield counters
        requests = CounterMetricFamily(
            "whetstone_requests",
            "Requests by what became of them: ok, disconnected or the code of the failure; with n, each answer counts.",
            labels=("model", "backend", "endpoint", "outcome"),
        )
        for labels, tally in tallies:
            for key, count in sorted(tally.outcomes.items()):
                requests.add_metric((*labels, *key), count)
        yield requests

    def _tally(self, model: str, backend: str) -> _Tally:
        tally = self._tallies.get((model, backend))
        if tally is None:
            tally = self._tallies[model, backend] = _Tally()
        return tally

    def _model_label(self, model: str) -> str:
        if model not in self._models:
            served = any(model in backend.models for backend in self._backends)
            if not served or len(self._models) >= _MOST_MODELS:
                return _UNKNOWN
            self._models.add(model)
        return model

    def _backend_label(self, backend: str) -> str:
        if not backend:
            return _NOBODY
        return backend if any(backend == known.name for known in self._backends) else _UNKNOWN

    def _outcome_label(self, outcome: str) -> str:
        if outcome not in self._outcomes:
            if len(self._outcomes) >= _MOST_OUTCOMES:
                return _OTHER
            self._outcomes.add(outcome)
        return outcome


def metrics_router(metrics: Metrics) -> APIRouter:
    """``/metrics``, as text, or as OpenMetrics where the client asks for that."""
    router = APIRouter(tags=["observation"])
    texts = {kind: {"schema": {"type": "string"}} for kind in ("text/plain", "application/openmetrics-text")}

    async def give(accept: str = Header("", include_in_schema=False)) -> Response:
        # The choice is not left to prometheus_client, which fails when the version that is asked for is no number.
        if "application/openmetrics-text" in accept:
            text = openmetrics.generate_latest(metrics.registry)  # type: ignore[no-untyped-call]
            return Response(text, media_type=openmetrics.CONTENT_TYPE_LATEST)
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_PLAIN_0_0_4)

    router.add_api_route(
        "/metrics",
        give,
        methods=["GET"],
        summary="Metrics for Prometheus",
        response_class=Response,
        responses={200: {"content": texts}},
    )
    router.add_api_route("/metrics", give, methods=["HEAD"], include_in_schema=False)
    return router
