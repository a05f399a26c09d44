"""Makes requests of questions, beside the thread that steps: a long prompt must not stall the answers of others."""

import contextlib
import threading
import time
from functools import partial

from whetstone.serve.errors import ServeError
from whetstone.serve.worker.hosted import Hosted
from whetstone.serve.worker.incoming import Incoming, tell_fault
from whetstone.serve.worker.pipes import EndOfServer, Pipe
from whetstone.serve.worker.protocol import Ask, Drop, Failed, Open, ToWorker, encode
from whetstone.serve.worker.stepper import Stepper

__all__ = ["Intake"]


class Intake:
    """Takes messages one after the other, and hands what is to be done to the stepper."""

    def __init__(self, incoming: Incoming, pipe: Pipe) -> None:
        """Takes nothing yet."""
        self._incoming = incoming
        self._pipe = pipe
        self._since_s: float | None = None

    @property
    def busy_s(self) -> float:
        """For how long the same message is being read."""
        since_s = self._since_s
        return 0.0 if since_s is None else time.monotonic() - since_s

    def start(self, stepper: Stepper) -> None:
        """Begins, in a thread of its own."""
        threading.Thread(target=self._take, args=(stepper,), name="whet-intake", daemon=True).start()

    def _take(self, stepper: Stepper) -> None:
        while True:
            came_s, message = self._incoming.messages.get()
            self._since_s = time.monotonic()
            try:
                self._read(message, came_s, stepper)
            except ServeError as error:
                self._refuse(message, error)
            except Exception as error:
                tell_fault(error)
                self._refuse(message, ServeError(500, "internal_error", f"reading it failed: {type(error).__name__}"))
            self._since_s = None

    def _read(self, message: ToWorker, came_s: float, stepper: Stepper) -> None:
        match message:
            case Ask(asked_id, question):
                if asked_id in self._incoming.dropped:
                    return
                hosted = _hosted(stepper, question.model)
                left_s = question.deadline_s
                request = hosted.request(question, None if left_s is None else came_s + left_s)
                stepper.put(partial(stepper.begin, asked_id, hosted, request))
            case Drop(asked_id):
                self._incoming.dropped.discard(asked_id)
                stepper.put(partial(stepper.drop, asked_id))

    def _refuse(self, message: ToWorker, error: ServeError) -> None:
        # Where the server's process is gone, so will be this one in a moment.
        with contextlib.suppress(EndOfServer):
            if not isinstance(message, Open):
                self._pipe.write(encode(Failed.of(message.id, error)))


def _hosted(stepper: Stepper, name: str) -> Hosted:
    hosted = stepper.hosted.get(name)
    if hosted is None:
        raise ServeError(404, "model_not_found", f"no model '{name}'", param="model")
    return hosted
