"""The documents of ``/health``, as clients read them."""

from typing import Literal

from pydantic import BaseModel, ConfigDict

from whetstone.serve.backend import Phase
from whetstone.serve.served_model import Proof

__all__ = [
    "AdmissionHealth",
    "BackendHealth",
    "Health",
    "Live",
    "LoadHealth",
    "ModelHealth",
    "RateHealth",
    "Readiness",
]

Status = Literal["ready", "degraded", "not_ready", "draining"]
"""``degraded``: the first backend is not there, and a fallback answers."""


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True, from_attributes=True)


class Live(_Document):
    """The event loop runs."""

    status: Literal["live"] = "live"


class Readiness(_Document):
    """Whether requests are answered.

    Attributes:
        status: In one word; ``ready`` and ``degraded`` answer.
        reasons: What is not as it should be.
    """

    status: Status
    reasons: tuple[str, ...] = ()

    @property
    def answers(self) -> bool:
        """Whether new requests are answered."""
        return self.status in ("ready", "degraded")


class ModelHealth(_Document):
    """A model, and what was proved of it.

    Attributes:
        ready: Whether its backend answers.
        weights: ``random``: its answers mean nothing.
        forced: Why it would have been refused, where it is served because somebody said so.
    """

    name: str
    ready: bool
    weights: Literal["random", "real", "unknown"]
    verdict: Literal["SHIP", "REJECT", "INCONCLUSIVE"] | None
    forced: str | None
    proof: Proof
    ref: str
    engine: str
    device: str | None
    origin: str
    sha256: str | None
    adapter_sha256: str | None
    template_hash: str | None
    dtype: str | None
    quantisation: str | None
    context_tokens: int | None


class LoadHealth(_Document):
    """What a backend is busy with; None is not known."""

    running: int
    memory_bytes: int | None
    cache_tokens: int | None
    cache_bytes: int | None
    reused_tokens: int
    prompt_tokens: int
    new_tokens: int
    tokens_per_s: float


class BackendHealth(_Document):
    """Whoever answers.

    Attributes:
        fallback: Whether it is asked only while those before it are not there.
        said: What it is doing.
        retry_after_s: When it is tried again.
        last_error: Why it broke last.
    """

    name: str
    fallback: bool
    phase: Phase
    said: str
    restarts: int
    retry_after_s: float | None
    last_error: str | None
    load: LoadHealth
    models: tuple[ModelHealth, ...]


class AdmissionHealth(_Document):
    """Who waits, who is answered, and whether more are let in."""

    waiting: int
    running: int
    draining: bool


class RateHealth(_Document):
    """A rate of the last answers beside the judged one.

    Attributes:
        answers: How many are in the window; it decides nothing before it holds ``window`` of them.
        seen: How many of them count.
        low: Fewer are an alarm.
        high: More are an alarm.
        judged: How many of the judged samples counted.
        samples: How many judged samples there were; 0 where the limit rests on none.
        alarm_since: Since when it is out of its limits, UTC; None while it is not.
    """

    model: str
    backend: str
    rate: str
    answers: int
    window: int
    seen: int
    low: int
    high: int
    judged: int
    samples: int
    alarm_since: str | None


class Health(_Document):
    """All that is known.

    Attributes:
        status: As of ``/health/ready``.
        reasons: As of ``/health/ready``.
        warnings: What whoever relies on the answers must know.
        started_at: When the server began, UTC.
    """

    status: Status
    reasons: tuple[str, ...]
    warnings: tuple[str, ...]
    version: str
    started_at: str
    uptime_s: float
    admission: AdmissionHealth
    backends: tuple[BackendHealth, ...]
    drift: tuple[RateHealth, ...]
