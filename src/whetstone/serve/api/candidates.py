"""Who may answer for a name."""

import difflib
from collections.abc import Iterator

from whetstone.section import stable_hash
from whetstone.serve.api.service import Service
from whetstone.serve.backend import Backend
from whetstone.serve.errors import ServeError
from whetstone.serve.served_model import ServedModel

__all__ = ["candidates", "find", "fingerprint", "not_ready"]


def candidates(service: Service, name: str, *, stand_in: bool = True) -> Iterator[tuple[Backend, ServedModel]]:
    """The backends that can answer for a model, in the order in which they are asked.

    Each is looked at when it is its turn, for the one before may have taken its time to fail.

    Args:
        service: Knows the backends.
        name: Of the model.
        stand_in: Fallbacks answer with another model, too.

    Raises:
        ServeError: 404 nobody serves such a model; 503 nobody can answer at all.
    """
    own = [backend for backend in service.backends if backend not in service.fallbacks]
    known = any(name in backend.models for backend in service.backends)
    if not known and (name not in service.names if service.names else all(backend.models for backend in own)):
        raise _unknown(service, name)
    failure = None
    found = False
    for backend in service.backends:
        model = backend.models.get(name)
        if model is None and stand_in and backend in service.fallbacks:
            model = next(iter(backend.models.values()), None)
        if backend.state.phase == "ready" and model is not None:
            found = True
            yield backend, model
        elif model is not None or not backend.models:
            failure = failure or not_ready(backend)
    if not found:
        raise failure or _unknown(service, name)


def find(service: Service, name: str) -> tuple[Backend, ServedModel]:
    """A model by its name, whether its backend is ready or not; the first that has it, has it.

    Raises:
        ServeError: 404 nobody serves such a model; 503 whoever may serve it has not told its models yet.
    """
    for backend in service.backends:
        if name in backend.models:
            return backend, backend.models[name]
    for backend in service.backends:
        if not backend.models:
            raise not_ready(backend)
    raise _unknown(service, name)


def fingerprint(model: ServedModel) -> str:
    """What answers: two models with the same one say the same to the same question, as far as anybody can know."""
    weights = [model.sha256, model.adapter_sha256, model.dtype, model.quantisation]
    named = [] if model.sha256 else [model.ref]
    return stable_hash([*weights, model.template_hash, model.engine, *named])


def not_ready(backend: Backend) -> ServeError:
    """Why a backend does not answer now, and when to ask again."""
    state = backend.state
    said = f" ({state.said})" if state.said else ""
    code = {"starting": "starting", "restarting": "restarting"}.get(state.phase, "unavailable")
    return ServeError(503, code, f"{backend.name} is {state.phase}{said}", retry_after_s=state.retry_after_s)


def _unknown(service: Service, name: str) -> ServeError:
    names = list(dict.fromkeys(model for backend in service.backends for model in backend.models))
    near = difflib.get_close_matches(name[:128], names, n=1, cutoff=0.5)
    mend = f"did you mean '{near[0]}'?" if near else "/v1/models lists those that are"
    return ServeError(404, "model_not_found", f"no model of this name is served; {mend}", param="model")
