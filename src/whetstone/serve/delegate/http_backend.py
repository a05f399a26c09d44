"""A model of a server somewhere else, behind ours."""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any

from whetstone.data.example import Message
from whetstone.engine.api import Sampling
from whetstone.engine.http_server import server_address
from whetstone.serve.backend import BackendState, Embedding, Load, Phase
from whetstone.serve.delegate.dialect import UNKNOWN, Asked, Dialect, Extension, extensions, refusal
from whetstone.serve.delegate.upstream import BUSY, REFUSED, UNREACHABLE, Upstream
from whetstone.serve.errors import ServeError
from whetstone.serve.question import Ending, Piece, Question
from whetstone.serve.served_model import Proof, ServedModel
from whetstone.serve.worker.counts import Counts

__all__ = ["HttpBackend", "Probing", "no_adapters", "no_embeddings", "probe_question"]

_LOG = logging.getLogger(__name__)

_UNPROVED = "its weights are with another server, and nothing of them can be proved"

_ABSURD: Mapping[Extension, dict[str, Any]] = {
    "top_k": {"top_k": "none"},
    "min_p": {"min_p": "none"},
    "repetition_penalty": {"repetition_penalty": "none"},
    "json_schema": {"response_format": "none"},
    "regex": {"structured_outputs": "none"},
}
"""Values that whoever reads the field refuses. Whether log probabilities are told shows in the answer itself."""


@dataclass(frozen=True, slots=True)
class Probing:
    """How a server is looked after.

    Attributes:
        every_s: While it is not ready, it is asked for a token again after so long.
        idle_s: The same while it is ready and nobody else asks.
        timeout_s: How long it may take to say one token.
    """

    every_s: float = 2.0
    idle_s: float = 30.0
    timeout_s: float = 20.0


