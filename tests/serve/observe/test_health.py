"""What health says is so, for people and for whoever sends requests here."""

from typing import Any

import pytest
from fastapi import Depends, FastAPI, HTTPException
from fastapi.testclient import TestClient

import whetstone
from observed import Admission, answered_with
from scripted_backend import ScriptedBackend, model_named
from whetstone.serve.backend import BackendState, Phase
from whetstone.serve.observe.drift import DriftWatch
from whetstone.serve.observe.health import health_router
from whetstone.serve.observe.health_document import Health, Readiness
from whetstone.serve.served_model import JudgedRate, Proof

EMPTY = JudgedRate(name="empty", judged=1, samples=300, window=3, low=0, high=1)
DEMO = model_named("demo").model_copy(
    update={
        "sha256": "ab" * 32,
        "random_weights": True,
        "judged_rates": (EMPTY,),
        "proof": Proof(verdict="REJECT", reasons=("over_edit rose",), replayed=8, equal=8, forced="it was rejected"),
        "experiment": {"name": "demo"},
        "system_prompt": "You are secret.",
    }
)


def _nobody() -> None:
    raise HTTPException(401)


class Served:
    def __init__(self) -> None:
        self.first = ScriptedBackend(models={"demo": DEMO}, name="torch")
        self.second = ScriptedBackend("spare", name="http spare")
        self.admission = Admission()
        self.backends = (self.first, self.second)
        self.drift = DriftWatch(self.backends)
        self.client = self.open()

    def open(self, **settings: Any) -> TestClient:
        app = FastAPI()
        app.include_router(health_router(self.backends, self.backends[1:], self.admission, self.drift, **settings))
        return TestClient(app)

    def phases(self, first: Phase, second: Phase) -> None:
        self.first.state = BackendState(first, said="loading weights", last_error="/secret/path", retry_after_s=4.4)
        self.second.state = BackendState(second)

    def health(self) -> Health:
        response = self.client.get("/health")
        assert response.status_code == 200
        return Health.model_validate(response.json())


@pytest.mark.parametrize("draining", [False, True])
def test_it_lives_while_it_drains(draining: bool) -> None:
    served = Served()
    served.admission.draining = draining
    served.phases("failed", "failed")
    response = served.client.get("/health/live")
    assert (response.status_code, response.json()) == (200, {"status": "live"})
    assert response.headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    ("first", "second", "draining", "code", "status"),
    [
        ("ready", "ready", False, 200, "ready"),
        ("ready", "failed", False, 200, "ready"),
        ("starting", "ready", False, 200, "degraded"),
        ("restarting", "ready", False, 200, "degraded"),
        ("failed", "ready", False, 200, "degraded"),
        ("starting", "starting", False, 503, "not_ready"),
        ("closed", "failed", False, 503, "not_ready"),
        ("ready", "ready", True, 503, "draining"),
        ("starting", "ready", True, 503, "draining"),
    ],
)
def test_readiness(first: Phase, second: Phase, draining: bool, code: int, status: str) -> None:
    served = Served()
    served.phases(first, second)
    served.admission.draining = draining
    response = served.client.get("/health/ready")
    assert response.status_code == code
    found = Readiness.model_validate(response.json())
    assert found.status == status
    assert ("retry-after" in response.headers) == (code == 503)
    assert any("torch is" in reason and "loading weights" in reason for reason in found.reasons) == (first != "ready")
    assert any("http spare is" in reason for reason in found.reasons) == (second != "ready")
    # Anybody may ask.
    assert "/secret/path" not in response.text
    assert served.health().status == status and served.health().reasons == found.reasons


def test_when_to_ask_again() -> None:
    served = Served()
    served.phases("restarting", "failed")
    assert served.client.get("/health/ready").headers["retry-after"] == "4"
    served.first.state = BackendState("failed")
    assert served.client.get("/health/ready").headers["retry-after"] == "1"


def test_the_whole_document() -> None:
    served = Served()
    served.admission.waiting, served.admission.running = 3, 2
    found = served.health()
    assert found.version == whetstone.__version__ and 0 <= found.uptime_s < 60
    assert found.admission.model_dump() == {"waiting": 3, "running": 2, "draining": False}
    first, second = found.backends
    assert (first.name, first.fallback, first.phase) == ("torch", False, "ready")
    assert (second.name, second.fallback) == ("http spare", True)
    assert first.load.memory_bytes == 2**20 and first.load.cache_tokens is None
    (model,) = first.models
    assert model.proof == DEMO.proof and model.sha256 == "ab" * 32 and model.ready
    assert (model.verdict, model.weights, model.forced) == ("REJECT", "random", "it was rejected")
    assert second.models[0].weights == "real" and second.models[0].forced is None
    assert "You are secret." not in served.client.get("/health").text


def test_what_must_be_known_stands_first() -> None:
    served = Served()
    for _ in range(3):
        served.drift.answered(answered_with(backend="torch", text=""))
    found = served.health()
    random, forced, drift = found.warnings
    assert "demo (torch): the weights are random" in random
    assert "demo (torch): served by force: it was rejected" in forced
    assert "empty: 3 of the last 3 answers, expected 0 to 1" in drift
    assert [(rate.rate, rate.seen, rate.window) for rate in found.drift] == [("empty", 3, 3)]
    assert found.drift[0].alarm_since is not None


@pytest.mark.parametrize("phase", ["starting", "restarting", "failed", "closed"])
def test_a_model_is_ready_only_while_its_backend_is(phase: Phase) -> None:
    served = Served()
    served.phases(phase, "ready")
    found = served.health()
    first, second = found.backends
    assert first.phase == phase and first.last_error == "/secret/path"
    assert [model.ready for model in first.models] == [False]
    assert [model.ready for model in second.models] == [True]


def test_errors_are_masked() -> None:
    served = Served()
    served.first.state = BackendState("failed", last_error=f"bad key sk-abcdefghijkl for '{'what was asked ' * 20}'")
    assert served.health().backends[0].last_error == "bad key sk-*** for '***'"


@pytest.mark.parametrize("path", ["/health", "/health/live", "/health/ready"])
def test_head_says_what_get_does(path: str) -> None:
    served = Served()
    served.phases("starting", "starting")
    get, head = served.client.get(path), served.client.head(path)
    assert head.status_code == get.status_code
    assert head.headers["content-type"] == get.headers["content-type"] == "application/json"


def test_only_the_whole_document_is_guarded() -> None:
    client = Served().open(guard=[Depends(_nobody)])
    assert [client.get(path).status_code for path in ("/health/live", "/health/ready", "/health")] == [200, 200, 401]
    assert client.head("/health").status_code == 401


def test_the_schema_names_each_operation_once() -> None:
    schema = Served().client.get("/openapi.json").json()
    assert set(schema["paths"]) == {"/health/live", "/health/ready", "/health"}
    assert all(set(methods) == {"get"} for methods in schema["paths"].values())
    assert set(schema["paths"]["/health/ready"]["get"]["responses"]) == {"200", "503"}
