"""Models that a program of somebody else computes, started and kept alive by the server."""

import asyncio
import logging
import secrets
import tempfile
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from functools import partial

from whetstone.engine.room import USUAL_NEW_TOKENS
from whetstone.errors import UserError
from whetstone.serve.backend import BackendState, Embedding, Load, Phase
from whetstone.serve.delegate.dialect import Asked, Dialect
from whetstone.serve.delegate.http_backend import Probing, no_adapters, no_embeddings
from whetstone.serve.delegate.order import Prepare, Prepared
from whetstone.serve.delegate.preparing import PROGRAM, Preparing
from whetstone.serve.delegate.program import Program
from whetstone.serve.delegate.proving import probe_of, proved
from whetstone.serve.delegate.running import Running, free_port, whole
from whetstone.serve.delegate.upstream import BUSY, Upstream
from whetstone.serve.errors import ServeError
from whetstone.serve.question import Ending, Piece, Question
from whetstone.serve.served_model import ServedModel
from whetstone.serve.worker.counts import Counts
from whetstone.serve.worker.protocol import Opening
from whetstone.serve.worker.supervisor import Patience

__all__ = ["DelegateBackend"]

_LOG = logging.getLogger(__name__)

_TICK_S = 0.5
_USUAL_OPENING_S = 20.0
"""How long a program is said to take while nobody knows."""


class _BrokenError(Exception):
    """This life of the program is over, and the next may be better."""


@dataclass(frozen=True, slots=True)
class _Life:
    """One life of the program, with what asks it.

    Attributes:
        running: The process.
        preparing: The process that renders prompts.
        prepared: What is served.
        upstream: Its server.
        dialect: How it is asked.
    """

    running: Running
    preparing: Preparing
    prepared: Prepared
    upstream: Upstream
    dialect: Dialect


