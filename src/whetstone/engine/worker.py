"""From a core, which advances requests step by step, to an engine that threads and asynchronous code can share.

Whoever waits drives: ``generate`` steps the core in the calling thread, and one background thread steps it while an
asynchronous stream waits. A lock makes the steps take turns, so a core never runs in two threads at once; what is to
happen between two steps (a new request, a cancelled one) waits in an inbox, so that nobody waits for a step to be told.
"""

import asyncio
import contextlib
import queue
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Protocol

from whetstone.engine.answer import Answer
from whetstone.engine.api import Completion, Delta, Request
from whetstone.errors import UserError

__all__ = ["Core", "Listener", "Worker"]

Listener = Callable[[Delta], None]
"""Told the pieces of an answer, in the thread that steps."""


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

    def generate(self, requests: Sequence[Request]) -> list[Completion]:
        """Answers requests, in their order, as one batch if nothing else runs.

        Raises:
            UserError: One of the requests cannot be answered; none is begun then.
        """
        for request in requests:
            self._core.check(request)
        answers: list[Answer] = []

        def begin() -> None:
            answers.extend(self._core.submit(request, _nobody) for request in requests)

        def cancel() -> None:
            for answer in answers:
                self._core.cancel(answer)

        self._inbox.put(begin)
        try:
            while len(answers) < len(requests):
                self._advance()
            for answer in answers:
                while answer.completion is None:
                    self._advance()
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
        self._core.check(request)
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
        """Has the core do something before its next step, and before requests that come later."""
        self._inbox.put(action)

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
                while self._advance():
                    pass
            if self._ended is not None:
                return

    def _advance(self) -> bool:
        """Does what waits in the inbox, then one step; says whether there is more to do."""
        with self._stepping:
            if self._ended is not None:
                # Each raise adds to the traceback, and would keep the frames of all who ever asked.
                raise self._ended.with_traceback(None)
            try:
                while not self._inbox.empty():
                    self._inbox.get()()
                return self._core.step()
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
