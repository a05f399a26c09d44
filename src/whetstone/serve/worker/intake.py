"""Makes requests of questions, beside the thread that steps: a long prompt must not stall the answers of others."""

import contextlib
import threading
import time
from functools import partial

from whetstone.serve.json_line import encode
from whetstone.serve.worker.errands import Errands
from whetstone.serve.worker.faults import as_serve_error
from whetstone.serve.worker.incoming import Incoming
from whetstone.serve.worker.pipes import EndOfServer, Pipe
from whetstone.serve.worker.protocol import Ask, Drop, Embed, Failed, LoadAdapter, Order, UnloadAdapter
from whetstone.serve.worker.stepper import Stepper

__all__ = ["Intake"]


class Intake:
    """Takes messages one after the other, and hands what is to be done to the stepper."""

    def __init__(self, incoming: Incoming, pipe: Pipe) -> None:
        """Takes nothing yet.

        Args:
            incoming: Where messages come from.
            pipe: Where refusals go.
        """
        self._incoming = incoming
        self._pipe = pipe
        self._since_s: float | None = None

    @property
    def busy_s(self) -> float:
        """For how long the same message is being read."""
        since_s = self._since_s
        return 0.0 if since_s is None else time.monotonic() - since_s

    def start(self, stepper: Stepper, errands: Errands) -> None:
        """Begins, in a thread of its own."""
        threading.Thread(target=self._take, args=(stepper, errands), name="whet-intake", daemon=True).start()

    def _take(self, stepper: Stepper, errands: Errands) -> None:
        while True:
            came_s, message = self._incoming.orders.get()
            self._since_s = time.monotonic()
            try:
                self._read(message, came_s, stepper, errands)
            except Exception as error:
                with contextlib.suppress(EndOfServer):
                    self._pipe.write(encode(Failed.of(message.id, as_serve_error(error))))
            self._since_s = None

    def _read(self, message: Order, came_s: float, stepper: Stepper, errands: Errands) -> None:
        match message:
            case Ask(asked_id, question):
                if asked_id in self._incoming.dropped:
                    return
                hosted = stepper.named(question.model)
                left_s = question.deadline_s
                request = hosted.request(question, None if left_s is None else came_s + left_s)
                stepper.put(partial(stepper.begin, asked_id, hosted, request))
            case Embed(asked_id, model, texts):
                hosted = stepper.named(model)
                errands.embed(asked_id, hosted, [hosted.token_ids(text, new_tokens=0) for text in texts])
            case Drop(asked_id):
                self._incoming.dropped.discard(asked_id)
                errands.drop(asked_id)
                stepper.put(partial(stepper.drop, asked_id))
            case LoadAdapter(asked_id, name, source):
                errands.load_adapter(asked_id, name, source)
            case UnloadAdapter(asked_id, name):
                errands.unload_adapter(asked_id, name)
