"""The verdict of a run, from its rows: what is read, and how the rule is applied to it."""

from dataclasses import dataclass

from whetstone.evaluate.evidence import Evidence, load_evidence
from whetstone.evaluate.metrics.catalogue import metric
from whetstone.evaluate.sample import ARMS
from whetstone.evaluate.sanity import Sanity, read_sanity
from whetstone.evaluate.suite import held_out_metrics
from whetstone.judge_section import HELD_OUT, Judge
from whetstone.run import Manifest, Run, SuiteRecord
from whetstone.verdict.decide import Verdict, decide

__all__ = ["Read", "read_run", "verdict_of"]


@dataclass(frozen=True, slots=True, eq=False)
class Read:
    """What a verdict rests on.

    Attributes:
        manifest: The run; without what its training did when the candidate was trained elsewhere.
        trained_elsewhere: Whether the judged weights are not those that the run tuned.
        evidence: The rows, by suite; the held-out examples first.
        sanity: What was tried beside asking; None when nothing was, or for another judgement.
    """

    manifest: Manifest
    trained_elsewhere: bool
    evidence: dict[str, Evidence]
    sanity: Sanity | None

    def verdict(self, later_rule: Judge | None = None) -> Verdict:
        """The rule, applied.

        Args:
            later_rule: Applied instead of the rule that was frozen; the verdict says so.
        """
        return decide(self.evidence, self.manifest, self.sanity, later_rule)


def read_run(run: Run, later_rule: Judge | None = None, *, gates_only: bool = False) -> Read:
    """Reads the rows of a run, and scores them.

    Args:
        run: Judged.
        later_rule: Will be applied instead of the rule that was frozen.
        gates_only: Score by the metrics that gates look at, and by no others.

    Raises:
        UserError: There are no samples, or rows are damaged.
    """
    manifest = run.manifest()
    elsewhere = _judged_other_weights(manifest)
    if elsewhere:
        # The run's own steps and losses are not those of the weights that were judged.
        manifest = manifest.model_copy(update={"tuning": None, "settings": None, "retention": ()})
    judge = later_rule or manifest.experiment.judge
    records = manifest.judgement.suites if manifest.judgement is not None else ()
    evidence = {HELD_OUT: _held_out_evidence(run, judge, gates_only=gates_only)}
    evidence |= {record.name: _suite_evidence(run, record, judge, gates_only=gates_only) for record in records}
    sanity = read_sanity(run.samples)
    if manifest.judgement is None or (sanity is not None and sanity.judgement != manifest.judgement.fingerprint()):
        sanity = None
    return Read(manifest, elsewhere, evidence, sanity)


def verdict_of(run: Run) -> Verdict:
    """The verdict that ``whet report`` gives, without the rest of the report.

    Raises:
        UserError: There are no samples, or rows are damaged.
    """
    return read_run(run, gates_only=True).verdict()


def _held_out_evidence(run: Run, judge: Judge, *, gates_only: bool) -> Evidence:
    names = judge.gated(HELD_OUT) if gates_only else held_out_metrics(judge)
    metrics = [metric(name) for name in names]
    repeats = judge.generation.repeats
    return load_evidence(run.samples, _arms(judge), metrics, repeats=repeats, unfinished=judge.stop_early)


def _suite_evidence(run: Run, record: SuiteRecord, judge: Judge, *, gates_only: bool) -> Evidence:
    gated = judge.gated(record.name)
    metrics = [metric(name) for name in (gated if gates_only else dict.fromkeys((*record.metrics, *gated)))]
    folder, unfinished = run.suite_samples(record.name), judge.stop_early and bool(gated)
    return load_evidence(folder, _arms(judge), metrics, repeats=record.repeats, unfinished=unfinished)


def _arms(judge: Judge) -> tuple[str, ...]:
    return (*ARMS, *(arm.name for arm in judge.arms))


def _judged_other_weights(manifest: Manifest) -> bool:
    judgement, tuning, settings = manifest.judgement, manifest.tuning, manifest.settings
    if judgement is None or tuning is None:
        return False
    # An adapter that was trained on a quantised base is another model on the whole one.
    moved = settings is not None and settings.quantised and "bitsandbytes" not in judgement.packages
    return moved or judgement.candidate.sha256 != tuning.tuned.sha256