class DelegateBackend:
    """A :class:`whetstone.serve.backend.Backend` over a program in an environment of its own."""

    def __init__(
        self,
        program: Program,
        opening: Opening,
        *,
        patience: Patience | None = None,
        probing: Probing | None = None,
        opening_s: float = 1800.0,
        preparing: Sequence[str] = PROGRAM,
    ) -> None:
        """Starts nothing yet.

        Args:
            program: What computes.
            opening: What to serve.
            patience: With a program that fails.
            probing: How it is looked after.
            opening_s: How long it may take until it says its first token.
            preparing: The process that prepares models; another one only for tests.
        """
        self._program = program
        self._opening = opening
        self._patience = patience or Patience()
        self._probing = probing or Probing()
        self._longest_opening_s = opening_s
        self._preparing_program = preparing
        self._counts = Counts()
        self._models: dict[str, ServedModel] = {}
        self._phase: Phase = "starting"
        self._said = ""
        self._restarts = self._failures = 0
        self._last_error: str | None = None
        self._opening_s = _USUAL_OPENING_S
        self._back_s = time.monotonic() + _USUAL_OPENING_S
        self._ready_s = 0.0
        self._memory_bytes: int | None = None
        self._life: _Life | None = None
        self._preparing: tuple[Preparing, Prepared] | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def name(self) -> str:
        """The program."""
        return self._program.title

    @property
    def state(self) -> BackendState:
        """How it is now."""
        passing = self._phase in ("starting", "restarting")
        back_s = max(1.0, self._back_s - time.monotonic()) if passing else None
        return BackendState(self._phase, self._said, self._restarts, back_s, self._last_error)

    @property
    def models(self) -> Mapping[str, ServedModel]:
        """What it serves, by name."""
        return self._models

    @property
    def load(self) -> Load:
        """What it is busy with."""
        running = 0 if self._life is None else self._life.upstream.running
        return replace(self._counts.load(running), memory_bytes=self._memory_bytes)

    async def start(self) -> None:
        """Begins in the background."""
        self._task = asyncio.create_task(self._supervise(), name="whet-delegate")

    async def close(self) -> None:
        """Ends the program; what is being answered fails, and to close twice is nothing."""
        first = self._phase != "closed"
        self._phase, self._said = "closed", ""
        if self._task is not None:
            if first:
                self._task.cancel()
            await asyncio.wait([self._task])

    async def ask(self, question: Question) -> AsyncIterator[Piece | Ending]:
        """Answers, piece by piece; leaving the iteration early cancels it there.

        Raises:
            ServeError: The question is wrong, or gets no whole answer.
        """
        life = self._life
        if self._phase != "ready" or life is None:
            state = self.state
            why = state.last_error if state.phase == "failed" and state.last_error else state.said or state.phase
            raise ServeError(503, "unavailable", f"the model is not there: {why}", retry_after_s=state.retry_after_s)
        if question.model not in self._models:
            raise ServeError(404, "model_not_found", f"no model '{question.model}'", param="model")
        async with aclosing(self._ask(life, question)) as pieces:
            async for piece in pieces:
                yield piece

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

    async def _ask(self, life: _Life, question: Question) -> AsyncGenerator[Piece | Ending]:
        began_s = time.monotonic()
        life.dialect.check(question, question.prompt)
        token_ids = await life.preparing.render(question.model, question.prompt)
        room = life.prepared.context_tokens - len(token_ids)
        if question.max_new_tokens is not None and question.max_new_tokens > room:
            raise ServeError.invalid(
                f"a prompt of {len(token_ids):,} tokens and an answer of {question.max_new_tokens:,} exceed the "
                f"model's context of {life.prepared.context_tokens:,}; ask for at most {room:,}",
                "max_tokens",
                "context_length_exceeded",
            )
        usual = min(self._models_usual(question.model), room)
        prompt = token_ids if life.dialect.token_ids else question.prompt
        asked = life.dialect.ask(question, prompt, self._program.model(question.model), usual)
        if question.deadline_s is not None:
            question = replace(question, deadline_s=max(0.0, question.deadline_s - (time.monotonic() - began_s)))
        try:
            async with aclosing(life.upstream.ask(asked, question, len(token_ids))) as pieces:
                async for piece in pieces:
                    yield piece
        except ServeError as error:
            if error.status == 503 and error.code != BUSY:
                raise ServeError.unavailable(error.message, self.state.retry_after_s or 1.0, error.code) from None
            raise

    def _models_usual(self, name: str) -> int:
        model = self._models.get(name)
        return (model.usual.max_new_tokens if model is not None else None) or USUAL_NEW_TOKENS

    async def _supervise(self) -> None:
        with tempfile.TemporaryDirectory(prefix="whet-delegate-", ignore_cleanup_errors=True) as folder:
            try:
                while await self._one_life(folder):
                    self._restarts += 1
            except UserError as error:
                self._give_up(str(error))
            finally:
                if self._preparing is not None:
                    await whole(self._preparing[0].end())

    async def _one_life(self, folder: str) -> bool:
        """Lives, and waits before the next one; False where there is none.

        Raises:
            UserError: What is to be served cannot be, and trying again changes nothing.
        """
        self._ready_s = 0.0
        try:
            await self._live(folder)
        except (_BrokenError, OSError) as error:
            self._last_error = str(error) or type(error).__name__
        healthy = self._ready_s and time.monotonic() - self._ready_s >= self._patience.healthy_s
        self._failures = 1 if healthy else self._failures + 1
        if not self._models and self._failures >= self._patience.openings:
            self._give_up(self._last_error or "it does not say why")
            return False
        pause_s = min(self._patience.first_pause_s * 2.0 ** (self._failures - 1), self._patience.longest_pause_s)
        self._back_s = time.monotonic() + pause_s + self._opening_s
        _LOG.warning("%s is started again in %.1f s: %s", self.name, pause_s, self._last_error)
        await asyncio.sleep(pause_s)
        return True

    async def _live(self, folder: str) -> None:
        """The life of one process.

        Raises:
            _BrokenError: It is over.
            OSError: It did not begin.
            UserError: It will never begin.
        """
        began_s = time.monotonic()
        preparing, prepared = await self._prepare(folder)
        self._program.check(prepared)
        port, key = free_port(), secrets.token_urlsafe(32)
        launch = self._program.launch(prepared, port, key)
        self._said = f"starting {self.name}"
        running = await Running.spawn(
            launch.command, launch.environment, title=self.name, grace_s=self._program.grace_s
        )
        fault: str | None = None
        upstream = Upstream(f"http://127.0.0.1:{port}", key, self._counts, program=self.name)
        life = _Life(running, preparing, prepared, upstream, self._program.dialect(prepared))
        try:
            await self._until_ready(life, began_s + self._longest_opening_s)
            self._said = "asking again what was judged"
            try:
                models = await proved(prepared, partial(self._ask, life), force=self._opening.force)
            except ServeError as error:
                raise _BrokenError(error.message) from None
            self._models = models
            self._ready_s = time.monotonic()
            self._opening_s = self._ready_s - began_s
            self._life, self._phase, self._said = life, "ready", ""
            fault = await self._watch(life)
        except _BrokenError as error:
            fault = str(error)
        finally:
            self._break()
            await upstream.close()
            how = await whole(running.end())
        raise _BrokenError(fault or how)

    async def _prepare(self, folder: str) -> tuple[Preparing, Prepared]:
        """The process that renders prompts; the one of the life before, where it still lives."""
        if self._preparing is not None:
            if not self._preparing[0].ended:
                return self._preparing
            old, self._preparing = self._preparing[0], None
            await whole(old.end())
        order = Prepare(
            opening=self._opening,
            form=self._program.form,
            folder=tempfile.mkdtemp(dir=folder),
            engine=self._program.engine,
            same_tokens=not self._program.takes_token_ids,
        )
        self._preparing = await Preparing.begin(order, self._say, self._preparing_program)
        return self._preparing

    async def _until_ready(self, life: _Life, end_s: float) -> None:
        """Asks for a token until there is one.

        Raises:
            _BrokenError: It ended, or there will be none.
        """
        said = "it does not answer"
        self._said = f"waiting for the first token of {self.name}"
        while time.monotonic() < end_s:
            if await life.running.wait(_TICK_S):
                raise _BrokenError("")
            try:
                await life.upstream.probe(self._probe(life), self._probing.timeout_s)
                return
            except ServeError as error:
                said = error.message
        raise _BrokenError(f"it was not ready in {self._longest_opening_s:.0f} s: {said}")

    async def _watch(self, life: _Life) -> str | None:
        """Looks after it until it has to be started again; says why, where that is not how it ended."""
        upstream, memory_s = life.upstream, 0.0
        while not await life.running.wait(_TICK_S):
            now_s = time.monotonic()
            if now_s - memory_s >= self._probing.every_s:
                self._memory_bytes, memory_s = life.running.memory_bytes, now_s
            silent_s = now_s - upstream.heard_s
            if life.preparing.ended:
                return "the process that renders prompts broke"
            if upstream.running and silent_s > self._patience.stall_s:
                return f"it hung for {silent_s:.0f} s, and was ended"
            if not upstream.running and silent_s > self._probing.idle_s:
                try:
                    await upstream.probe(self._probe(life), self._probing.timeout_s)
                except ServeError as error:
                    if error.code != BUSY:
                        return f"it gives no answers any more: {error.message}"
        return None

    def _probe(self, life: _Life) -> Asked:
        return probe_of(life.prepared, life.dialect, self._program)

    def _say(self, said: str) -> None:
        self._said = said

    def _break(self) -> None:
        """It is gone, or as good as gone."""
        self._life, self._memory_bytes = None, None
        if self._phase != "closed":
            self._phase = "restarting" if self._models else "starting"
            self._said = "starting again"
            self._back_s = time.monotonic() + self._opening_s

    def _give_up(self, reason: str) -> None:
        self._phase, self._said, self._last_error = "failed", "", reason
        _LOG.error("%s stays away: %s", self.name, reason)
