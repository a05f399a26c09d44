"""Hears the server's process, and ends this one with it."""

import os
import queue
import sys
import threading
import time
import traceback

from whetstone.serve.worker.pipes import Pipe
from whetstone.serve.worker.protocol import Drop, ToWorker, read_from_server

__all__ = ["Incoming", "tell_fault"]


class Incoming:
    """What the server's process said and nobody has taken yet.

    Attributes:
        messages: With the time at which each came.
        dropped: Answers that nobody waits for, while the message that says so was not taken.
    """

    def __init__(self, pipe: Pipe) -> None:
        """Begins to listen, in a thread of its own."""
        self.messages: queue.SimpleQueue[tuple[float, ToWorker]] = queue.SimpleQueue()
        self.dropped: set[int] = set()
        self._pipe = pipe
        threading.Thread(target=self._listen, name="whet-incoming", daemon=True).start()

    def _listen(self) -> None:
        try:
            for line in self._pipe.lines():
                message = read_from_server(line)
                if isinstance(message, Drop):
                    self.dropped.add(message.id)
                self.messages.put((time.monotonic(), message))
        except Exception as error:
            tell_fault(error)
            os._exit(1)
        # The main thread may be amid something long, and nobody is there any more who would hear of it.
        os._exit(0)


def tell_fault(error: BaseException) -> None:
    """Says on standard error where a fault was; not its words, which may quote a prompt."""
    traceback.print_tb(error.__traceback__, file=sys.stderr)
    sys.stderr.write(f"{type(error).__name__}\n")
    sys.stderr.flush()
