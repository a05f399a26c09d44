"""From a core, which advances requests step by step, to an engine that threads and asynchronous code can share.

Whoever waits drives: ``generate`` steps the core in the calling thread, and one background thread steps it while an
asynchronous stream waits. Who owns an engine may step it as well: ``begin`` takes a request, ``advance`` steps, and the
pieces are told on the way. A lock makes the steps take turns, so a core never runs in two threads at once; what is to
happen between two steps (a new request, a cancelled one) waits in an inbox, so that nobody waits for a step to be told.
"""

import asyncio
import contextlib
import queue
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Future
from typing import Protocol, TypeVar

from whetstone.engine.answer import Answer
from whetstone.engine.api import Completion, Delta, Request
from whetstone.errors import UserError

__all__ = ["Core", "Listener", "Worker"]

Listener = Callable[[Delta], None]
"""Told the pieces of an answer, in the thread that steps, or that ends the answer between two steps; must not raise."""

_Result = TypeVar("_Result")

_LOOK_S = 0.005
"""How soon a thread that waits for something to be done between steps sees that nobody steps any more."""


class Core(Protocol):
    """Advances all its requests together; used by one thread at a time."""

    def check(self, request: Request) -> None:
        """Refuses a request that this core can never answer; may be called while another thread steps.

        Raises:
            UserError: It cannot be answered.
        """
        ...

    def submit(self, request: Request, listener: Listener) -> Answer:
        """Queues a request that was checked; its pieces are told to the listener."""
        ...

    def cancel(self, answer: Answer) -> None:
        """Ends a request that nobody waits for, unless it is finished; its place is free when this returns."""
        ...

    def step(self) -> bool:
        """Advances every running request by up to one token.

        Returns:
            Whether there is more to do.
        """
        ...

    def close(self) -> None:
        """Gives memory back."""
        ...


