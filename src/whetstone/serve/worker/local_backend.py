"""Models of this machine, computed by a process beside the server's."""

from collections.abc import AsyncIterator, Mapping, Sequence

from whetstone.serve.backend import BackendState, Embedding, Load
from whetstone.serve.errors import ServeError
from whetstone.serve.question import Ending, Piece, Question
from whetstone.serve.served_model import ServedModel
from whetstone.serve.worker.child import PROGRAM, Child
from whetstone.serve.worker.in_flight import Waiting
from whetstone.serve.worker.protocol import (
    Ask,
    Drop,
    Embed,
    LoadAdapter,
    Loaded,
    Opening,
    ToWorker,
    UnloadAdapter,
    Vector,
    read_told,
)
from whetstone.serve.worker.supervisor import Patience, Supervisor

__all__ = ["LocalBackend"]


class LocalBackend:
    """A :class:`whetstone.serve.backend.Backend` over a process of our own."""

    def __init__(
        self,
        opening: Opening,
        patience: Patience | None = None,
        *,
        name: str = "local",
        program: Sequence[str] = PROGRAM,
    ) -> None:
        """Starts nothing yet.

        Args:
            opening: What to serve.
            patience: With a process that fails.
            name: What responses call it; no other backend of the server may have it.
            program: The process; another one only for tests.
        """
        self._name = name
        self._supervisor = Supervisor(opening, patience or Patience(), program)

    @property
    def name(self) -> str:
        """What responses call it."""
        return self._name

    @property
    def state(self) -> BackendState:
        """How it is now."""
        return self._supervisor.state

    @property
    def models(self) -> Mapping[str, ServedModel]:
        """What it serves, by name."""
        return self._supervisor.models

    @property
    def load(self) -> Load:
        """What it is busy with."""
        return self._supervisor.counts.load(len(self._supervisor.in_flight))

    async def start(self) -> None:
        """Begins in the background."""
        self._supervisor.start()

    async def close(self) -> None:
        """Ends the process."""
        await self._supervisor.close()

    async def ask(self, question: Question) -> AsyncIterator[Piece | Ending]:
        """Answers, piece by piece; leaving the iteration early cancels it.

        Raises:
            ServeError: The question is wrong, or gets no whole answer.
        """
        child = self._supervisor.child_for(question.model)
        with self._supervisor.in_flight.waiting(question.deadline_s) as waiting:
            _post(child, Ask(waiting.id, question))
            try:
                await child.drain()
                ending = None
                while ending is None:
                    told = await waiting.next()
                    assert isinstance(told, list)
                    piece, ending = read_told(told)
                    yield piece
                yield ending
            finally:
                _drop(child, waiting)

    async def embed(self, model: str, texts: Sequence[str | tuple[int, ...]]) -> list[Embedding]:
        """The texts as vectors.

        Raises:
            ServeError: A text is wrong, or they cannot be had.
        """
        child = self._supervisor.child_for(model)
        with self._supervisor.in_flight.waiting() as waiting:
            _post(child, Embed(waiting.id, model, tuple(texts)))
            try:
                await child.drain()
                heard = [await waiting.next() for _ in texts]
                waiting.over = True
            finally:
                _drop(child, waiting)
        return [Embedding(one.vector, one.tokens) for one in heard if isinstance(one, Vector)]

    async def load_adapter(self, name: str, source: str) -> ServedModel:
        """Loads an adapter while the others answer; it is loaded again when the process is started again.

        Raises:
            ServeError: It cannot be served.
        """
        if name in self.models:
            raise ServeError(409, "name_taken", f"there is a model '{name}' already; choose another name", param="name")
        child = self._supervisor.child_for()
        with self._supervisor.in_flight.waiting() as waiting:
            _post(child, LoadAdapter(waiting.id, name, source))
            loaded = await waiting.next()
            assert isinstance(loaded, Loaded)
            return loaded.model

    async def unload_adapter(self, name: str) -> None:
        """Forgets an adapter that was loaded so; answers that it is giving are ended first.

        Raises:
            ServeError: There is none of this name, or the server was started with it.
        """
        supervisor = self._supervisor
        child = supervisor.child_for(name)
        if name not in supervisor.adapters:
            raise ServeError(409, "not_loaded_so", f"the server was started with '{name}', and keeps it", param="name")
        with supervisor.in_flight.waiting() as waiting:
            _post(child, UnloadAdapter(waiting.id, name))
            del supervisor.models[name], supervisor.adapters[name]
            await waiting.next()


def _post(child: Child, message: ToWorker) -> None:
    try:
        child.post(message)
    except ValueError as error:
        raise ServeError.invalid(f"it cannot be written as JSON: {error}") from None


def _drop(child: Child, waiting: Waiting) -> None:
    if not waiting.over:
        child.post(Drop(waiting.id))
