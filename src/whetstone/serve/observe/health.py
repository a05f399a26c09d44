"""``/health``: whether the server lives, whether it answers, and all that is known of how it is.

Nothing is shown better than it is: a model is ready only while its backend is, and weights that are random, a verdict
that was overruled and answers that drifted stand first, among the warnings.
"""

import datetime
import time
from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter, Response
from fastapi.params import Depends

import whetstone
from whetstone.serve.backend import Backend
from whetstone.serve.gate.admission_state import AdmissionState
from whetstone.serve.observe.drift import DriftWatch
from whetstone.serve.observe.health_document import (
    AdmissionHealth,
    BackendHealth,
    Health,
    Live,
    LoadHealth,
    ModelHealth,
    RateHealth,
    Readiness,
)
from whetstone.serve.observe.redaction import redact
from whetstone.serve.served_model import ServedModel

__all__ = ["health_router", "readiness"]


def readiness(backends: Sequence[Backend], fallbacks: Sequence[Backend], admission: AdmissionState) -> Readiness:
    """Whether requests for every model are answered: by the backends that have them, or by one that stands in.

    Args:
        backends: All of them.
        fallbacks: Those of them that stand in for the others.
        admission: Of the server.
    """
    away = [backend for backend in backends if backend.state.phase != "ready"]
    reasons = tuple(map(_reason, away))
    if admission.draining:
        return Readiness(status="draining", reasons=("the server is ending; nothing new is let in", *reasons))
    if all(backend in fallbacks for backend in away):
        return Readiness(status="ready", reasons=reasons)
    stands_in = any(backend not in away for backend in fallbacks)
    return Readiness(status="degraded" if stands_in else "not_ready", reasons=reasons)


def health_router(
    backends: Sequence[Backend],
    fallbacks: Sequence[Backend],
    admission: AdmissionState,
    drift: DriftWatch,
    *,
    guard: Sequence[Depends] = (),
) -> APIRouter:
    """``/health/live``, ``/health/ready`` and ``/health``.

    Args:
        backends: In the order in which they are asked.
        fallbacks: Those of them that stand in for the others.
        admission: Of the server.
        drift: Its watch.
        guard: What a request for the whole document must pass; the other two tell nobody anything.
    """
    router = APIRouter(tags=["observation"])
    began_s, began_at = time.monotonic(), datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")

    async def live(response: Response) -> Live:
        response.headers["Cache-Control"] = "no-store"
        return Live()

    async def ready(response: Response) -> Readiness:
        found = readiness(backends, fallbacks, admission)
        response.headers["Cache-Control"] = "no-store"
        if not found.answers:
            response.status_code = 503
            response.headers["Retry-After"] = str(_retry_after_s(backends))
        return found

    async def health(response: Response) -> Health:
        response.headers["Cache-Control"] = "no-store"
        found = readiness(backends, fallbacks, admission)
        return Health(
            status=found.status,
            reasons=found.reasons,
            warnings=tuple(_warnings(backends, drift)),
            version=whetstone.__version__,
            started_at=began_at,
            uptime_s=round(time.monotonic() - began_s, 3),
            admission=AdmissionHealth.model_validate(admission),
            backends=tuple(_backend(backend, backend in fallbacks) for backend in backends),
            drift=tuple(_rates(drift)),
        )

    unready: dict[int | str, dict[str, Any]] = {
        503: {"model": Readiness, "description": "Requests are not answered now"}
    }
    for method, told in (("GET", True), ("HEAD", False)):
        router.add_api_route(
            "/health/live", live, methods=[method], include_in_schema=told, summary="Whether the server lives"
        )
        router.add_api_route(
            "/health/ready",
            ready,
            methods=[method],
            include_in_schema=told,
            responses=unready,
            summary="Whether requests are answered",
        )
        router.add_api_route(
            "/health",
            health,
            methods=[method],
            include_in_schema=told,
            dependencies=guard,
            summary="All that is known of the server",
        )
    return router


def _reason(backend: Backend) -> str:
    """Told to anybody, so without what went wrong."""
    state = backend.state
    return f"{backend.name} is {state.phase}" + (f": {redact(state.said)}" if state.said else "")


def _retry_after_s(backends: Sequence[Backend]) -> int:
    """When the first of them is tried again; RFC 9110, section 10.2.3, wants whole seconds."""
    times = [backend.state.retry_after_s for backend in backends]
    return max(1, round(min((time_s for time_s in times if time_s is not None), default=1.0)))


def _warnings(backends: Sequence[Backend], drift: DriftWatch) -> list[str]:
    said = []
    for backend in backends:
        for name, model in backend.models.items():
            if model.random_weights:
                said.append(f"{name} ({backend.name}): the weights are random; its answers mean nothing")
            if model.proof.forced is not None:
                said.append(f"{name} ({backend.name}): served by force: {model.proof.forced}")
    return said + [f"drift: {alarm}" for alarm in drift.alarms]


def _backend(backend: Backend, fallback: bool) -> BackendHealth:
    state = backend.state
    return BackendHealth(
        name=backend.name,
        fallback=fallback,
        phase=state.phase,
        said=redact(state.said),
        restarts=state.restarts,
        retry_after_s=state.retry_after_s,
        last_error=None if state.last_error is None else redact(state.last_error),
        load=LoadHealth.model_validate(backend.load),
        models=tuple(_model(name, model, state.phase == "ready") for name, model in backend.models.items()),
    )


def _model(name: str, model: ServedModel, ready: bool) -> ModelHealth:
    return ModelHealth(
        name=name,
        ready=ready,
        weights="random" if model.random_weights else "real" if model.sha256 else "unknown",
        verdict=model.proof.verdict,
        forced=model.proof.forced,
        proof=model.proof,
        ref=model.ref,
        engine=model.engine,
        device=model.device,
        origin=model.origin,
        sha256=model.sha256,
        adapter_sha256=model.adapter_sha256,
        template_hash=model.template_hash,
        dtype=model.dtype,
        quantisation=model.quantisation,
        context_tokens=model.context_tokens,
    )


def _rates(drift: DriftWatch) -> list[RateHealth]:
    return [
        RateHealth(
            model=watched.model,
            backend=watched.backend,
            rate=watched.rate.name,
            answers=watched.answers,
            window=watched.rate.window,
            seen=watched.seen,
            low=watched.rate.low,
            high=watched.rate.high,
            judged=watched.rate.judged,
            samples=watched.rate.samples,
            alarm_since=watched.alarm_since,
        )
        for watched in drift.rates
    ]
