"""From what was opened and proved to what a server tells of a model."""

import datetime
import time
from typing import Any

from whetstone.engine.open import Opened
from whetstone.engine.torch_engine import TorchEngine
from whetstone.serve.proof.judged_rates import judged_rates
from whetstone.serve.proof.replay import Replay
from whetstone.serve.proof.verdict import Standing
from whetstone.serve.served_model import JudgedRate, Proof, ServedModel, Usual

__all__ = ["served_model"]


def served_model(
    name: str, standing: Standing, opened: Opened, replayed: Replay, *, forced: str | None, device: str | None
) -> ServedModel:
    """All that is told of a model.

    Args:
        name: What requests call it.
        standing: What was judged of it.
        opened: What answers.
        replayed: What came of asking again.
        forced: Why it would not have been served without force; None where it needed none.
        device: Where it computes.

    Raises:
        UserError: A judged row is damaged.
    """
    provenance = opened.provenance
    experiment = None if standing.manifest is None else standing.manifest.experiment
    judgement = standing.judgement
    return ServedModel(
        name=name,
        ref=provenance.ref,
        engine=provenance.engine,
        origin=provenance.origin,
        device=device,
        sha256=provenance.sha256,
        adapter_sha256=provenance.adapter_sha256,
        dtype=provenance.dtype,
        quantisation=provenance.quantisation,
        template_hash=provenance.template_hash,
        random_weights=provenance.random_weights,
        context_tokens=opened.context_tokens,
        embeds=isinstance(opened.engine, TorchEngine),
        usual=_usual(standing),
        system_prompt=None if experiment is None else experiment.serve.system_prompt or experiment.data.system,
        validation=None if experiment is None else experiment.serve.validate_,
        proof=Proof(
            **_judged(standing),
            judged_at=None if judgement is None else judgement.frozen_at,
            replayed=replayed.asked,
            equal=replayed.equal,
            forced=forced,
        ),
        experiment=None if experiment is None else experiment.model_dump(mode="json"),
        judged_rates=_rates(standing),
        created=_created(standing),
    )


def _judged(standing: Standing) -> dict[str, Any]:
    """The verdict and its reasons; a verdict is of what was tuned, and not of the base that it was compared with."""
    if standing.arm == "base" and standing.verdict is not None:
        return {"reasons": (f"It is the base of a judgement whose verdict is {standing.verdict}.",)}
    return {"verdict": standing.verdict, "reasons": standing.reasons}


def _usual(standing: Standing) -> Usual:
    """As it was judged."""
    if standing.manifest is None or standing.judgement is None:
        return Usual()
    generation = standing.manifest.experiment.judge.generation
    return Usual(temperature=generation.temperature, top_p=generation.top_p, max_new_tokens=generation.max_new_tokens)


def _rates(standing: Standing) -> tuple[JudgedRate, ...]:
    if standing.run is None or standing.manifest is None or standing.judgement is None:
        return ()
    return judged_rates(standing.run, standing.arm, standing.manifest.experiment.judge.generation.repeats)


def _created(standing: Standing) -> int:
    """When the weights were tuned, a base was judged, or, where nobody knows, it is now."""
    tuning = None if standing.manifest is None else standing.manifest.tuning
    said = None if tuning is None else tuning.finished_at
    if standing.arm == "base":
        said = None if standing.judgement is None else standing.judgement.frozen_at
    return int(time.time() if said is None else datetime.datetime.fromisoformat(said).timestamp())
