"""``whet compare``: have base and tuned answer the held-out examples, and decide by the frozen rule."""

import functools
import sys
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
    suite: Annotated[
        list[str] | None,
        typer.Option(
            help="Ask this suite, too, by name or file; may be given several times, and replaces judge.suites."
        ),
    ] = None,
    gate: Annotated[
        Path | None, typer.Option(help="Apply the gates of this YAML file to samples that are there; nothing is asked.")
    ] = None,
    junit: Annotated[Path | None, typer.Option(help="Write the gates as JUnit XML, for pipelines.")] = None,
    annotations: Annotated[
        bool, typer.Option("--annotations", help="Print annotations of GitHub workflows instead of the summary.")
    ] = False,
    name: NameOption = None,
    runs: RunsOption = Path("runs"),
    fresh: FreshOption = False,
    as_json: JsonOption = False,
) -> None:
    """Judge a tuned model against its base; exit code 0 SHIP, 1 REJECT, 3 INCONCLUSIVE.

    Example: whet compare grammar.yaml --suite format --suite retention
    """
    from whetstone.files import write_atomic
    from whetstone.report.pipeline import github_annotations, junit_xml

    if as_json and annotations:
        raise UserError("--json and --annotations both own standard output; give one of them")
    if gate is not None and (suite or candidate or fresh):
        raise UserError("--gate asks nothing, so --suite, --candidate and --fresh have no place; leave them out")
    experiment, run = _resolve(what, name, runs)
    asked = _with_suites(experiment, suite)
    summary = _judged(run, asked, candidate, fresh) if gate is None else _gated(run, gate)
    if junit is not None:
        write_atomic(junit, junit_xml(summary.verdict, run.name))
    if annotations:
        sys.stdout.write("".join(f"{line}\n" for line in github_annotations(summary.verdict, run.name)))
    else:
        show_summary(summary, run, as_json=as_json)
    raise typer.Exit(summary.verdict.exit_code)


def _judged(run: "Run", experiment: "Experiment", candidate: str | None, fresh: bool) -> "Summary":
    if candidate is None and not run.exists():
        raise UserError(f"{run.path}: not tuned yet; call 'whet tune' first, or name weights with --candidate")
    if candidate not in (None, "base") and not Path(str(candidate)).is_dir():
        raise UserError(f"--candidate: no such folder: {candidate}; give 'base', an adapter folder or a model folder")
    with run.lock():
        run.begin(experiment)
        return compare_run(run, experiment, candidate=candidate, fresh=fresh)


def _gated(run: "Run", gate: Path) -> "Summary":
    """Another rule on the samples of a run; its own report stays as it is."""
    from whetstone.report.summary import summarise
    from whetstone.verdict.gate_file import load_gates

    return summarise(run, load_gates(gate, run.manifest()))


def _with_suites(experiment: "Experiment", suites: list[str] | None) -> "Experiment":
    from whetstone.suites import suite_names

    if not suites:
        return experiment
    known = suite_names()
    for suite in suites:
        if suite not in known and not (suite.endswith(".yaml") and Path(suite).is_file()):
            raise UserError(
                f"--suite: '{suite}' is neither a suite ({', '.join(known)}) nor a .yaml file that is there"
            )
    named = tuple(suite if suite in known else str(Path(suite).resolve()) for suite in suites)
    judge = type(experiment.judge).model_validate({**dict(experiment.judge), "suites": named})
    return experiment.model_copy(update={"judge": judge})


def compare_run(
    run: "Run", experiment: "Experiment", *, candidate: str | None = None, fresh: bool = False
) -> "Summary":
    """Generates what is missing with a progress bar, and writes the report; the caller holds the run's lock."""
    from whetstone.evaluate.judge import judge
    from whetstone.report.write import write_report
    from whetstone.verdict.rounds import is_certain, refuse_unbounded

    rule, certain = experiment.judge, None
    if rule.stop_early:
        refuse_unbounded(rule)
        certain = functools.partial(is_certain, run, rule)
    with sampling_progress() as progress:
        weights = _candidate(run, experiment, candidate)
        judge(run, experiment, weights, fresh=fresh, progress=progress, certain=certain)
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
