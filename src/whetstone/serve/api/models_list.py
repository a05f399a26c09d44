"""``GET /v1/models``, ``/v1/models/NAME`` and ``/v1/models/NAME/card``."""

import hashlib
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from whetstone.serve.api.candidates import find, fingerprint
from whetstone.serve.api.describe import errors
from whetstone.serve.api.json_bytes import json_bytes
from whetstone.serve.api.service import Service
from whetstone.serve.backend import Backend
from whetstone.serve.openai.models import ModelCard, ModelEntry, ModelList
from whetstone.serve.served_model import ServedModel

__all__ = ["entry", "models_router"]

_PROMPTS = frozenset(("system", "system_prompt"))
_ONE = errors(401, 404, 500, 503)


def models_router(service: Service) -> APIRouter:
    """The endpoints of one server. A name is looked up among those that are served, and nowhere else."""
    router = APIRouter(tags=["models"])

    @router.get("/v1/models", responses={200: {"model": ModelList}, **errors(401, 500)})
    async def list_models(request: Request) -> Response:
        """Lists the models that are served; those of a backend that is still starting are not known yet."""
        service.identify(request.headers.get("authorization"))
        found: dict[str, tuple[Backend, ServedModel]] = {}
        for backend in service.backends:
            for name, model in backend.models.items():
                found.setdefault(name, (backend, model))
        return _json({"object": "list", "data": [entry(*one) for one in found.values()]})

    # Before the next one, which takes whatever is there for a name.
    @router.get("/v1/models/{name:path}/card", responses={200: {"model": ModelCard}, **_ONE})
    async def read_model_card(request: Request, name: str) -> Response:
        """Tells what a model is, by what it was judged, and how the judgement was proved again."""
        service.identify(request.headers.get("authorization"))
        backend, model = find(service, name)
        return _json(_card(backend, service.as_asked(model)))

    @router.get("/v1/models/{name:path}", responses={200: {"model": ModelEntry}, **_ONE})
    async def read_model(request: Request, name: str) -> Response:
        """Tells about one model."""
        service.identify(request.headers.get("authorization"))
        return _json(entry(*find(service, name)))

    return router


def entry(backend: Backend, model: ServedModel) -> dict[str, Any]:
    """A model as the list tells it."""
    return {
        "id": model.name,
        "object": "model",
        "created": model.created,
        "owned_by": "whetstone",
        "whetstone": {
            "verdict": model.proof.verdict,
            "forced": model.proof.forced,
            "backend": backend.name,
            "ready": backend.state.phase == "ready",
            "engine": model.engine,
            "fingerprint": fingerprint(model),
            "context_tokens": model.context_tokens,
            "embeds": model.embeds,
            "random_weights": model.random_weights,
        },
    }


def _card(backend: Backend, model: ServedModel) -> dict[str, Any]:
    told = model.model_dump(mode="json")
    same = ("ref", "engine", "device", "origin", "dtype", "quantisation", "random_weights", "context_tokens", "embeds")
    return {
        "id": model.name,
        "object": "model.card",
        "created": model.created,
        "verdict": model.proof.verdict,
        "reasons": model.proof.reasons,
        "judged_at": model.proof.judged_at,
        "proof": told["proof"],
        "hashes": {
            "weights_sha256": model.sha256,
            "adapter_sha256": model.adapter_sha256,
            "template": model.template_hash,
            "system_prompt_sha256": None if model.system_prompt is None else _sha256(model.system_prompt),
        },
        "backend": backend.name,
        "ready": backend.state.phase == "ready",
        "fingerprint": fingerprint(model),
        **{name: told[name] for name in same},
        "usual": told["usual"],
        "validation": told["validation"],
        "recipe": _without_prompts(model.experiment),
        "judged_rates": told["judged_rates"],
    }


def _without_prompts(value: Any) -> Any:
    """The experiment with its system prompts as hashes: they can be compared, and not read."""
    if isinstance(value, list):
        return [_without_prompts(one) for one in value]
    if not isinstance(value, dict):
        return value
    return {
        name: f"sha256:{_sha256(one)}" if name in _PROMPTS and isinstance(one, str) else _without_prompts(one)
        for name, one in value.items()
    }


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _json(value: Any) -> Response:
    return Response(json_bytes(value), media_type="application/json")
