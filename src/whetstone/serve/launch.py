"""A server put together: backends, who may ask them, who watches, and the border around it all."""

import asyncio
import contextlib
import logging
import os
import socket
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fastapi import APIRouter, Depends, Request

from whetstone.errors import UserError
from whetstone.serve.answered import Listener
from whetstone.serve.api.app import build_app
from whetstone.serve.api.service import Service
from whetstone.serve.backend import Backend
from whetstone.serve.cache import AnswerCache
from whetstone.serve.delegate.choose import delegate_backend, http_backend, is_elsewhere
from whetstone.serve.feedback import feedback_router
from whetstone.serve.feedback_store import FeedbackStore
from whetstone.serve.gate.admission import Admission
from whetstone.serve.gate.keys import KeyRing, Principal
from whetstone.serve.net.connections import ClientLimits
from whetstone.serve.net.guarded import guarded
from whetstone.serve.net.open_files import raise_open_files
from whetstone.serve.net.server import Server
from whetstone.serve.observe.drift import DriftWatch
from whetstone.serve.observe.health import health_router
from whetstone.serve.observe.logs import AccessLog, logging_to
from whetstone.serve.observe.metrics import Metrics, metrics_router
from whetstone.serve.observe.traces import open_traces
from whetstone.serve.options import ServeOptions
from whetstone.serve.proof.names import name_models
from whetstone.serve.worker.local_backend import LocalBackend
from whetstone.serve.worker.protocol import Opening
from whetstone.serve_section import Limits

__all__ = ["Backends", "launch", "make_backends"]

_log = logging.getLogger("whetstone.serve")

_LOOK_EVERY_S = 0.05


@dataclass(frozen=True, slots=True)
class Backends:
    """Whoever answers.

    Attributes:
        own: Those that the server was started for; the first decides whether it can begin.
        fallbacks: Those that answer while they are not there.
    """

    own: tuple[Backend, ...]
    fallbacks: tuple[Backend, ...] = ()

    @property
    def all(self) -> tuple[Backend, ...]:
        """In the order in which they are asked."""
        return self.own + self.fallbacks


def make_backends(options: ServeOptions) -> Backends:
    """One process for all models of this machine together, one for each fallback, and none for those of other servers.

    Raises:
        UserError: A name is none, two are equal, or the options do not go together.
    """
    name_models(options.refs)
    elsewhere = [ref for ref in (*options.refs, *options.settings.fallback) if is_elsewhere(ref)]
    if elsewhere and not options.force:
        raise UserError(
            f"{elsewhere[0]}: not served: nothing can be proved of another server's weights; --force serves it all the "
            "same, and says so"
        )
    here = [ref for ref in options.refs if not is_elsewhere(ref)]
    own: list[Backend] = []
    for ref in options.refs:
        if ref not in here:
            own.append(http_backend(ref))
        elif ref == here[0]:
            own.append(_computed(options, here))
    if options.program is not None and options.backend == "torch":
        raise UserError("--program: names where another program is; say which with --backend")
    return Backends(tuple(own), tuple(_fallback(options, ref) for ref in options.settings.fallback))


def _fallback(options: ServeOptions, ref: str) -> Backend:
    return http_backend(ref) if is_elsewhere(ref) else LocalBackend(_opening(options, (ref,)), name=f"fallback {ref}")


def _computed(options: ServeOptions, refs: Sequence[str]) -> Backend:
    """The models of this machine, by what the options say."""
    opening = _opening(options, refs)
    if options.backend == "torch":
        return LocalBackend(opening)
    return delegate_backend(options.backend, opening, program=options.program)


def _opening(options: ServeOptions, refs: Sequence[str]) -> Opening:
    return Opening(
        refs=tuple(refs),
        runs=str(options.runs),
        force=options.force,
        test_mode=options.test_mode,
        device=options.device,
        dtype=options.dtype,
        adapter_roots=tuple(map(str, options.adapter_roots)),
    )


