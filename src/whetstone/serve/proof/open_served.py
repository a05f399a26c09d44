"""Opens the models of a server: each is proved to be what was judged, or somebody says to serve it all the same."""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from whetstone.engine.open import Opened, open_engines
from whetstone.models.device import choose_device
from whetstone.models.ref import RandomWeights
from whetstone.serve.proof.describe import served_model
from whetstone.serve.proof.names import name_models
from whetstone.serve.proof.replay import Replay, replay
from whetstone.serve.proof.verdict import Standing, Verdicts, refuse_unless_forced
from whetstone.serve.served_model import Proof, ServedModel

__all__ = ["Served", "open_served", "prove_answers"]


@dataclass(frozen=True, slots=True)
class Served:
    """A model that may be asked by others.

    Attributes:
        model: What is told of it.
        opened: What answers.
    """

    model: ServedModel
    opened: Opened


def open_served(
    refs: Sequence[str],
    *,
    runs: Path,
    force: bool,
    stage: Callable[[str], None],
    test_mode: bool = False,
    device: str = "auto",
    dtype: str | None = None,
    earlier: Mapping[str, Proof] | None = None,
) -> list[Served]:
    """Opens models, in their order. What may not be served by its verdict is refused before any weights are read.

    Args:
        refs: ``[NAME=]REF`` of each.
        runs: The folder that holds the runs.
        force: Serve what was not judged, was judged otherwise than SHIP, or answers otherwise than it was judged; that
            the weights are those of the run is never forced.
        stage: Told what is being done, in words.
        test_mode: Serve random weights, too; they need this word, and no other.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``, for what torch runs.
        dtype: Of the weights that torch runs, where their names say none.
        earlier: What was proved of models, by their names here, before the process that held them broke: a verdict is
            not computed again while its judgement is the same. Hashes and answers are proved anew.

    Raises:
        UserError: A model is not there, may not be served, is not what its run recorded, or cannot be opened.
    """
    named = name_models(refs)
    verdicts, known = Verdicts(runs, stage), earlier or {}
    standings = [verdicts.of_model(one.model, known.get(one.name)) for one in named]
    # Random weights have a word of their own; who opens them refuses them without it.
    forcing = [force or isinstance(one.model, RandomWeights) for one in named]
    for one, standing, forced in zip(named, standings, forcing, strict=True):
        refuse_unless_forced(one.ref, standing.refusal, force=forced)
    stage(f"reading the weights of {', '.join(one.name for one in named)}")
    refs = [one.ref for one in named]
    opened = open_engines(refs, runs=runs, device=device, dtype=dtype, test_mode=test_mode)
    with contextlib.ExitStack() as closing:
        for engine in opened:
            closing.callback(engine.close)
        served = [
            prove_answers(one.name, standing, engine, force=forced, device=device, stage=stage)
            for one, standing, engine, forced in zip(named, standings, opened, forcing, strict=True)
        ]
        closing.pop_all()
    return served


def prove_answers(
    name: str, standing: Standing, opened: Opened, *, force: bool, device: str, stage: Callable[[str], None]
) -> Served:
    """Asks an opened model its judged questions again, and says all that is known of it.

    Args:
        name: What requests call it.
        standing: What was judged of it.
        opened: What answers.
        force: Serve it even if it answers otherwise, or nothing was judged.
        device: What was asked for, for what torch runs.
        stage: Told what is being done.

    Raises:
        UserError: It answers otherwise than it was judged, and nobody forces it; or a judged row is damaged.
    """
    place = str(choose_device(device)) if opened.provenance.engine == "torch" else None
    replayed, refusals = Replay(0, 0), [standing.refusal]
    if standing.run is not None and standing.manifest is not None and standing.judgement is not None:
        stage(f"asking {name} again what it was judged by")
        replayed = replay(standing.run, standing.manifest, standing.arm, opened, place)
        refusals.append(replayed.refusal)
        refuse_unless_forced(opened.provenance.ref, replayed.refusal, force=force)
    forced = "; ".join(refusal for refusal in refusals if refusal is not None) or None
    model = served_model(name, standing, opened, replayed, forced=forced, device=place)
    return Served(model, opened)
