"""What the server's process and a process that computes tell each other: JSON, one message a line.

Notable: all that one step of an engine brought is one line, an array; every other message is an object with its kind.
So a step costs one write and one read however many answers it advanced, and nothing but JSON ever crosses.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import orjson
from pydantic import Field, TypeAdapter

from whetstone.engine.api import Usage
from whetstone.serve.errors import ServeError
from whetstone.serve.question import Ending, Piece, Question, TokenScore
from whetstone.serve.served_model import Proof, ServedModel

__all__ = [
    "Ask",
    "Busy",
    "Done",
    "Drop",
    "Embed",
    "Failed",
    "LoadAdapter",
    "Loaded",
    "Lost",
    "Open",
    "Opening",
    "Order",
    "Ready",
    "Refused",
    "Stage",
    "ToServer",
    "ToWorker",
    "Told",
    "UnloadAdapter",
    "Vector",
    "encode_step",
    "read_from_server",
    "read_from_worker",
    "read_told",
]

_NO_PROBABILITY = -9999.0
"""What is told for the logarithm of zero, which JSON cannot say; OpenAI's servers tell the same."""


@dataclass(frozen=True, slots=True)
class Opening:
    """What a process is to serve.

    Attributes:
        refs: Names of models (:mod:`whetstone.models.ref`).
        runs: The folder that holds the runs.
        force: Serve what was not judged, or was rejected.
        test_mode: Allow random weights.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        dtype: Of the weights, where their names say none.
        adapter_roots: Folders; adapters that are loaded later lie in or below them.
    """

    refs: tuple[str, ...]
    runs: str
    force: bool = False
    test_mode: bool = False
    device: str = "auto"
    dtype: str | None = None
    adapter_roots: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Open:
    """The first message: opens models.

    Attributes:
        opening: Which.
        adapters: Name and source of those that were loaded while an earlier process served.
        earlier: What was proved of models by their names while an earlier process served.
    """

    opening: Opening
    adapters: tuple[tuple[str, str], ...] = ()
    earlier: dict[str, Proof] = field(default_factory=dict)
    kind: Literal["open"] = "open"


@dataclass(frozen=True, slots=True)
class Ask:
    """A question; its deadline counts from when it was sent."""

    id: int
    question: Question
    kind: Literal["ask"] = "ask"


@dataclass(frozen=True, slots=True)
class Drop:
    """Nobody waits for this any more."""

    id: int
    kind: Literal["drop"] = "drop"


@dataclass(frozen=True, slots=True)
class Embed:
    """Texts that are wanted as vectors; each becomes one :class:`Vector`, in their order."""

    id: int
    model: str
    texts: tuple[str | tuple[int, ...], ...]
    kind: Literal["embed"] = "embed"


@dataclass(frozen=True, slots=True)
class LoadAdapter:
    """An adapter that is to be served too; answered with :class:`Loaded`."""

    id: int
    name: str
    source: str
    kind: Literal["load_adapter"] = "load_adapter"


@dataclass(frozen=True, slots=True)
class UnloadAdapter:
    """An adapter that is to be forgotten; answered with :class:`Done`."""

    id: int
    name: str
    kind: Literal["unload_adapter"] = "unload_adapter"


Order = Ask | Drop | Embed | LoadAdapter | UnloadAdapter
"""What is said after the first message."""

ToWorker = Open | Order


@dataclass(frozen=True, slots=True)
class Stage:
    """What the process is doing before it is ready, in words."""

    said: str
    kind: Literal["stage"] = "stage"


@dataclass(frozen=True, slots=True)
class Ready:
    """All models are open.

    Attributes:
        models: They, and the adapters.
        lost: Names of adapters that could not be loaded again, each with the reason.
    """

    models: tuple[ServedModel, ...]
    lost: tuple[tuple[str, str], ...] = ()
    kind: Literal["ready"] = "ready"


@dataclass(frozen=True, slots=True)
class Refused:
    """The models cannot be served, and trying again changes nothing."""

    message: str
    kind: Literal["refused"] = "refused"


@dataclass(frozen=True, slots=True)
class Lost:
    """The process is about to end, because of a fault."""

    message: str
    kind: Literal["lost"] = "lost"


