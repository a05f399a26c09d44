"""Reads the runs of a campaign; one that cannot be read, or is not judged, says why instead of ending the report."""

from collections.abc import Sequence
from dataclasses import dataclass

from whetstone.errors import UserError
from whetstone.evaluate.sample import BASE
from whetstone.report.summary import Summary, summarise
from whetstone.run import Manifest, Run
from whetstone.stats.comparison import Comparison

__all__ = ["Judged", "Reading", "read_runs"]


@dataclass(frozen=True, slots=True, eq=False)
class Judged:
    """A run whose rows give a difference.

    Attributes:
        summary: Of the run.
        comparison: Tuned against base on the primary metric.
    """

    summary: Summary
    comparison: Comparison

    @property
    def stopped_early(self) -> bool:
        """Whether the arms stopped before all examples were answered."""
        evidence = self.summary.held_out.evidence
        return len(evidence.groups) < len(evidence.planned_groups)


@dataclass(frozen=True, slots=True, eq=False)
class Reading:
    """What one run gave: ``judged``, or the reason why there is nothing."""

    name: str
    manifest: Manifest | None
    judged: Judged | None
    reason: str | None


def read_runs(runs: Sequence[Run]) -> list[Reading]:
    """Reads every run, in order.

    Args:
        runs: Each once.

    Raises:
        UserError: There are fewer than two runs, or one is given twice.
    """
    if len(runs) < 2:
        raise UserError("a campaign is of several runs: give two or more, or leave out --kind campaign")
    folders = [run.path.resolve() for run in runs]
    for index, run in enumerate(runs):
        if folders[index] in folders[:index]:
            raise UserError(f"{run.path}: given twice; give each run once")
    names = [run.name for run in runs]
    return [_read(run, run.name if names.count(run.name) == 1 else str(run.path)) for run in runs]


def _read(run: Run, name: str) -> Reading:
    manifest = None
    try:
        with run.lock():
            manifest = run.manifest()
            if manifest.judgement is None:
                return Reading(name, manifest, None, f"not judged yet; 'whet compare' judges {run.name}")
            summary = summarise(run)
    except UserError as error:
        return Reading(name, manifest, None, str(error))
    comparison = summary.comparison(summary.primary.name, BASE)
    if comparison is None:
        reason = "base and tuned have no score on the same examples of two groups or more; 'whet compare' goes on"
        return Reading(name, manifest, None, reason)
    # The summary's manifest is without the training of weights that were not judged.
    return Reading(name, summary.manifest, Judged(summary, comparison), None)