class Worker:
    """An engine over a core.

    A core that raises is broken: whoever waits is told the exception, and so is whoever asks later.
    """

    def __init__(self, core: Core) -> None:
        """Starts nothing; a thread begins with the first stream."""
        self._core = core
        self._stepping = threading.Lock()
        self._inbox: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None
        self._streams: set[_Stream] = set()
        self._starting = threading.Lock()
        self._ended: Exception | None = None
        self._closed = False

    def check(self, request: Request) -> None:
        """Refuses a request that can never be answered; may be called while another thread steps.

        Raises:
            UserError: It cannot be answered.
        """
        self._core.check(request)

    def begin(self, request: Request, listener: Listener) -> Answer:
        """Takes a request for whoever steps the engine itself; it is answered while somebody calls :meth:`advance`.

        Args:
            request: One that :meth:`check` did not refuse.
            listener: Told the pieces.
        """
        return self.do_between_steps(lambda: self._core.submit(request, listener))

    def drop(self, answer: Answer) -> None:
        """Cancels what was begun, unless it has ended; its place is free when this returns."""
        self.do_between_steps(lambda: self._core.cancel(answer))

    def advance(self) -> bool:
        """Does what waits to be done between two steps, then one step.

        Returns:
            Whether there is more to do.
        """
        with self._stepping:
            return self._turn(self._core.step)

    def generate(self, requests: Sequence[Request]) -> list[Completion]:
        """Answers requests, in their order, as one batch if nothing else runs.

        Raises:
            UserError: One of the requests cannot be answered; none is begun then.
        """
        for request in requests:
            self.check(request)
        answers: list[Answer] = []

        def begin() -> None:
            answers.extend(self._core.submit(request, _nobody) for request in requests)

        def cancel() -> None:
            for answer in answers:
                self._core.cancel(answer)

        self._inbox.put(begin)
        try:
            while len(answers) < len(requests):
                self.advance()
            for answer in answers:
                while answer.completion is None:
                    self.advance()
        except BaseException:
            self._inbox.put(cancel)
            self._wake.set()
            raise
        return [answer.completion for answer in answers if answer.completion is not None]

    async def stream(self, request: Request) -> AsyncIterator[Delta]:
        """Answers one request piece by piece; leaving the iteration early cancels it.

        Raises:
            UserError: The request cannot be answered.
        """
        self.check(request)
        stream = _Stream(asyncio.get_running_loop())

        def begin() -> None:
            stream.answer = self._core.submit(request, stream.tell)

        def leave() -> None:
            self._streams.discard(stream)
            if stream.answer is not None:
                self._core.cancel(stream.answer)

        # Listens before it looks whether the engine has ended, so that whoever ends it meanwhile tells this stream.
        self._streams.add(stream)
        if self._ended is not None:
            self._streams.discard(stream)
            raise self._ended.with_traceback(None)
        self._inbox.put(begin)
        self._start()
        try:
            while True:
                piece = await stream.pieces.get()
                if isinstance(piece, Exception):
                    raise piece
                yield piece
                if piece.completion is not None:
                    return
        finally:
            self._inbox.put(leave)
            self._wake.set()

    def between_steps(self, action: Callable[[], None]) -> None:
        """Has the core do something before its next step, and before requests that come later; waits for nothing."""
        self._inbox.put(action)

    def do_between_steps(self, action: Callable[[], _Result]) -> _Result:
        """Does something to the core between two of its steps, and waits until it is done.

        Whoever steps does it before the next step; where nobody steps, it is done right here. A listener must not call
        this: it is told amid a step, which would wait for itself. What the action raises is raised here and breaks
        nothing, so an action that fails has to leave the core as it was.
        """
        if self._ended is not None:
            raise self._ended.with_traceback(None)
        outcome: Future[_Result] = Future()

        def settle() -> None:
            try:
                outcome.set_result(action())
            except Exception as error:
                outcome.set_exception(error)

        self._inbox.put(settle)
        while not outcome.done():
            # Never waits for the lock itself: it is not fair, and whoever steps would take it again and again.
            if self._stepping.acquire(blocking=False):
                try:
                    self._turn(lambda: False)
                finally:
                    self._stepping.release()
            else:
                with contextlib.suppress(TimeoutError):
                    outcome.exception(_LOOK_S)
        return outcome.result()

    def close(self) -> None:
        """Ends what is running, and the thread, and gives memory back; to close twice is nothing."""
        with self._stepping:
            if not self._closed:
                self._closed = True
                self._end(self._ended or UserError("the engine is closed; open it again"))
                self._core.close()
        self._wake.set()
        with self._starting:
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def _start(self) -> None:
        with self._starting:
            if self._thread is None:
                self._thread = threading.Thread(target=self._drive, name="whet-engine", daemon=True)
                self._thread.start()
        self._wake.set()

    def _drive(self) -> None:
        """What the background thread does: steps while there is work, and then sleeps."""
        while True:
            self._wake.wait()
            self._wake.clear()
            # Whoever waited was told why; the thread itself has nobody to raise it to.
            with contextlib.suppress(BaseException):
                while self.advance():
                    pass
            if self._ended is not None:
                return

    def _turn(self, then: Callable[[], bool]) -> bool:
        """Does what waits in the inbox, and then this; the caller holds the lock."""
        if self._ended is not None:
            # Each raise adds to the traceback, and would keep the frames of all who ever asked.
            raise self._ended.with_traceback(None)
        try:
            while not self._inbox.empty():
                self._inbox.get()()
            return then()
        except Exception as error:
            self._end(error)
            raise
        except BaseException:
            # Ctrl-C concerns nobody but this thread; that the step is only half done concerns all.
            self._end(UserError("the engine was interrupted; open it again"))
            raise

    def _end(self, reason: Exception) -> None:
        self._ended = reason
        for stream in tuple(self._streams):
            stream.tell(reason)
        self._streams.clear()


class _Stream:
    """One listener in an event loop of its own."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.pieces: asyncio.Queue[Delta | Exception] = asyncio.Queue()
        self.answer: Answer | None = None
        self._loop = loop

    def tell(self, piece: Delta | Exception) -> None:
        # The loop may have been closed by whoever stopped listening.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self.pieces.put_nowait, piece)


def _nobody(piece: Delta) -> None:
    """Whoever waits for whole answers listens to no pieces."""
