"""What is known of a model that is served: what it is, what was proved of it, and how it is asked by default."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from whetstone.serve_section import Validate

__all__ = ["JudgedRate", "Proof", "ServedModel", "Usual"]


class _Told(BaseModel):
    """Crosses from the process that computes to the one that answers, as JSON."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Usual(_Told):
    """How a model is asked where a request does not say: as it was judged.

    Attributes:
        temperature: Zero is greedy.
        top_p: Of the sampling.
        max_new_tokens: The longest answer; None for 512, or the fewer that the context leaves.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    max_new_tokens: int | None = None


class Proof(_Told):
    """Whether what is served is what was judged.

    Attributes:
        verdict: Of the run, computed from its rows; None where there is no judgement, and for a run's base.
        reasons: What the gates say, in the order of the report.
        judged_at: When the rule was frozen.
        replayed: Stored samples that were asked again when the model was loaded.
        equal: Those of them whose tokens were the same.
        forced: It is served because somebody said so, and not by its verdict and its replay; the reason why it would
            have been refused. None where it needed no force.
    """

    verdict: Literal["SHIP", "REJECT", "INCONCLUSIVE"] | None = None
    reasons: tuple[str, ...] = ()
    judged_at: str | None = None
    replayed: int = 0
    equal: int = 0
    forced: str | None = None


class JudgedRate(_Told):
    """A rate of the judged samples, and between which counts of so many answers it may lie by chance.

    Attributes:
        name: ``empty``, ``over_long``, ``extra_text``, ``copy`` or ``long_answer`` (longer than nine in ten judged).
        judged: How many of the judged samples had it.
        samples: How many judged samples there were.
        window: How many live answers are looked at together.
        low: Fewer than this many of a window are out of control; 0 where none are too few.
        high: More than this many of a window are out of control.
        threshold: The bound that the rate counts beyond, for ``long_answer`` in tokens and ``extra_text`` in words.
    """

    name: str
    judged: int
    samples: int
    window: int
    low: int
    high: int
    threshold: float | None = None


class ServedModel(_Told):
    """One name of a server.

    Attributes:
        name: What requests call it.
        ref: What names it here (:mod:`whetstone.models.ref`).
        engine: What computes: ``torch``, ``llama.cpp``, ``mlx``, ``vllm`` or ``http``.
        device: Where, as torch names it; None where the engine decides.
        origin: Where the weights are from, in words.
        sha256: Hash of the weights.
        adapter_sha256: Hash of the adapter on them.
        dtype: The type of the weights that are not quantised.
        quantisation: Of the weights.
        template_hash: The chat template.
        random_weights: The answers mean nothing.
        context_tokens: The longest prompt and answer together.
        embeds: Whether it gives embeddings.
        usual: How it is asked by default.
        system_prompt: The system turn of conversations that bring none.
        validation: What its answers must be.
        proof: What was proved of it.
        experiment: What it was tuned by, as in ``run.json``; None where it is not of a run.
        judged_rates: What its live answers are compared with.
        created: When its weights were tuned, in seconds since 1970; when the server began where nobody knows.
    """

    name: str
    ref: str
    engine: str
    origin: str
    device: str | None = None
    sha256: str | None = None
    adapter_sha256: str | None = None
    dtype: str | None = None
    quantisation: str | None = None
    template_hash: str | None = None
    random_weights: bool = False
    context_tokens: Annotated[int, Field(gt=0)] | None = None
    embeds: bool = False
    usual: Usual = Usual()
    system_prompt: str | None = None
    validation: Validate | None = None
    proof: Proof = Proof()
    experiment: dict[str, Any] | None = None
    judged_rates: tuple[JudgedRate, ...] = ()
    created: int = 0
