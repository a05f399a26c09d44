"""What the verbs share: arguments, consoles, progress bars, and finding what a name means."""

import json
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from whetstone.errors import UserError

if TYPE_CHECKING:
    from whetstone.data.sources import SourceSummary
    from whetstone.experiment import Experiment
    from whetstone.report.summary import Summary
    from whetstone.run import Run

__all__ = [
    "FreshOption",
    "JsonOption",
    "NameOption",
    "RunsOption",
    "print_json",
    "report_skipped",
    "resolve_experiment",
    "resolve_run",
    "sampling_progress",
    "show_summary",
    "status",
    "working",
]

RunsOption = Annotated[Path, typer.Option("--runs", help="The folder that holds the runs.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else on standard output.")]
NameOption = Annotated[str | None, typer.Option("--name", help="The run's name, instead of the experiment's.")]
FreshOption = Annotated[bool, typer.Option("--fresh", help="Begin anew: replace what an earlier call has finished.")]

_SKIPPED_SHOWN = 5

status = Console(stderr=True, highlight=False)
"""Progress and notes go to standard error; results go to standard output."""


def print_json(value: Any) -> None:
    """Prints one JSON object for scripts."""
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def report_skipped(sources: "Iterable[SourceSummary]") -> None:
    """Says on standard error which rows were left out: how many, and the first few."""
    for source in sources:
        if source.skipped:
            said = [f"{source.name}: {len(source.skipped):,} of {source.rows:,} rows left out"]
            said += [f"  {row.where}: {row.reason}" for row in source.skipped[:_SKIPPED_SHOWN]]
            more = len(source.skipped) - _SKIPPED_SHOWN
            said += [f"  and {more:,} more"] if more > 0 else []
            status.print("\n".join(said), markup=False, soft_wrap=True)


def show_summary(summary: "Summary", run: "Run", *, as_json: bool) -> None:
    """Prints what a report says: for scripts the whole of it, for people one screen."""
    from whetstone.report.machine import as_json as to_json
    from whetstone.report.terminal import print_summary

    if as_json:
        print_json(to_json(summary))
    else:
        print_summary(Console(), summary, run.report / "index.html")


def resolve_experiment(what: str, name: str | None) -> "Experiment":
    """An experiment file, or a recipe by its name.

    Raises:
        UserError: It is neither, or the file is wrong.
    """
    from whetstone.experiment import load_experiment
    from whetstone.recipes import recipe_names, recipe_path

    path = Path(what)
    if not path.exists():
        if what not in recipe_names():
            known = ", ".join(recipe_names())
            raise UserError(f"'{what}' is neither an experiment file nor a recipe ({known}); 'whet init' writes a file")
        path = recipe_path(what)
    experiment = load_experiment(path)
    return experiment if name is None else experiment.model_copy(update={"name": _checked_name(name)})


def resolve_run(what: str, runs: Path) -> "Run":
    """A run by its name or its folder.

    Raises:
        UserError: There is no such run.
    """
    from whetstone.run import Run, list_runs

    for path in (runs / what, Path(what)):
        if (path / "run.json").exists():
            return Run(path)
    known = ", ".join(run.name for run in list_runs(runs)) or "none"
    raise UserError(f"'{what}' is not a run under {runs} (there: {known}); 'whet tune' makes one")


def _checked_name(name: str) -> str:
    import re

    from whetstone.experiment import NAME_PATTERN

    if not re.fullmatch(NAME_PATTERN, name):
        raise UserError(f"--name: '{name}' cannot be a run's name; use letters, digits, '.', '_' and '-'")
    return name


@contextmanager
def working() -> Iterator[Callable[[str], None]]:
    """A spinner with the time so far, for stages that have no count; gives the function that names the stage."""
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=status, transient=True, disable=not status.is_terminal) as progress:
        task = progress.add_task("starting", total=None)

        def say(stage: str) -> None:
            progress.update(task, description=stage)

        yield say


@contextmanager
def sampling_progress() -> Iterator[Callable[[int, int], None]]:
    """A bar over all samples of all arms; gives the function that moves it."""
    columns = (SpinnerColumn(), TextColumn("answer"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=status, transient=True, disable=not status.is_terminal) as progress:
        task = progress.add_task("answer", total=None)

        def move(done: int, total: int) -> None:
            progress.update(task, total=total, completed=done)

        yield move