@dataclass(frozen=True, slots=True)
class Failed:
    """A question that gets no (further) answer; the fields are those of :class:`ServeError`."""

    id: int
    status: int
    code: str
    message: str
    param: str | None = None
    retry_after_s: float | None = None
    kind: Literal["failed"] = "failed"

    @classmethod
    def of(cls, asked: int, error: ServeError) -> "Failed":
        """What went wrong with a question."""
        return cls(asked, error.status, error.code, error.message, error.param, error.retry_after_s)

    @property
    def error(self) -> ServeError:
        """The same, to be raised."""
        return ServeError(self.status, self.code, self.message, param=self.param, retry_after_s=self.retry_after_s)


@dataclass(frozen=True, slots=True)
class Vector:
    """One text of an :class:`Embed`."""

    id: int
    vector: tuple[float, ...]
    tokens: int
    kind: Literal["vector"] = "vector"


@dataclass(frozen=True, slots=True)
class Loaded:
    """An adapter is served now; ``source`` is where it was said to lie."""

    id: int
    model: ServedModel
    source: str
    kind: Literal["loaded"] = "loaded"


@dataclass(frozen=True, slots=True)
class Done:
    """What was asked for has happened."""

    id: int
    kind: Literal["done"] = "done"


@dataclass(frozen=True, slots=True)
class Busy:
    """How the process is, told from time to time between two steps, so that silence means that it hangs.

    Attributes:
        memory_bytes: What it takes.
        cache_tokens: Tokens whose keys and values it holds; None where its engines do not say.
        cache_bytes: Their memory.
        prompt_tokens: Of prompts whose answers ended since it was last told.
        reused_tokens: Those of them that were not computed.
        new_tokens: Generated since it was last told.
        intake_s: For how long the same question is being read; 0 where none is.
    """

    memory_bytes: int
    cache_tokens: int | None = None
    cache_bytes: int | None = None
    prompt_tokens: int = 0
    reused_tokens: int = 0
    new_tokens: int = 0
    intake_s: float = 0.0
    kind: Literal["busy"] = "busy"


ToServer = Stage | Ready | Refused | Lost | Failed | Vector | Loaded | Done | Busy

Told = list[Any]
"""A piece of one answer in a step: its id, the text, the token ids; then the scores, and how the answer ended."""

_TO_WORKER: TypeAdapter[ToWorker] = TypeAdapter(Annotated[ToWorker, Field(discriminator="kind")])
_TO_SERVER: TypeAdapter[ToServer] = TypeAdapter(Annotated[ToServer, Field(discriminator="kind")])


def read_from_server(line: bytes) -> ToWorker:
    """The message of a line.

    Raises:
        ValueError: It is none.
    """
    return _TO_WORKER.validate_json(line)


def read_from_worker(line: bytes) -> ToServer | list[Told]:
    """The message of a line, or the pieces that a step brought.

    Raises:
        ValueError: It is neither.
    """
    if line.startswith(b"["):
        told: list[Told] = orjson.loads(line)
        return told
    return _TO_SERVER.validate_json(line)


def encode_step(pieces: Sequence[tuple[int, Piece, Ending | None]]) -> bytes:
    """What one step brought as a line: for each answer its id, a piece, and its end if it has ended."""
    return orjson.dumps([_told(*one) for one in pieces], option=orjson.OPT_APPEND_NEWLINE)


def read_told(told: Told) -> tuple[Piece, Ending | None]:
    """A piece out of a step, and the end of its answer if it has ended."""
    scores = tuple(_read_score(score) for score in told[3]) if len(told) > 3 else ()
    piece = Piece(told[1], tuple(told[2]), scores)
    if len(told) < 5:
        return piece, None
    reason, *counts = told[4]
    return piece, Ending(reason, Usage(*counts))


def _told(asked: int, piece: Piece, ending: Ending | None) -> list[Any]:
    told: list[Any] = [asked, piece.text, piece.token_ids]
    if piece.scores or ending is not None:
        told.append([_score(score) for score in piece.scores])
    if ending is not None:
        usage = ending.usage
        told.append([ending.finish_reason, usage.prompt_tokens, usage.new_tokens, usage.reused_tokens])
    return told


def _score(score: TokenScore) -> list[Any]:
    """Bytes travel as the text of Latin-1 that has them, half as long as an array of numbers."""
    spelled = None if score.bytes is None else bytes(score.bytes).decode("latin-1")
    return [score.token, spelled, score.token_id, score.logprob, [_score(other) for other in score.top]]


def _read_score(told: Sequence[Any]) -> TokenScore:
    token, spelled, token_id, logprob, top = told
    return TokenScore(
        token,
        None if spelled is None else tuple(spelled.encode("latin-1")),
        token_id,
        _NO_PROBABILITY if logprob is None else logprob,
        tuple(_read_score(other) for other in top),
    )