class HttpBackend:
    """A :class:`whetstone.serve.backend.Backend` over any server that speaks OpenAI's protocol."""

    def __init__(
        self,
        url: str,
        model: str,
        *,
        name: str,
        api_key: str | None = None,
        dialect: Dialect = UNKNOWN,
        probing: Probing | None = None,
    ) -> None:
        """Connects to nothing yet.

        Args:
            url: Where the server is, up to ``/v1``.
            model: What the server calls the model.
            name: What requests call it here.
            api_key: Sent as a bearer token.
            dialect: What the server takes.
            probing: How it is looked after.

        Raises:
            UserError: The url is none, or the key would travel in the clear.
        """
        self._url = str(server_address(url, (api_key or "").strip())).rstrip("/")
        self._key = api_key
        self._model = model
        self._served = ServedModel(
            name=name,
            ref=f"{self._url}#{model}",
            engine="http",
            origin=self._url,
            proof=Proof(forced=_UNPROVED),
            created=int(time.time()),
        )
        self._dialect = dialect
        self._probing = probing or Probing()
        self._counts = Counts()
        self._upstream: Upstream | None = None
        self._state = BackendState("starting", "connecting", retry_after_s=self._probing.every_s)
        self._models: dict[str, ServedModel] = {}
        self._reads: dict[Extension, bool] = {}
        self._good_s = 0.0
        self._woken = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @property
    def name(self) -> str:
        """The address."""
        return f"http {self._url}"

    @property
    def state(self) -> BackendState:
        """How it is, as its last answer or probe showed."""
        return self._state

    @property
    def models(self) -> Mapping[str, ServedModel]:
        """The one model; empty until it said its first token."""
        return self._models

    @property
    def load(self) -> Load:
        """What it is busy with for us."""
        running = 0 if self._upstream is None else self._upstream.running
        return replace(self._counts.load(running), memory_bytes=None)

    async def start(self) -> None:
        """Begins to look after it."""
        self._upstream = Upstream(self._url, self._key, self._counts, program=self._dialect.program)
        self._task = asyncio.create_task(self._watch(self._upstream), name="whet-http-backend")

    async def ask(self, question: Question) -> AsyncIterator[Piece | Ending]:
        """Answers, piece by piece; leaving the iteration early cancels it there.

        Raises:
            ServeError: The question is wrong, or gets no whole answer.
        """
        upstream = self._ready(question.model)
        asked = self._dialect.ask(question, question.prompt, self._model, None)
        try:
            await self._check_reads(upstream, question)
            async with aclosing(upstream.ask(asked, question)) as pieces:
                async for piece in pieces:
                    yield piece
            self._good_s = time.monotonic()
        except ServeError as error:
            self._note(error)
            raise

    async def embed(self, model: str, texts: Sequence[str | tuple[int, ...]]) -> list[Embedding]:
        """Refuses.

        Raises:
            ServeError: 400.
        """
        raise no_embeddings(model)

    async def load_adapter(self, name: str, source: str) -> ServedModel:
        """Refuses.

        Raises:
            ServeError: 400.
        """
        raise no_adapters(self.name)

    async def unload_adapter(self, name: str) -> None:
        """Refuses.

        Raises:
            ServeError: 400.
        """
        raise no_adapters(self.name)

    async def close(self) -> None:
        """Closes all connections; to close twice is nothing."""
        self._state = BackendState("closed", last_error=self._state.last_error)
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        if self._upstream is not None:
            await self._upstream.close()

    def _ready(self, model: str) -> Upstream:
        state = self._state
        if self._upstream is None or state.phase != "ready":
            why = f": {state.last_error}" if state.last_error else ""
            raise ServeError(503, UNREACHABLE, f"{self.name} is {state.phase}{why}", retry_after_s=state.retry_after_s)
        if model not in self._models:
            raise ServeError(404, "model_not_found", f"no model '{model}'", param="model")
        return self._upstream

    async def _check_reads(self, upstream: Upstream, question: Question) -> None:
        """Refuses what the server would skip in silence; asks it once for each field.

        Raises:
            ServeError: 400, it would; 503, it does not say.
        """
        if self._dialect.known:
            return
        for extension in extensions(question):
            absurd = _ABSURD.get(extension)
            if absurd is None:
                continue
            if extension not in self._reads:
                self._reads[extension] = await upstream.reads(self._probe(), absurd, self._probing.timeout_s)
            if not self._reads[extension]:
                raise refusal(self._url, extension, f"takes no {extension}")

    def _note(self, error: ServeError) -> None:
        """Looks at once whether it is still there, where a failure suggests that it may not be."""
        if error.status != 503 or error.code == BUSY or self._state.phase != "ready":
            return
        if error.code == UNREACHABLE:
            self._break(error)
        self._woken.set()

    def _break(self, error: ServeError) -> None:
        restarts = self._state.restarts + (1 if self._state.phase == "ready" else 0)
        phase: Phase = "restarting" if self._models else "starting"
        pause_s = max(self._probing.every_s, error.retry_after_s or 0.0)
        self._state = BackendState(phase, "not reachable", restarts, pause_s, error.message)

    async def _watch(self, upstream: Upstream) -> None:
        while self._state.phase != "failed":
            await self._look(upstream)
            self._woken.clear()
            while not await self._wait(upstream):
                pass

    async def _wait(self, upstream: Upstream) -> bool:
        """Waits until it is time to look; False where answers showed meanwhile that all is well."""
        ready = self._state.phase == "ready"
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._probing.idle_s if ready else self._probing.every_s):
                await self._woken.wait()
                return True
        recent = time.monotonic() - max(self._good_s, upstream.heard_s) < self._probing.idle_s
        return not (self._state.phase == "ready" and recent)

    async def _look(self, upstream: Upstream) -> None:
        try:
            await upstream.probe(self._probe(), self._probing.timeout_s)
        except ServeError as error:
            if error.code == BUSY and self._models:
                return
            known_no_more = error.code == REFUSED or error.status == 400
            if known_no_more and not self._models:
                self._state = BackendState("failed", last_error=error.message)
                _LOG.error("%s stays away: %s", self.name, error.message)
                return
            if self._state.phase == "ready":
                _LOG.warning("%s is gone: %s", self.name, error.message)
            self._break(error)
            return
        if self._state.phase != "ready":
            _LOG.info("%s is ready", self.name)
        # It may be another one now, that reads other fields.
        if self._state.phase == "restarting":
            self._reads.clear()
        self._good_s = time.monotonic()
        self._models = {self._served.name: self._served}
        self._state = BackendState("ready", restarts=self._state.restarts, last_error=self._state.last_error)

    def _probe(self) -> Asked:
        return self._dialect.ask(probe_question(self._served.name), (Message("user", "Hi"),), self._model, 1)


def probe_question(model: str) -> Question:
    """The least question there is."""
    return Question(model, (Message("user", "Hi"),), 1, Sampling(), seed=0)


def no_adapters(name: str) -> ServeError:
    """What whoever asks a server of another program to load an adapter is told."""
    return ServeError.invalid(f"{name} takes no adapters while it runs; start the server with them", code="unsupported")


def no_embeddings(model: str) -> ServeError:
    """What whoever asks a server of another program for embeddings is told."""
    return ServeError.invalid(
        f"'{model}' gives no embeddings here; ask a model of this machine", "model", "unsupported"
    )
