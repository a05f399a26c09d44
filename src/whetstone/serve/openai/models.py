"""``/v1/models``: what is served, and what was proved of it."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from whetstone.experiment import NAME_PATTERN
from whetstone.serve.openai.fields import Wire
from whetstone.serve.served_model import JudgedRate, Proof, Usual

__all__ = ["AdapterRequest", "Deleted", "ModelCard", "ModelEntry", "ModelList"]

Verdict = Literal["SHIP", "REJECT", "INCONCLUSIVE"]


class Known(BaseModel):
    """What OpenAI's entry does not say."""

    verdict: Verdict | None
    """Of the run; null where there was no judgement."""
    forced: str | None
    """Why it would have been refused, where somebody said that it be served all the same."""
    backend: str
    ready: bool
    engine: str
    fingerprint: str
    """What responses call ``system_fingerprint``."""
    context_tokens: int | None
    embeds: bool
    random_weights: bool


class ModelEntry(BaseModel):
    """One model."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: Literal["whetstone"]
    whetstone: Known


class ModelList(BaseModel):
    """All of them."""

    object: Literal["list"]
    data: list[ModelEntry]


class Hashes(BaseModel):
    """What can be compared with files."""

    weights_sha256: str | None
    adapter_sha256: str | None
    template: str | None
    system_prompt_sha256: str | None


class ModelCard(BaseModel):
    """What is known of one model."""

    id: str
    object: Literal["model.card"]
    created: int
    verdict: Verdict | None
    reasons: list[str]
    """What the gates say, in the order of the report."""
    judged_at: str | None
    proof: Proof
    hashes: Hashes
    backend: str
    ready: bool
    fingerprint: str
    ref: str
    engine: str
    device: str | None
    origin: str
    dtype: str | None
    quantisation: str | None
    random_weights: bool
    context_tokens: int | None
    embeds: bool
    usual: Usual
    """How it is asked where a request does not say."""
    validation: dict[str, Any] | None
    """What its answers must be."""
    recipe: dict[str, Any] | None
    """The experiment that it was tuned by, its system prompts as hashes."""
    judged_rates: list[JudgedRate]
    """What its live answers are compared with."""


class AdapterRequest(Wire):
    """An adapter that is to be served too."""

    name: Annotated[str, Field(pattern=f"^{NAME_PATTERN}$")]
    """What requests will call it."""
    source: Annotated[str, Field(min_length=1, max_length=1024)]
    """``run:NAME``, or a folder below one of those that the server was started with."""
    backend: str | None = None
    """Who loads it, as ``x-whetstone-backend`` says it; the first where it is left out."""


class Deleted(BaseModel):
    """An adapter that is not served any more."""

    id: str
    object: Literal["model"]
    deleted: Literal[True]
