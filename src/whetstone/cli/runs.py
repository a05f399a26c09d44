"""``whet runs`` and ``whet show``: what has been done."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from whetstone.cli.common import JsonOption, RunsOption, print_json, resolve_run
from whetstone.errors import UserError

if TYPE_CHECKING:
    from whetstone.run import Manifest, Run

__all__ = ["runs", "show"]


def runs(runs: RunsOption = Path("runs"), as_json: JsonOption = False) -> None:
    """List the runs.

    Example: whet runs
    """
    from whetstone.run import list_runs

    rows = [_row(run) for run in list_runs(runs)]
    if as_json:
        print_json({"runs": rows})
        return
    table = Table("run", "state", "method", "base", "steps", "verdict", "made", box=None)
    for row in rows:
        table.add_row(*("" if value is None else str(value) for value in row.values()))
    Console().print(table if rows else f"no runs under {runs}; 'whet demo' makes one")


def show(
    run: Annotated[str, typer.Argument(help="A run, by name or folder.")],
    runs: RunsOption = Path("runs"),
    as_json: JsonOption = False,
) -> None:
    """Show what a run was asked, with what, and what came of it.

    Example: whet show demo
    """
    found = resolve_run(run, runs)
    manifest = found.manifest()
    if as_json:
        came_to = {"state": manifest.state, "checkpoint_step": _checkpoint_step(found, manifest)}
        print_json({**manifest.model_dump(mode="json"), **came_to, "verdict": _verdict(found)})
        return
    console = Console()
    table = Table.grid(padding=(0, 2))
    for key, value in _facts(found, manifest):
        table.add_row(Text(key, style="bold"), Text(value))
    console.print(table)
    report = found.report / "index.html"
    if report.exists():
        console.print(f"report: {report}")


def _row(run: "Run") -> dict[str, Any]:
    try:
        manifest = run.manifest()
    except UserError:
        return {"run": run.name, "state": "unreadable"} | dict.fromkeys(("method", "base", "steps", "verdict", "made"))
    return {
        "run": run.name,
        "state": manifest.state,
        "method": manifest.experiment.tune.method,
        "base": manifest.experiment.model.base or "scratch",
        "steps": manifest.tuning.steps if manifest.tuning else None,
        "verdict": _verdict(run),
        "made": manifest.created_at,
    }


def _verdict(run: "Run") -> str | None:
    """The verdict of the last report; None when there is none."""
    from whetstone.files import read_json

    path = run.report / "report.json"
    return str(read_json(path)["verdict"]["outcome"]) if path.exists() else None


def _checkpoint_step(run: "Run", manifest: "Manifest") -> int | None:
    """The step of the newest checkpoint of an interrupted training; it is proven only when training goes on."""
    if manifest.tuning is not None:
        return None
    steps = [path.name.removeprefix("step-") for path in run.checkpoints.glob("step-*")]
    return max((int(step) for step in steps if step.isdigit()), default=None)


def _resume_command(run: "Run") -> str:
    """The run knows its name and not its experiment's file."""
    command = ["--name", run.name, *(["--runs", str(run.path.parent)] if run.path.parent != Path("runs") else [])]
    return f"whet tune EXPERIMENT {shlex.join(command)} --resume"


def _facts(run: "Run", manifest: "Manifest") -> list[tuple[str, str]]:
    facts = [
        ("run", str(run.path)),
        ("state", manifest.state),
        ("verdict", _verdict(run) or "not judged"),
        ("experiment", f"{manifest.experiment.name} ({manifest.experiment_hash})"),
        ("method", manifest.experiment.tune.method),
        ("base", manifest.experiment.model.base or "scratch"),
        ("seeds", f"tune {manifest.experiment.tune.seed}, generation {manifest.experiment.judge.generation.seed}"),
        ("machine", f"{manifest.hardware.processor}, {manifest.hardware.cores} cores"),
        ("packages", ", ".join(f"{name} {version}" for name, version in manifest.packages.items())),
        ("git commit", manifest.git_commit or "not in a git folder"),
        ("made", manifest.created_at),
    ]
    if manifest.data is not None:
        facts.append(("examples", ", ".join(f"{name} {count:,}" for name, count in manifest.data.counts.items())))
    facts.extend(_training(run, manifest))
    if manifest.judgement is not None:
        frozen = manifest.judgement
        facts.append(("rule", f"{frozen.rule_hash}, frozen {frozen.frozen_at}"))
        facts.append(("judged weights", f"{frozen.candidate.sha256[:16]}, {frozen.candidate.origin}"))
    facts.extend(("earlier judgement", f"{one.rule_hash}, {one.frozen_at}") for one in manifest.earlier_judgements)
    facts.extend(("note", note) for note in manifest.notes)
    return facts


def _training(run: "Run", manifest: "Manifest") -> list[tuple[str, str]]:
    """How far training came, with what, and what it left of the base."""
    from whetstone.report.claims import Claims
    from whetstone.report.training import retention_paths, retention_words, settings_words

    facts = []
    step = _checkpoint_step(run, manifest)
    if step is not None:
        facts.append(("checkpoint", f"step {step:,}; to go on: {_resume_command(run)}"))
    settings = settings_words(manifest)
    if settings is not None:
        facts.append(("settings", settings))
    if manifest.tuning is not None:
        done = manifest.tuning
        said = f"{done.steps} steps in {done.duration_s:.0f} s, final loss {done.final_loss:.3f}, {done.device}"
        facts += [("tuning", said), ("tuned weights", done.tuned.sha256[:16])]
    claims = Claims({"manifest": manifest.model_dump(mode="json")})
    facts += [("retention", retention_words(claims, path)) for path in retention_paths(manifest).values()]
    return facts
