"""Suites that ship with the package: cases written for it, to be asked beside an experiment's own held-out data."""

from importlib.resources import files
from pathlib import Path

__all__ = ["suite_names", "suite_path"]


def suite_names() -> list[str]:
    """The suites, by name."""
    return sorted(path.stem for path in _folder().glob("*.yaml"))


def suite_path(name: str) -> Path:
    """The suite's file."""
    return _folder() / f"{name}.yaml"


def _folder() -> Path:
    return Path(str(files("whetstone") / "suites"))
