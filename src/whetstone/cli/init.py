"""``whet init`` and ``whet recipes``: where experiments come from."""

from pathlib import Path
from typing import Annotated

import typer

from whetstone.cli.common import JsonOption, print_json, status
from whetstone.errors import UserError

__all__ = ["init", "recipes"]


def init(
    path: Annotated[Path, typer.Argument(help="The file to write.")] = Path("experiment.yaml"),
    recipe: Annotated[str, typer.Option(help="Which recipe to start from; see 'whet recipes'.")] = "grammar-lora",
    as_json: JsonOption = False,
) -> None:
    """Write a commented experiment file to start from.

    Example: whet init grammar.yaml --recipe grammar-lora
    """
    from whetstone.files import write_atomic
    from whetstone.recipes import recipe_names, recipe_path

    if recipe not in recipe_names():
        raise UserError(f"--recipe: there is no '{recipe}'; choose from: {', '.join(recipe_names())}")
    if path.exists():
        raise UserError(f"{path}: exists already; give another name, or delete it")
    write_atomic(path, recipe_path(recipe).read_text(encoding="utf-8"))
    if as_json:
        print_json({"written": str(path), "recipe": recipe})
    else:
        status.print(f"{path} written; next: whet tune {path}")


def recipes(as_json: JsonOption = False) -> None:
    """List the recipes that ship with whet.

    Example: whet recipes
    """
    from rich.console import Console
    from rich.table import Table

    from whetstone.recipes import recipe_names, recipe_summary

    rows = {name: recipe_summary(name) for name in recipe_names()}
    if as_json:
        print_json({"recipes": rows})
        return
    table = Table("recipe", "what it is for", box=None)
    for name, summary in rows.items():
        table.add_row(name, summary)
    Console().print(table)
