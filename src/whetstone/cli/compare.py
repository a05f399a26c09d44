"""``whet compare``: have base and tuned answer the held-out examples, and decide by the frozen rule."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from whetstone.cli.common import (
    FreshOption,
    JsonOption,
    NameOption,
    RunsOption,
    resolve_experiment,
    resolve_run,
    sampling_progress,
    show_summary,
    status,
)
from whetstone.errors import UserError

if TYPE_CHECKING:
    from whetstone.experiment import Experiment
    from whetstone.report.summary import Summary
    from whetstone.run import Run

__all__ = ["compare", "compare_run"]


def compare(
    what: Annotated[str, typer.Argument(help="An experiment file, a recipe, or a run.")],
    candidate: Annotated[
        str | None,
        typer.Option(help="Judge these weights instead of the run's own: 'base', an adapter folder or a model folder."),
    ] = None,
    name: NameOption = None,
    runs: RunsOption = Path("runs"),
    fresh: FreshOption = False,
    as_json: JsonOption = False,
) -> None:
    """Judge a tuned model against its base; exit code 0 SHIP, 1 REJECT, 3 INCONCLUSIVE.

    Example: whet compare grammar.yaml
    """
    experiment, run = _resolve(what, name, runs)
    if candidate is None and not run.exists():
        raise UserError(f"{run.path}: not tuned yet; call 'whet tune' first, or name weights with --candidate")
    if candidate not in (None, "base") and not Path(str(candidate)).is_dir():
        raise UserError(f"--candidate: no such folder: {candidate}; give 'base', an adapter folder or a model folder")
    with run.lock():
        run.begin(experiment)
        summary = compare_run(run, experiment, candidate=candidate, fresh=fresh)
    show_summary(summary, run, as_json=as_json)
    raise typer.Exit(summary.verdict.exit_code)


def compare_run(
    run: "Run", experiment: "Experiment", *, candidate: str | None = None, fresh: bool = False
) -> "Summary":
    """Generates what is missing with a progress bar, and writes the report; the caller holds the run's lock."""
    from whetstone.evaluate.judge import judge
    from whetstone.report.write import write_report

    with sampling_progress() as progress:
        judge(run, experiment, _candidate(run, experiment, candidate), fresh=fresh, progress=progress)
    with status.status("writing the report"):
        return write_report(run)


def _resolve(what: str, name: str | None, runs: Path) -> "tuple[Experiment, Run]":
    """A run's name means that run with its own experiment; anything else is an experiment."""
    from whetstone.run import Run

    if not Path(what).is_file() and (runs / what / "run.json").exists():
        run = resolve_run(what, runs)
        return run.manifest().experiment, run
    experiment = resolve_experiment(what, name)
    return experiment, Run(runs / experiment.name)


def _candidate(run: "Run", experiment: "Experiment", candidate: str | None) -> Path | None:
    from whetstone.train.tune import base_folder

    if candidate is None:
        return None
    if candidate == "base":
        return base_folder(run, experiment)
    return Path(candidate).resolve()
