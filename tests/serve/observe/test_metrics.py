import re
from collections.abc import Iterable

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from prometheus_client import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from observed import Admission, answered_with
from scripted_backend import ScriptedBackend, model_named
from whetstone.serve.backend import BackendState
from whetstone.serve.observe.drift import DriftWatch
from whetstone.serve.observe.metrics import Metrics, metrics_router
from whetstone.serve.served_model import JudgedRate, Proof
from whetstone.serve_section import Validate

RATE = JudgedRate(name="empty", judged=1, samples=300, window=3, low=0, high=1)
FORCED = Proof(verdict="REJECT", forced="the verdict is REJECT")
DEMO = model_named("demo").model_copy(
    update={"judged_rates": (RATE,), "proof": FORCED, "sha256": "ab", "random_weights": True, "validation": Validate()}
)

Series = dict[tuple[str, frozenset[tuple[str, str]]], float]


class Served:
    def __init__(self, *backends: ScriptedBackend) -> None:
        self.backends = backends or (ScriptedBackend(models={"demo": DEMO}),)
        self.admission = Admission()
        self.drift = DriftWatch(self.backends)
        self.metrics = Metrics(self.backends, self.backends[1:], self.admission, self.drift)
        app = FastAPI()
        app.include_router(metrics_router(self.metrics))
        self.client = TestClient(app)

    def series(self) -> Series:
        return _series(parse_text(self.client.get("/metrics").text))


def _series(families: Iterable[Metric]) -> Series:
    found: Series = {}
    for family in families:
        for sample in family.samples:
            key = sample.name, frozenset(sample.labels.items())
            assert key not in found, key
            found[key] = sample.value
    return found


def _key(name: str, **labels: str) -> tuple[str, frozenset[tuple[str, str]]]:
    return f"whetstone_{name}", frozenset(labels.items())


DEMO_LABELS = {"model": "demo", "backend": "scripted"}


def test_one_answer() -> None:
    served = Served()
    served.metrics.answered(answered_with(invalid=2))
    series = served.series()
    for name, value in (
        ("requests_total", 1),
        ("prompt_tokens_total", 7),
        ("generated_tokens_total", 5),
        ("reused_tokens_total", 3),
        ("validation_failures_total", 2),
        ("answer_cache_hits_total", 0),
        ("time_to_first_token_seconds_sum", 1.5),
        ("inter_token_latency_seconds_count", 4),
        ("inter_token_latency_seconds_sum", 1.0),
        ("queue_wait_seconds_sum", 1.0),
        ("request_duration_seconds_sum", 2.5),
    ):
        more = {"endpoint": "chat", "outcome": "ok"} if name == "requests_total" else {}
        assert series[_key(name, **DEMO_LABELS, **more)] == value, name
    assert series[_key("request_duration_seconds_bucket", **DEMO_LABELS, le="2.5")] == 1
    assert series[_key("request_duration_seconds_bucket", **DEMO_LABELS, le="1.0")] == 0


def test_series_begin_at_zero() -> None:
    series = Served().series()
    assert series[_key("requests_total", **DEMO_LABELS, endpoint="chat", outcome="ok")] == 0
    assert series[_key("generated_tokens_total", **DEMO_LABELS)] == 0
    assert series[_key("time_to_first_token_seconds_count", **DEMO_LABELS)] == 0


def test_a_request_that_got_no_place_has_no_times() -> None:
    served = Served()
    served.metrics.answered(
        answered_with(outcome="queue_full", backend="", admitted_s=None, token_s=(), new_tokens=0, prompt_tokens=0)
    )
    series = served.series()
    labels = {"model": "demo", "backend": "none"}
    assert series[_key("requests_total", **labels, endpoint="chat", outcome="queue_full")] == 1
    for name in ("time_to_first_token", "inter_token_latency", "queue_wait", "request_duration"):
        assert series[_key(f"{name}_seconds_count", **labels)] == 0


def test_a_cached_answer_took_no_tokens() -> None:
    served = Served()
    served.metrics.answered(answered_with(cached=True, admitted_s=None, token_s=()))
    series = served.series()
    assert series[_key("answer_cache_hits_total", **DEMO_LABELS)] == 1
    assert series[_key("generated_tokens_total", **DEMO_LABELS)] == 0
    assert series[_key("request_duration_seconds_count", **DEMO_LABELS)] == 1


def test_clients_cannot_make_labels() -> None:
    served = Served()
    served.series()
    for number in range(500):
        served.metrics.answered(
            answered_with(
                model=f"made-up-{number}",
                backend=f"elsewhere-{number}",
                endpoint=f"path-{number}",
                outcome=f"code-{number}",
            )
        )
    series = served.series()
    requests = [dict(labels) for name, labels in series if name == "whetstone_requests_total"]
    assert {labels["model"] for labels in requests} == {"demo", "unknown"}
    assert {labels["backend"] for labels in requests} == {"scripted", "unknown"}
    assert {labels["endpoint"] for labels in requests} == {"chat", "other"}
    assert 40 < len(requests) < 60
    assert sum(value for (name, _), value in series.items() if name == "whetstone_requests_total") == 500