def launch(
    options: ServeOptions,
    backends: Backends,
    keyring: KeyRing,
    sockets: Sequence[socket.socket],
    *,
    only_loopback: bool,
    tls: ssl.SSLContext | None = None,
) -> int:
    """Serves until a signal ends it.

    Args:
        options: What the server is told.
        backends: Whoever answers.
        keyring: Who may ask.
        sockets: Bound and listening.
        only_loopback: Nobody but this machine reaches them.
        tls: Of all connections; None for none.

    Returns:
        The exit code, as of :meth:`whetstone.serve.net.server.Server.run`.

    Raises:
        UserError: A file cannot be opened, or the first backend cannot begin.
    """
    with logging_to(style=options.log), contextlib.ExitStack() as closing:
        limits = _with_files_to_open(options.settings.limits)
        service, routers = _service(options, backends, keyring, limits, closing, open_to_all=only_loopback)
        app = guarded(
            build_app(service, *routers),
            limits,
            only_loopback=only_loopback and not keyring.required,
            hosts=options.hosts,
            origins=options.origins,
        )
        behind = _Behind(backends, service.admission)
        return Server(app, behind, sockets, ClientLimits.of(limits), drain_s=limits.drain_s, tls=tls).run()


def _with_files_to_open(limits: Limits) -> Limits:
    connections = raise_open_files(limits.connections)
    if connections < limits.connections:
        _log.warning("limits.connections is %d: no more files may be open here ('ulimit -Hn')", connections)
    return limits.model_copy(update={"connections": connections})


def _service(
    options: ServeOptions,
    backends: Backends,
    keyring: KeyRing,
    limits: Limits,
    closing: contextlib.ExitStack,
    *,
    open_to_all: bool,
) -> tuple[Service, list[APIRouter]]:
    """What the handlers share, and the routes beside those of OpenAI's API."""
    settings = options.settings
    admission, drift = Admission(limits), DriftWatch(backends.all, validated=settings.validate_ is not None)
    metrics = Metrics(backends.all, backends.fallbacks, admission, drift)
    listeners: list[Listener] = [metrics, AccessLog(), drift]
    store = FeedbackStore(Path(settings.feedback), store_prompts=settings.store_prompts) if settings.feedback else None
    for opened in (open_traces(os.environ), store):
        if opened is not None:
            closing.callback(opened.close)
            listeners.append(opened)
    service = Service(
        settings=settings.model_copy(update={"limits": limits}),
        backends=backends.all,
        keyring=keyring,
        admission=admission,
        fallbacks=backends.fallbacks,
        cache=AnswerCache(settings.cache_bytes) if settings.cache_bytes else None,
        listeners=tuple(listeners),
        names=frozenset(named.name for named in name_models(options.refs)),
    )

    def identify(request: Request) -> Principal:
        return service.identify(request.headers.get("authorization"))

    guard = [] if open_to_all and not keyring.required else [Depends(identify)]
    watched = APIRouter(dependencies=guard)
    watched.include_router(metrics_router(metrics))
    routers = [health_router(backends.all, backends.fallbacks, admission, drift, guard=guard), watched]
    return service, routers if store is None else [*routers, feedback_router(store, identify)]


class _Behind:
    """The backends, as far as the life of the server is concerned."""

    def __init__(self, backends: Backends, admission: Admission) -> None:
        self._backends = backends
        self._admission = admission

    async def start(self) -> None:
        for backend in self._backends.all:
            await backend.start()

    async def failed(self) -> UserError:
        """Only one of its own that was never ready is a mistake; later it may come back, or fallbacks answer."""
        for own in self._backends.own:
            while own.state.phase in ("starting", "restarting"):
                await asyncio.sleep(_LOOK_EVERY_S)
            if own.state.phase == "failed":
                return UserError(own.state.last_error or f"{own.name} cannot begin; its log says why")
            _log.info("ready: %s", ", ".join(own.models))
        await asyncio.Event().wait()
        raise AssertionError("nobody sets it")

    def drain(self) -> None:
        self._admission.draining = True

    async def close(self) -> None:
        await asyncio.gather(*(backend.close() for backend in self._backends.all), return_exceptions=True)
