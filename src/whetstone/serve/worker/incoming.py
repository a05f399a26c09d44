"""Hears the server's process, and ends this one with it."""

import os
import queue
import threading
import time

import orjson
from pydantic import ValidationError

from whetstone.serve.errors import ServeError
from whetstone.serve.json_line import encode
from whetstone.serve.worker.faults import tell_fault
from whetstone.serve.worker.pipes import Pipe
from whetstone.serve.worker.protocol import Drop, Failed, Open, Order, ToWorker, read_from_server

__all__ = ["Incoming"]


class Incoming:
    """What the server's process said and nobody has taken yet.

    Attributes:
        opening: The first message.
        orders: The others, with the time at which each came.
        dropped: Answers that nobody waits for, while the message that says so was not taken.
    """

    def __init__(self, pipe: Pipe) -> None:
        """Begins to listen, in a thread of its own."""
        self.opening: queue.SimpleQueue[Open] = queue.SimpleQueue()
        self.orders: queue.SimpleQueue[tuple[float, Order]] = queue.SimpleQueue()
        self.dropped: set[int] = set()
        self._pipe = pipe
        threading.Thread(target=self._listen, name="whet-incoming", daemon=True).start()

    def _listen(self) -> None:
        try:
            for line in self._pipe.lines():
                try:
                    self._take(read_from_server(line))
                except ValidationError as error:
                    self._refuse(line, error)
        except Exception as error:
            tell_fault(error)
            os._exit(1)
        # The main thread may be amid something long, and nobody is there any more who would hear of it.
        os._exit(0)

    def _take(self, message: ToWorker) -> None:
        if isinstance(message, Open):
            self.opening.put(message)
            return
        if isinstance(message, Drop):
            self.dropped.add(message.id)
        self.orders.put((time.monotonic(), message))

    def _refuse(self, line: bytes, error: ValidationError) -> None:
        """A question that is none, as one with a temperature that is no number, is its own asker's fault alone."""
        asked = orjson.loads(line)
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        refusal = ServeError.invalid(f"the question cannot be read: {place}: {first['msg']}")
        self._pipe.write(encode(Failed.of(asked["id"], refusal)))
