"""``whet tune``: train what an experiment says."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from whetstone.cli.check import print_findings
from whetstone.cli.common import (
    FreshOption,
    JsonOption,
    NameOption,
    RunsOption,
    print_json,
    resolve_experiment,
    status,
    working,
)
from whetstone.cli.live import live_training
from whetstone.errors import UserError

if TYPE_CHECKING:
    from whetstone.experiment import Experiment
    from whetstone.run import Manifest, Run

__all__ = ["tune", "tune_run"]


def tune(
    experiment: Annotated[str, typer.Argument(help="An experiment file, or the name of a recipe.")],
    name: NameOption = None,
    runs: RunsOption = Path("runs"),
    fresh: FreshOption = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the newest checkpoint of an interrupted run.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Tune a model into a run folder.

    Example: whet tune grammar.yaml
    """
    if fresh and resume:
        raise UserError("--fresh begins anew and --resume goes on: give one of them")
    from whetstone.run import Run

    chosen = resolve_experiment(experiment, name)
    run = Run(runs / chosen.name)
    with run.lock():
        manifest = tune_run(run, chosen, fresh=fresh, resume=resume)
    if manifest.tuning is None:
        raise AssertionError("tuning returned without a record")
    if as_json:
        print_json({"run": str(run.path), "tuning": manifest.tuning.model_dump(), "notes": manifest.notes})
    else:
        status.print(f"next: whet compare {run.name}")


def tune_run(run: "Run", experiment: "Experiment", *, fresh: bool, resume: bool) -> "Manifest":
    """Checks the data, then tunes with a live view; the caller holds the run's lock."""
    from whetstone.train.check import check
    from whetstone.train.tune import tune as train

    if not fresh and run.exists():
        manifest = run.begin(experiment)
        if manifest.tuning is not None:
            status.print(f"{run.path} is tuned already; --fresh tunes it again")
            return manifest
    with working() as say:
        checked = check(experiment, say)
    print_findings(status, [finding for finding in checked.findings if finding.severity != "note"])

    def tell(line: str) -> None:
        # One line stays one line, and what a file is called is no markup.
        status.print(line, soft_wrap=True, markup=False)

    with live_training(status) as view:
        manifest = train(run, experiment, checked, view, tell, fresh=fresh, resume=resume)
    for note in manifest.notes:
        tell(f"note: {note}")
    if manifest.tuning is not None:
        done = manifest.tuning
        status.print(f"tuned in {done.duration_s:.0f} s: {done.steps} steps, final loss {done.final_loss:.3f}")
    return manifest
