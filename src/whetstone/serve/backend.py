"""Whoever answers: a process of ours, a server of another program behind ours, or a server somewhere else."""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from whetstone.serve.question import Ending, Piece, Question
from whetstone.serve.served_model import ServedModel

__all__ = ["Backend", "BackendState", "Embedding", "Load"]

Phase = Literal["starting", "ready", "restarting", "failed", "closed"]
"""``starting``: the first time. ``restarting``: it broke and comes back. ``failed``: it stays away."""


@dataclass(frozen=True, slots=True)
class BackendState:
    """How a backend is.

    Attributes:
        phase: In one word.
        said: What it is doing, in words (``loading weights``); empty where there is nothing to say.
        restarts: How often it was started again.
        retry_after_s: When to ask again; None while it is ready or has failed for good.
        last_error: Why it broke last.
    """

    phase: Phase
    said: str = ""
    restarts: int = 0
    retry_after_s: float | None = None
    last_error: str | None = None


@dataclass(frozen=True, slots=True)
class Load:
    """What a backend is busy with.

    Attributes:
        running: Answers that are being generated.
        memory_bytes: What its process takes; None where it has none of its own.
        cache_tokens: Tokens whose keys and values it holds; None where nobody knows.
        cache_bytes: Memory of the keys and values.
        reused_tokens: Prompt tokens that were not computed since it began.
        prompt_tokens: All prompt tokens since it began.
        new_tokens: All generated tokens since it began.
        tokens_per_s: Generated in the last ten seconds.
    """

    running: int = 0
    memory_bytes: int | None = None
    cache_tokens: int | None = None
    cache_bytes: int | None = None
    reused_tokens: int = 0
    prompt_tokens: int = 0
    new_tokens: int = 0
    tokens_per_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Embedding:
    """A text as a vector, with how many tokens it took."""

    vector: tuple[float, ...]
    tokens: int


class Backend(Protocol):
    """Answers questions; used in one event loop."""

    @property
    def name(self) -> str:
        """What responses call it: ``torch``, ``llama.cpp http://127.0.0.1:41234``."""
        ...

    @property
    def state(self) -> BackendState:
        """How it is now."""
        ...

    @property
    def models(self) -> Mapping[str, ServedModel]:
        """What it serves, by name; empty until it is ready for the first time."""
        ...

    @property
    def load(self) -> Load:
        """What it is busy with."""
        ...

    async def start(self) -> None:
        """Begins in the background and returns at once; ``state`` tells how it goes."""
        ...

    def ask(self, question: Question) -> AsyncIterator[Piece | Ending]:
        """Answers, piece by piece, and ends with one :class:`Ending`; leaving the iteration early cancels it.

        Raises:
            ServeError: 400 the question is wrong; 503 it cannot answer now, before or amid the pieces; 504 the
                deadline passed; 500 the answer failed.
        """
        ...

    async def embed(self, model: str, texts: Sequence[str | tuple[int, ...]]) -> list[Embedding]:
        """The texts as vectors.

        Raises:
            ServeError: As of :meth:`ask`.
        """
        ...

    async def load_adapter(self, name: str, source: str) -> ServedModel:
        """Loads an adapter while the others answer.

        Args:
            name: What requests will call it.
            source: ``run:NAME``, or a folder below one of the roots that the server was started with.

        Raises:
            ServeError: It is not there, not below a root, does not fit, was not judged, or the name is taken.
        """
        ...

    async def unload_adapter(self, name: str) -> None:
        """Forgets an adapter that was loaded so; answers that it is giving are ended first.

        Raises:
            ServeError: There is none of this name, or the server was started with it.
        """
        ...

    async def close(self) -> None:
        """Ends it; what is being answered fails."""
        ...