def test_adapters_that_come_and_go_do_not_make_series_for_ever() -> None:
    models = {"demo": DEMO}
    served = Served(ScriptedBackend(models=models))
    for number in range(150):
        backend = served.backends[0]
        backend._models[f"adapter-{number}"] = model_named(f"adapter-{number}")
        served.metrics.answered(answered_with(model=f"adapter-{number}"))
        del backend._models[f"adapter-{number}"]
    names = {dict(labels)["model"] for name, labels in served.series() if name == "whetstone_requests_total"}
    assert len(names) <= 130 and {"adapter-0", "unknown"} <= names


def test_how_the_server_is() -> None:
    first = ScriptedBackend(models={"demo": DEMO}, name="first")
    second = ScriptedBackend("other", name="second")
    served = Served(first, second)
    served.admission.waiting, served.admission.running = 3, 2
    first.state = BackendState("restarting", restarts=4)
    series = served.series()
    assert series[_key("ready")] == 1
    assert series[_key("waiting_answers")] == 3 and series[_key("running_answers")] == 2
    assert series[_key("backend_ready", backend="first")] == 0
    assert series[_key("backend_ready", backend="second")] == 1
    assert series[_key("backend_restarts_total", backend="first")] == 4
    assert series[_key("memory_bytes", process="first")] == 2**20
    assert series[_key("memory_bytes", process="server")] > 2**20
    about = {"sha256": "ab", "adapter_sha256": "", "weights": "random", "verdict": "REJECT", "forced": "true"}
    assert series[_key("model_info", model="demo", backend="first", **about)] == 1
    # What is not known is not said to be nothing.
    assert not [name for name, _ in series if "kv_cache" in name]
    served.admission.draining = True
    series = served.series()
    assert series[_key("ready")] == 0 and series[_key("draining")] == 1


def test_backends_of_one_name_are_told_apart() -> None:
    first, second = (ScriptedBackend(models={"demo": DEMO}, name="torch") for _ in range(2))
    second.state = BackendState("failed")
    served = Served(first, second)
    served.metrics.answered(answered_with(backend="torch"))
    # That no series stands twice is seen when they are read.
    series = served.series()
    assert series[_key("backend_ready", backend="torch")] == 1
    assert series[_key("backend_ready", backend="torch 2")] == 0
    assert series[_key("drift_alarm", model="demo", backend="torch 2", rate="empty")] == 0


def test_drift_is_told() -> None:
    served = Served()
    for _ in range(3):
        served.drift.answered(answered_with(text=""))
    series = served.series()
    labels = {**DEMO_LABELS, "rate": "empty"}
    assert series[_key("drift_alarm", **labels)] == 1
    assert series[_key("drift_seen_answers", **labels)] == series[_key("drift_window_answers", **labels)] == 3
    assert series[_key("drift_alarm", **DEMO_LABELS, rate="invalid")] == 0


def test_both_formats_say_the_same() -> None:
    served = Served()
    served.metrics.answered(answered_with())
    plain = served.client.get("/metrics")
    assert plain.headers["content-type"].startswith("text/plain; version=0.0.4")
    wanted = {"accept": "application/openmetrics-text; version=1.0.0,text/plain;q=0.5"}
    openmetrics = served.client.get("/metrics", headers=wanted)
    assert openmetrics.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")

    def ours(series: Series) -> Series:
        moving = "whetstone_memory_bytes"
        return {key: value for key, value in series.items() if key[0].startswith("whetstone") and key[0] != moving}

    assert ours(_series(parse_openmetrics(openmetrics.text))) == ours(_series(parse_text(plain.text)))


@pytest.mark.parametrize(
    "accept", ["", "*/*", "text/html", "application/openmetrics-text;version=abc", "text/plain; version=1.0.0x", "ä"]
)
def test_any_accept_header_is_answered(accept: str) -> None:
    served = Served()
    response = served.client.get("/metrics", headers=[(b"accept", accept.encode())])
    assert response.status_code == 200
    assert served.client.head("/metrics").status_code == 200


def test_names_follow_the_conventions() -> None:
    for family in Served().metrics.registry.collect():
        if family.name.startswith("whetstone"):
            assert re.fullmatch("whetstone_[a-z]+(_[a-z]+)*", family.name)
            assert family.documentation.endswith(".")
            if family.type == "histogram":
                assert family.name.endswith("_seconds")
