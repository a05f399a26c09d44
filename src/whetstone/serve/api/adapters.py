"""``POST /v1/adapters`` and ``DELETE /v1/adapters/NAME``: adapters that come and go while the others answer."""

from fastapi import APIRouter, Request
from starlette.responses import Response

from whetstone.serve.api.describe import body, errors
from whetstone.serve.api.json_bytes import json_bytes
from whetstone.serve.api.models_list import entry
from whetstone.serve.api.service import Service
from whetstone.serve.backend import Backend
from whetstone.serve.errors import ServeError
from whetstone.serve.openai.models import AdapterRequest, Deleted, ModelEntry
from whetstone.serve.openai.parse import parsed

__all__ = ["adapters_router"]


def adapters_router(service: Service) -> APIRouter:
    """The endpoints of one server; only admins may use them."""
    router = APIRouter(tags=["adapters"])

    @router.post(
        "/v1/adapters",
        status_code=201,
        responses={
            201: {"model": ModelEntry, "description": "Loaded."},
            **errors(400, 401, 403, 404, 408, 409, 413, 415, 500, 503),
        },
        openapi_extra=body(AdapterRequest),
    )
    async def load_adapter(request: Request) -> Response:
        """Loads an adapter, after the same proof as any other model's."""
        service.identify_admin(request.headers.get("authorization"))
        if service.admission.draining:
            raise ServeError.unavailable("the server is ending; ask another one", 1.0, "draining")
        wanted = parsed(AdapterRequest, await request.body())
        if any(wanted.name in backend.models for backend in service.backends):
            raise ServeError(409, "name_taken", "name: a model of this name is served; take another", param="name")
        backend = _named(service, wanted.backend)
        model = await backend.load_adapter(wanted.name, wanted.source)
        return Response(json_bytes(entry(backend, model)), status_code=201, media_type="application/json")

    @router.delete(
        "/v1/adapters/{name:path}",
        responses={200: {"model": Deleted, "description": "Gone."}, **errors(400, 401, 403, 404, 409, 500, 503)},
    )
    async def unload_adapter(request: Request, name: str) -> Response:
        """Forgets an adapter that was loaded so; answers that it is giving are ended first."""
        service.identify_admin(request.headers.get("authorization"))
        for backend in service.backends:
            if name in backend.models:
                await backend.unload_adapter(name)
                return Response(
                    json_bytes({"id": name, "object": "model", "deleted": True}), media_type="application/json"
                )
        raise ServeError(
            404, "model_not_found", "no adapter of this name is loaded; /v1/models lists what is", param="name"
        )

    return router


def _named(service: Service, name: str | None) -> Backend:
    """The backend of a name, or the first.

    Raises:
        ServeError: 404, there is none.
    """
    for backend in service.backends:
        if name is None or backend.name == name:
            return backend
    raise ServeError(404, "backend_not_found", "backend: there is none of this name", param="backend")
