"""Recipes: experiments that ship with the package, commented to be read and changed."""

from importlib.resources import files
from pathlib import Path

__all__ = ["recipe_names", "recipe_path", "recipe_summary"]


def recipe_names() -> list[str]:
    """The recipes, by name."""
    return sorted(path.stem for path in _folder().glob("*.yaml"))


def recipe_path(name: str) -> Path:
    """The recipe's file."""
    return _folder() / f"{name}.yaml"


def recipe_summary(name: str) -> str:
    """The first comment line of the recipe: what it is for."""
    return recipe_path(name).read_text(encoding="utf-8").splitlines()[0].removeprefix("#").strip()


def _folder() -> Path:
    return Path(str(files("whetstone") / "recipes"))
