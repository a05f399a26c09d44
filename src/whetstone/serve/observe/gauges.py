"""How the server, its backends and its models are at the moment when Prometheus asks."""

from collections.abc import Iterable, Iterator, Sequence

import psutil
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric

import whetstone
from whetstone.serve.backend import Backend
from whetstone.serve.gate.admission_state import AdmissionState
from whetstone.serve.observe.backend_labels import labelled
from whetstone.serve.observe.drift import DriftWatch
from whetstone.serve.observe.health import readiness

__all__ = ["Gauges"]


class Gauges:
    """A collector that keeps nothing.

    Args:
        backends: Of the server.
        fallbacks: Those of them that stand in for the others.
        admission: Of the server.
        drift: Its watch.
    """

    def __init__(
        self,
        backends: Sequence[Backend],
        fallbacks: Sequence[Backend],
        admission: AdmissionState,
        drift: DriftWatch,
    ) -> None:
        self._backends = backends
        self._fallbacks = fallbacks
        self._admission = admission
        self._drift = drift
        self._process = psutil.Process()

    def collect(self) -> Iterator[Metric]:
        """All families, for the registry."""
        yield from self._server()
        yield from self._loads()
        yield from self._states()
        yield self._models()
        yield from self._drifting()

    def _server(self) -> Iterator[Metric]:
        admission = self._admission
        ready = readiness(self._backends, self._fallbacks, admission).answers
        yield InfoMetricFamily("whetstone_build", "What serves.", value={"version": whetstone.__version__})
        yield _gauge("whetstone_ready", "1 while new requests are answered.", ready)
        yield _gauge("whetstone_draining", "1 while what runs is finished and nothing let in.", admission.draining)
        yield _gauge("whetstone_waiting_answers", "Answers that wait for a place.", admission.waiting)
        yield _gauge("whetstone_running_answers", "Answers that have a place.", admission.running)

    def _loads(self) -> Iterator[Metric]:
        loads = [(name, backend.load) for name, backend in labelled(self._backends)]
        yield _gauges(
            "whetstone_memory_bytes",
            "Resident memory of the processes of the server.",
            "process",
            [("server", self._process.memory_info().rss), *((name, load.memory_bytes) for name, load in loads)],
        )
        yield _gauges(
            "whetstone_backend_running_answers",
            "Answers that the backend generates.",
            "backend",
            ((name, load.running) for name, load in loads),
        )
        yield _gauges(
            "whetstone_kv_cache_tokens",
            "Tokens whose keys and values the backend holds.",
            "backend",
            ((name, load.cache_tokens) for name, load in loads),
        )
        yield _gauges(
            "whetstone_kv_cache_bytes",
            "Memory of the keys and values that the backend holds.",
            "backend",
            ((name, load.cache_bytes) for name, load in loads),
        )

    def _states(self) -> Iterator[Metric]:
        states = [(name, backend.state) for name, backend in labelled(self._backends)]
        yield _gauges(
            "whetstone_backend_ready",
            "1 while the backend answers.",
            "backend",
            ((name, state.phase == "ready") for name, state in states),
        )
        restarts = CounterMetricFamily(
            "whetstone_backend_restarts", "How often the backend was started again.", labels=("backend",)
        )
        for name, state in states:
            restarts.add_metric((name,), state.restarts)
        yield restarts

    def _models(self) -> Metric:
        info = InfoMetricFamily(
            "whetstone_model", "What a model is, and what was proved of it.", labels=("model", "backend")
        )
        for name, backend in labelled(self._backends):
            for model, served in backend.models.items():
                about = {
                    "sha256": served.sha256 or "",
                    "adapter_sha256": served.adapter_sha256 or "",
                    "weights": "random" if served.random_weights else "real",
                    "verdict": served.proof.verdict or "none",
                    "forced": "false" if served.proof.forced is None else "true",
                }
                info.add_metric((model, name), about)
        return info

    def _drifting(self) -> Iterator[Metric]:
        labels = "model", "backend", "rate"
        alarms = GaugeMetricFamily(
            "whetstone_drift_alarm", "1 while a rate of the last answers is out of its limits.", labels=labels
        )
        seen = GaugeMetricFamily(
            "whetstone_drift_seen_answers", "How many answers of the window count for the rate.", labels=labels
        )
        answers = GaugeMetricFamily(
            "whetstone_drift_window_answers",
            "How many answers are in the window, which decides nothing before it is full.",
            labels=labels,
        )
        for rate in self._drift.rates:
            names = rate.model, rate.backend, rate.rate.name
            alarms.add_metric(names, rate.alarm_since is not None)
            seen.add_metric(names, rate.seen)
            answers.add_metric(names, rate.answers)
        yield from (alarms, seen, answers)


def _gauge(name: str, documentation: str, value: float) -> Metric:
    return GaugeMetricFamily(name, documentation, value=float(value))


def _gauges(name: str, documentation: str, label: str, values: Iterable[tuple[str, float | None]]) -> Metric:
    """One value for each name; what is not known is left out."""
    family = GaugeMetricFamily(name, documentation, labels=(label,))
    for one, value in values:
        if value is not None:
            family.add_metric((one,), float(value))
    return family
