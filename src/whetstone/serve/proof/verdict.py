"""Whether a model may be served: what was judged of it, and what came of that.

A run may be served when its verdict, computed from its rows, is SHIP, and what was judged are the weights that it
tuned. Its base may be served then, too: it is an arm of the same judgement. That the weights on disk are those of the
run is proved when they are found (:mod:`whetstone.models.resolve`), and that they answer as they were judged by asking
them again (:mod:`whetstone.serve.proof.replay`).
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from whetstone.errors import UserError
from whetstone.evaluate.sanity import SANITY_FILE, read_sanity
from whetstone.models.ref import Gguf, Mlx, ModelRef, RandomWeights, RunModel
from whetstone.models.resolve import run_of
from whetstone.run import Judgement, Manifest, Run
from whetstone.serve.proof.arm import Arm
from whetstone.serve.proof.run_of_weights import run_of_file
from whetstone.serve.served_model import Proof
from whetstone.verdict.decide import Outcome, Verdict
from whetstone.verdict.of_run import verdict_of

__all__ = ["Standing", "Verdicts", "refuse_unless_forced"]


@dataclass(frozen=True, slots=True)
class Standing:
    """What is known of a model before it is asked anything.

    Attributes:
        run: What it is of; None where it is of no run.
        manifest: Of the run.
        arm: Whose judged answers it has to give.
        verdict: Of the run.
        reasons: What the gates say, in the order of the report.
        refusal: Why it may not be served; None where nothing stands against it so far.
    """

    run: Run | None = None
    manifest: Manifest | None = None
    arm: Arm = "tuned"
    verdict: Outcome | None = None
    reasons: tuple[str, ...] = ()
    refusal: str | None = None

    @property
    def judgement(self) -> Judgement | None:
        """What was frozen before the run was judged."""
        return None if self.manifest is None else self.manifest.judgement


@dataclass(frozen=True, slots=True)
class Verdicts:
    """Finds out how models stand; the verdict of a run that several of them are of is computed once.

    Attributes:
        runs: The folder that holds the runs.
        stage: Told what is being done.
    """

    runs: Path
    stage: Callable[[str], None] = lambda said: None
    _known: dict[Path, Verdict | UserError] = field(default_factory=dict)

    def of_model(self, model: ModelRef, earlier: Proof | None = None) -> Standing:
        """How a model stands that somebody named.

        Args:
            model: Its name, read.
            earlier: What was proved of it when this server began; a verdict SHIP that still is of the same judgement
                is not computed again.

        Raises:
            UserError: There is no such run or file, or it cannot be read.
        """
        if isinstance(model, RandomWeights):
            return Standing(refusal="random weights, whose answers mean nothing")
        inner = model.model if isinstance(model, Mlx) else model
        if isinstance(inner, RunModel):
            return self.of_run(run_of(inner, self.runs), "base" if inner.part == "base" else "tuned", earlier=earlier)
        found = run_of_file(inner, self.runs) if isinstance(inner, Gguf) else None
        if found is None:
            return Standing(refusal="not judged: it is of no run; tune and judge it, and serve run:NAME")
        run, arm, sha256 = found
        return self.of_run(run, arm, sha256=sha256, earlier=earlier)

    def of_run(self, run: Run, arm: Arm, *, sha256: str | None = None, earlier: Proof | None = None) -> Standing:
        """How weights of a run stand.

        Args:
            run: The run.
            arm: Which of its judged arms they have to answer as.
            sha256: Hash of the weights; None for those that the run tuned, or began with.
            earlier: As of :meth:`of_model`.

        Raises:
            UserError: Its ``run.json`` cannot be read.
        """
        manifest = run.manifest()
        judgement = manifest.judgement
        if judgement is None:
            return Standing(run, manifest, arm, refusal=f"not judged; call 'whet compare {run.name}'")
        refusal = _other_weights(run, manifest, judgement, arm, sha256)
        if earlier is not None and earlier.verdict == "SHIP" and earlier.judged_at == judgement.frozen_at:
            return Standing(run, manifest, arm, earlier.verdict, earlier.reasons, refusal)
        verdict = self._verdict(run)
        if isinstance(verdict, UserError):
            return Standing(run, manifest, arm, refusal=f"not judged: {verdict}")
        reasons = tuple(f"{gate.name}: {gate.reason}" for gate in verdict.gates)
        refusal = _not_to_ship(verdict) or refusal or _not_tried(run, judgement)
        return Standing(run, manifest, arm, verdict.outcome, reasons, refusal)

    def _verdict(self, run: Run) -> Verdict | UserError:
        if run.path not in self._known:
            self.stage(f"computing the verdict of run {run.name} from its rows")
            try:
                self._known[run.path] = verdict_of(run)
            except UserError as error:
                self._known[run.path] = error
        return self._known[run.path]


def refuse_unless_forced(ref: str, refusal: str | None, *, force: bool) -> None:
    """Ends the opening of a model that may not be served.

    Args:
        ref: Its name.
        refusal: Why it may not be served, if so.
        force: Somebody said to serve it all the same.

    Raises:
        UserError: It may not be served, and nobody forces it.
    """
    if refusal is not None and not force:
        raise UserError(f"{ref}: not served: {refusal.rstrip('.')}; --force serves it all the same, and says so")


def _not_to_ship(verdict: Verdict) -> str | None:
    """The verdict with the first gate that led to it; None for SHIP."""
    if verdict.outcome == "SHIP":
        return None
    decisive = "failed" if verdict.outcome == "REJECT" else "open"
    gate = next(gate for gate in verdict.gates if gate.state == decisive)
    return f"{verdict.outcome}: {gate.name}: {gate.reason}"


def _not_tried(run: Run, judgement: Judgement) -> str | None:
    """Why nobody can know that the weights did anything, if so.

    A verdict needs no such record, for earlier versions made none; a server does, or whoever deletes it turns a REJECT
    into a SHIP.
    """
    sanity = read_sanity(run.samples)
    if sanity is not None and sanity.judgement == judgement.fingerprint():
        return None
    return f"{run.samples / SANITY_FILE}: no record of this judgement; judge again with 'whet compare --fresh'"


def _other_weights(run: Run, manifest: Manifest, judgement: Judgement, arm: Arm, sha256: str | None) -> str | None:
    """Why the judgement says nothing of these weights, if so."""
    base = manifest.base.sha256 if manifest.base is not None else None
    tuned = manifest.tuning.tuned.sha256 if manifest.tuning is not None else None
    pairs = {"base": (judgement.base_sha256, base), "tuned": (judgement.candidate.sha256, tuned)}
    if sha256 is not None:
        pairs = {arm: (pairs[arm][0], sha256)}
    elif arm == "base":
        del pairs["tuned"]
    for what, (judged, here) in pairs.items():
        if here != judged:
            return (
                f"judged were other {what} weights ({judged[:16]}; here {'are none' if here is None else here[:16]}); "
                f"call 'whet compare {run.name} --fresh'"
            )
    return None
