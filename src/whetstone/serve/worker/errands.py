"""What takes longer than a step, in threads of their own: texts to embed, and adapters to load.

An engine does its part of them between two steps, so that answers go on meanwhile.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from whetstone.errors import UserError
from whetstone.serve.errors import ServeError
from whetstone.serve.json_line import encode
from whetstone.serve.worker.adapters import load_adapter, unload_adapter
from whetstone.serve.worker.faults import as_serve_error
from whetstone.serve.worker.hosted import Hosted
from whetstone.serve.worker.pipes import EndOfServer, Pipe
from whetstone.serve.worker.protocol import Done, Failed, Loaded, Opening, Vector
from whetstone.serve.worker.stepper import Stepper

__all__ = ["Errands"]


class Errands:
    """Embeds one text after the other, and loads one adapter after the other."""

    def __init__(self, opening: Opening, stepper: Stepper, pipe: Pipe) -> None:
        """Begins nothing yet.

        Args:
            opening: What the process was started with.
            stepper: Steps the engines.
            pipe: Where results go.
        """
        self._opening = opening
        self._stepper = stepper
        self._pipe = pipe
        self._wanted: set[int] = set()
        self._embedding = ThreadPoolExecutor(1, "whet-embedding")
        self._adapting = ThreadPoolExecutor(1, "whet-adapting")

    def embed(self, asked_id: int, hosted: Hosted, texts: Sequence[tuple[int, ...]]) -> None:
        """Makes vectors of texts, until nobody wants them."""
        self._wanted.add(asked_id)
        self._embedding.submit(self._run, asked_id, partial(self._embed, asked_id, hosted, texts))

    def drop(self, asked_id: int) -> None:
        """Nobody waits for these vectors any more, if that is what they are."""
        self._wanted.discard(asked_id)

    def load_adapter(self, asked_id: int, name: str, source: str) -> None:
        """Loads an adapter."""
        self._adapting.submit(self._run, asked_id, partial(self._load, asked_id, name, source))

    def unload_adapter(self, asked_id: int, name: str) -> None:
        """Forgets an adapter."""
        self._adapting.submit(self._run, asked_id, partial(self._unload, asked_id, name))

    def _run(self, asked_id: int, errand: Callable[[], None]) -> None:
        try:
            errand()
        except EndOfServer:
            return
        except Exception as error:
            self._pipe.write(encode(Failed.of(asked_id, as_serve_error(error))))

    def _embed(self, asked_id: int, hosted: Hosted, texts: Sequence[tuple[int, ...]]) -> None:
        for text in texts:
            if asked_id not in self._wanted:
                return
            vector = hosted.opened.embed(text)
            self._pipe.write(encode(Vector(asked_id, tuple(vector), len(text))))
        self._wanted.discard(asked_id)

    def _load(self, asked_id: int, name: str, source: str) -> None:
        stepper = self._stepper
        if name in stepper.hosted:
            raise ServeError(409, "name_taken", f"there is a model '{name}' already; choose another name", param="name")
        try:
            hosted = load_adapter(name, source, self._opening, list(stepper.hosted.values()), stepper.lending)
        except UserError as error:
            raise ServeError(400, "adapter_refused", str(error), param="source") from None
        stepper.do(partial(stepper.host, hosted))
        self._pipe.write(encode(Loaded(asked_id, hosted.model, source)))

    def _unload(self, asked_id: int, name: str) -> None:
        hosted = self._stepper.named(name)
        self._stepper.do(partial(self._stepper.forget, name))
        unload_adapter(hosted)
        self._pipe.write(encode(Done(asked_id)))
