"""Steps the engines, and tells the server's process what came of each step."""

import contextlib
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import psutil

from whetstone.engine.answer import Answer
from whetstone.engine.api import Completion, Delta, Request
from whetstone.engine.torch_engine import TorchEngine
from whetstone.engine.worker import Worker
from whetstone.serve.errors import ServeError
from whetstone.serve.json_line import encode
from whetstone.serve.question import Ending, Piece
from whetstone.serve.worker.hosted import Hosted
from whetstone.serve.worker.pipes import Pipe
from whetstone.serve.worker.protocol import Busy, Failed, encode_step
from whetstone.serve.worker.spelling import Scorer

__all__ = ["Stepper"]

_BUSY_S, _IDLE_S = 1.0, 5.0
"""How often the server's process hears how things are, with and without something to do."""

_LOOK_S = 0.005
"""How often an engine that another thread steps is looked after."""

_GOOD_ENDS: dict[str, Literal["stop", "length"]] = {"stop": "stop", "length": "length"}


@dataclass(slots=True, eq=False)
class _Asked:
    """A question while it is answered; ``answer`` is there once its engine has begun."""

    id: int
    hosted: Hosted
    scorer: Scorer
    answer: Answer | None = None


class Stepper:
    """The loop of the process's main thread.

    Attributes:
        hosted: The models by name; only what is done between two steps changes it.
    """

    def __init__(self, pipe: Pipe, hosted: Mapping[str, Hosted], intake_s: Callable[[], float]) -> None:
        """Nothing is asked yet.

        Args:
            pipe: To the server's process.
            hosted: The models by name.
            intake_s: For how long the same question is being read.
        """
        self.hosted = dict(hosted)
        self._pipe = pipe
        self._intake_s = intake_s
        self._inbox: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._asked: dict[int, _Asked] = {}
        self._busy: dict[Worker, None] = {}
        self._lent: list[Worker] = []
        self._said: deque[tuple[_Asked, Delta]] = deque()
        self._ended: list[Completion] = []
        self._new_tokens = 0
        self._process = psutil.Process()
        self._told_s = 0.0

    def put(self, action: Callable[[], None]) -> None:
        """Has something done between two steps; any thread may ask for it."""
        self._inbox.put(action)

    def do(self, action: Callable[[], None]) -> None:
        """The same, and waits until it is done; not for the main thread."""
        done = threading.Event()
        self._inbox.put(action)
        self._inbox.put(done.set)
        done.wait()

    def named(self, name: str) -> Hosted:
        """The model of a name.

        Raises:
            ServeError: There is none.
        """
        hosted = self.hosted.get(name)
        if hosted is None:
            raise ServeError(404, "model_not_found", f"no model '{name}'", param="model")
        return hosted

    @contextmanager
    def lending(self, engine: Worker) -> Iterator[None]:
        """Lets the calling thread step an engine inside this block; what that says to others is told all the same."""
        self._lent.append(engine)
        try:
            yield
        finally:
            self._lent.remove(engine)

    def run(self) -> None:
        """Works until the server's process is gone.

        Raises:
            EndOfServer: It is.
            Exception: An engine broke.
        """
        while True:
            self._act()
            for engine in tuple(self._busy):
                if engine not in self._lent and not engine.advance():
                    del self._busy[engine]
            self._tell()
            if time.monotonic() - self._told_s >= self._pause_s:
                self._tell_how_it_is()

    def begin(self, asked_id: int, hosted: Hosted, request: Request) -> None:
        """Begins an answer; between two steps."""
        if self.hosted.get(hosted.model.name) is not hosted:
            self._fail(asked_id, _unloaded(hosted.model.name))
            return
        asked = _Asked(asked_id, hosted, Scorer(hosted.speller))
        asked.answer = hosted.engine.begin(request, lambda delta: self._said.append((asked, delta)))
        self._asked[asked_id] = asked
        self._busy[hosted.engine] = None

    def drop(self, asked_id: int) -> None:
        """Ends an answer that nobody waits for, if it has not ended; between two steps."""
        asked = self._asked.pop(asked_id, None)
        if asked is not None and asked.answer is not None:
            asked.hosted.engine.drop(asked.answer)

    def host(self, hosted: Hosted) -> None:
        """Hosts one model more; between two steps."""
        self.hosted[hosted.model.name] = hosted

    def forget(self, name: str) -> None:
        """Hosts a model no more, and ends the answers that it is giving; between two steps."""
        del self.hosted[name]
        for asked in [one for one in self._asked.values() if one.hosted.model.name == name]:
            self.drop(asked.id)
            self._fail(asked.id, _unloaded(name))

    @property
    def _pause_s(self) -> float:
        return _BUSY_S if self._busy or self._new_tokens or self._ended or self._intake_s() else _IDLE_S

    def _act(self) -> None:
        """Does what waits; waits for it where there is nothing else to do."""
        if all(engine in self._lent for engine in self._busy):
            wait_s = _LOOK_S if self._busy else max(0.0, self._told_s + self._pause_s - time.monotonic())
            with contextlib.suppress(queue.Empty):
                self._inbox.get(timeout=wait_s)()
        while not self._inbox.empty():
            self._inbox.get()()

    def _tell(self) -> None:
        """Writes what the step brought: one line for all answers, and one for each that failed."""
        pieces: list[tuple[int, Piece, Ending | None]] = []
        failed: list[tuple[int, ServeError]] = []
        for _ in range(len(self._said)):
            asked, delta = self._said.popleft()
            self._new_tokens += delta.token_id is not None
            completion = delta.completion
            if completion is not None:
                self._ended.append(completion)
            if asked.id not in self._asked:
                continue
            ending = None
            if completion is not None:
                del self._asked[asked.id]
                reason = _GOOD_ENDS.get(completion.finish_reason)
                if reason is None:
                    failed.append((asked.id, _failure(completion)))
                else:
                    ending = Ending(reason, completion.usage)
            pieces.append((asked.id, _piece(asked, delta), ending))
        if pieces:
            self._pipe.write(encode_step(pieces))
        for asked_id, error in failed:
            self._fail(asked_id, error)

    def _fail(self, asked_id: int, error: ServeError) -> None:
        self._pipe.write(encode(Failed.of(asked_id, error)))

    def _tell_how_it_is(self) -> None:
        self._told_s = time.monotonic()
        engines = {one.engine for one in self.hosted.values() if isinstance(one.engine, TorchEngine)}
        busy = Busy(
            memory_bytes=self._process.memory_info().rss,
            cache_tokens=_total(engine.cache_tokens for engine in engines),
            cache_bytes=_total(engine.cache_bytes for engine in engines),
            prompt_tokens=sum(one.usage.prompt_tokens for one in self._ended),
            reused_tokens=sum(one.usage.reused_tokens for one in self._ended),
            new_tokens=self._new_tokens,
            intake_s=self._intake_s(),
        )
        self._ended.clear()
        self._new_tokens = 0
        self._pipe.write(encode(busy))


def _piece(asked: _Asked, delta: Delta) -> Piece:
    scores = () if delta.logprob is None else (asked.scorer.score(delta.logprob),)
    return Piece(delta.text, () if delta.token_id is None else (delta.token_id,), scores)


def _failure(completion: Completion) -> ServeError:
    if completion.finish_reason == "deadline":
        return ServeError(504, "deadline_exceeded", "the deadline passed before the answer was whole")
    return ServeError(500, "answer_failed", f"the answer failed: {completion.error}")


def _total(counts: Iterable[int | None]) -> int | None:
    """What is known, together; None where nothing is."""
    known = [count for count in counts if count is not None]
    return sum(known) if known else None


def _unloaded(name: str) -> ServeError:
    return ServeError(404, "model_not_found", f"the adapter '{name}' was unloaded")
