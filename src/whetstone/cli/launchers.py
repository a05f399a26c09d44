"""``whet launchers``: files to double-click."""

from pathlib import Path
from typing import Annotated

import typer

from whetstone.cli.common import JsonOption, NameOption, RunsOption, print_json, resolve_experiment, status

__all__ = ["launchers"]


def launchers(
    experiment: Annotated[str, typer.Argument(help="An experiment file, or the name of a recipe.")],
    out: Annotated[Path, typer.Option("--out", help="The folder to write; new or empty.")] = Path("launchers"),
    name: NameOption = None,
    runs: RunsOption = Path("runs"),
    as_json: JsonOption = False,
) -> None:
    """Write files to double-click: Train, Watch, Test, Chat and Evaluate, for macOS, Linux and Windows.

    Example: whet launchers grammar.yaml --out launchers
    """
    from whetstone.launchers import Place, write_launchers

    chosen = resolve_experiment(experiment, name)
    place = Place(experiment=experiment, name=chosen.name, runs=str(runs), folder=Path.cwd())
    written = write_launchers(place, out)
    if as_json:
        print_json({"written": [str(path) for path in written], "run": chosen.name})
    else:
        status.print(f"{len(written)} files in {out}, for run {chosen.name}", markup=False, soft_wrap=True)
