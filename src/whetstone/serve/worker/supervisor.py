"""Keeps one process that computes alive, and tells those who wait what becomes of it.

Notable: a process is ended and waited for whatever happened to it, so neither it nor its pipes stay behind; and its
end is told to all who wait before anything else is done.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass

from whetstone.serve.backend import BackendState, Phase
from whetstone.serve.errors import ServeError
from whetstone.serve.served_model import ServedModel
from whetstone.serve.worker.child import Child
from whetstone.serve.worker.counts import Counts
from whetstone.serve.worker.in_flight import InFlight
from whetstone.serve.worker.protocol import (
    Busy,
    Done,
    Failed,
    Loaded,
    Lost,
    Open,
    Opening,
    Ready,
    Refused,
    Stage,
    Told,
    ToServer,
    Vector,
    read_from_worker,
)

__all__ = ["Patience", "Supervisor"]

_LOG = logging.getLogger(__name__)

_USUAL_OPENING_S = 5.0
"""How long opening is said to take while nobody knows."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How a process that fails is dealt with.

    Attributes:
        stall_s: One that says nothing for so long, while somebody waits, hangs, and is ended.
        first_pause_s: Before it is started again; the pause doubles each time.
        longest_pause_s: The longest pause.
        healthy_s: One that was ready for so long begins with the first pause again.
        openings: How often opening is tried where it never succeeded.
    """

    stall_s: float = 300.0
    first_pause_s: float = 0.1
    longest_pause_s: float = 30.0
    healthy_s: float = 60.0
    openings: int = 3


class Supervisor:
    """The life of the process, or rather of one after the other.

    Attributes:
        models: What is served, by name; stays while the process is started again.
        adapters: Where those lie that were loaded while it served, by name.
        in_flight: Those who wait.
        counts: What it was busy with.
    """

    def __init__(self, opening: Opening, patience: Patience, program: Sequence[str]) -> None:
        """Starts nothing yet.

        Args:
            opening: What to serve.
            patience: With a process that fails.
            program: The process, with its arguments.
        """
        self.models: dict[str, ServedModel] = {}
        self.adapters: dict[str, str] = {}
        self.in_flight = InFlight()
        self.counts = Counts()
        self._opening = opening
        self._patience = patience
        self._program = program
        self._phase: Phase = "starting"
        self._said = ""
        self._restarts = 0
        self._failures = 0
        self._last_error: str | None = None
        self._refusal: str | None = None
        self._fault: str | None = None
        self._opening_s = _USUAL_OPENING_S
        self._back_s = time.monotonic() + _USUAL_OPENING_S
        self._spawned_s = self._ready_s = self._heard_s = 0.0
        self._intake_s = 0.0
        self._child: Child | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def state(self) -> BackendState:
        """How it is now."""
        passing = self._phase in ("starting", "restarting")
        return BackendState(
            phase=self._phase,
            said=self._said,
            restarts=self._restarts,
            retry_after_s=max(1.0, self._back_s - time.monotonic()) if passing else None,
            last_error=self._last_error,
        )

    def start(self) -> None:
        """Begins, in a task."""
        self._task = asyncio.create_task(self._supervise(), name="whet-supervisor")

    async def close(self) -> None:
        """Ends the process; those who wait are told, and to close twice is nothing."""
        self._phase, self._said = "closed", ""
        self._fail_all("closed", "the server is ending")
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    def child_for(self, model: str | None = None) -> Child:
        """The process, to be asked something right now.

        Args:
            model: That it should be asked of.

        Raises:
            ServeError: 503, there is none that is ready; 404, it has no such model.
        """
        if self._phase != "ready" or self._child is None:
            state = self.state
            why = state.last_error if state.phase == "failed" and state.last_error else state.said or state.phase
            raise ServeError(503, "unavailable", f"the model is not there: {why}", retry_after_s=state.retry_after_s)
        if model is not None and model not in self.models:
            raise ServeError(404, "model_not_found", f"no model '{model}'", param="model")
        return self._child

    async def _supervise(self) -> None:
        while True:
            reason = await self._live()
            if self._refusal is not None and not self.models:
                self._give_up(self._refusal)
                return
            # What was served once may be there again: a disk that comes back, a folder that was moved.
            self._last_error = self._refusal or reason
            healthy = self._ready_s and time.monotonic() - self._ready_s >= self._patience.healthy_s
            self._failures = 1 if healthy else self._failures + 1
            if not self.models and self._failures >= self._patience.openings:
                self._give_up(reason)
                return
            pause_s = min(self._patience.first_pause_s * 2.0 ** (self._failures - 1), self._patience.longest_pause_s)
            if self._refusal is not None:
                pause_s = self._patience.longest_pause_s
            self._back_s = time.monotonic() + pause_s + self._opening_s
            _LOG.warning("the process that computes is started again in %.1f s: %s", pause_s, self._last_error)
            await asyncio.sleep(pause_s)
            self._restarts += 1

    async def _live(self) -> str:
        """The life of one process; says why it ended."""
        self._refusal = self._fault = None
        self._intake_s = self._ready_s = 0.0
        self._spawned_s = self._heard_s = time.monotonic()
        self._said = "starting a process"
        try:
            child = await Child.spawn(self._program)
        except OSError as error:
            self._break()
            return f"no process could be started ({error})"
        watching = asyncio.create_task(self._watch(child), name="whet-watchdog")
        try:
            earlier = {name: model.proof for name, model in self.models.items()}
            child.post(Open(self._opening, tuple(self.adapters.items()), earlier))
            self._child = child
            async for line in child.lines():
                self._heard_s = time.monotonic()
                self._hear(read_from_worker(line))
        except ValueError as error:
            child.kill()
            self._fault = f"it said what cannot be read ({type(error).__name__})"
        finally:
            self._break()
            watching.cancel()
            how = await child.end()
        return self._fault or how

    async def _watch(self, child: Child) -> None:
        """Ends a process that hangs."""
        stall_s = self._patience.stall_s
        while True:
            await asyncio.sleep(min(5.0, stall_s / 4))
            silent_s = time.monotonic() - max(self._heard_s, self.in_flight.since_s)
            if len(self.in_flight) and max(silent_s, self._intake_s) > stall_s:
                self._fault = f"it hung for {max(silent_s, self._intake_s):.0f} s, and was ended"
                child.kill()
                return

    def _hear(self, heard: ToServer | list[Told]) -> None:
        match heard:
            case list():
                for told in heard:
                    self.in_flight.hear(told[0], told, last=len(told) > 4)
            case Failed():
                self.in_flight.fail(heard)
            case Vector(asked_id):
                self.in_flight.hear(asked_id, heard, last=False)
            case Loaded(asked_id, model, source):
                self.models[model.name], self.adapters[model.name] = model, source
                self.in_flight.hear(asked_id, heard, last=True)
            case Done(asked_id):
                self.in_flight.hear(asked_id, heard, last=True)
            case Busy():
                self._intake_s = heard.intake_s
                self.counts.add(heard)
            case Stage(said):
                self._said = said
            case Ready():
                self._be_ready(heard)
            case Refused(message):
                self._refusal = message
            case Lost(message):
                self._fault = message

    def _be_ready(self, ready: Ready) -> None:
        self._ready_s = time.monotonic()
        self._opening_s = self._ready_s - self._spawned_s
        self.models = {model.name: model for model in ready.models}
        for name, reason in ready.lost:
            del self.adapters[name]
            self._last_error = f"the adapter '{name}' could not be loaded again: {reason}"
            _LOG.warning("%s", self._last_error)
        self._phase, self._said = "ready", ""

    def _break(self) -> None:
        """The process is gone, or as good as gone."""
        self._child = None
        self.counts.end()
        if self._phase == "closed":
            return
        self._phase, self._said = "restarting", "starting again"
        self._back_s = time.monotonic() + self._opening_s
        self._fail_all("backend_lost", "the process that computed the answer broke; ask again")

    def _give_up(self, reason: str) -> None:
        self._phase, self._said, self._last_error = "failed", "", reason
        _LOG.error("the process that computes stays away: %s", reason)

    def _fail_all(self, code: str, message: str) -> None:
        self.in_flight.fail_all(503, code, message, self.state.retry_after_s)
