"""Files to double-click: one for each thing that is done with an experiment, on macOS, Linux and Windows.

Each holds one ``whet`` command and leaves its window open until it was read. Where the folder of the files lies in the
one that they were made in, they find it by their own place, so that both can be moved or shared together; the entries
of Linux's desktops are the exception, which must name their script in full.
"""

import os
import shlex
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path, PureWindowsPath

from jinja2 import BaseLoader, Environment, StrictUndefined

from whetstone.errors import UserError
from whetstone.files import write_atomic

__all__ = ["LAUNCHERS", "Launcher", "Place", "write_launchers"]


@dataclass(frozen=True, slots=True)
class Place:
    """What is launched.

    Attributes:
        experiment: A file, or the name of a recipe.
        name: Of its run.
        runs: The folder that holds the runs.
        folder: Where the commands are called.
    """

    experiment: str
    name: str
    runs: str
    folder: Path


@dataclass(frozen=True, slots=True)
class Launcher:
    """One thing that is done with an experiment.

    Attributes:
        name: Of the file.
        about: What it does, in a line.
        command: What is called, without ``whet``.
        repeats: Whether it is called every five seconds.
    """

    name: str
    about: str
    command: Callable[[Place], Sequence[str]]
    repeats: bool = False


LAUNCHERS = (
    Launcher(
        "Train",
        "Tune the model, or go on where that was interrupted",
        lambda at: ("tune", at.experiment, "--name", at.name, "--runs", at.runs, "--resume"),
    ),
    Launcher("Watch", "Show how far the run is", lambda at: ("show", at.name, "--runs", at.runs), repeats=True),
    Launcher(
        "Test",
        "Ask the tuned model and its base the same questions, side by side",
        lambda at: ("chat", f"run:{at.name}", "--against", f"run:{at.name}#base", "--runs", at.runs),
    ),
    Launcher("Chat", "Talk to the tuned model", lambda at: ("chat", f"run:{at.name}", "--runs", at.runs)),
    Launcher(
        "Evaluate",
        "Judge the tuned model against its base",
        lambda at: ("compare", at.experiment, "--name", at.name, "--runs", at.runs),
    ),
)


def write_launchers(place: Place, out: Path) -> list[Path]:
    """Writes ``linux``, ``macos`` and ``windows`` below a folder.

    Args:
        place: What is launched.
        out: The folder; it must be new or empty.

    Returns:
        The files to click, and on Linux the scripts behind them.

    Raises:
        UserError: The folder holds something, or cannot be written; or a path cannot stand in such a file.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"--out: {out} exists already; give another folder, or delete it")
    for path in (place.experiment, place.runs, str(place.folder), str(out.resolve())):
        if not path.isprintable() or '"' in path:
            raise UserError(f"--out: {path!r} cannot stand in a file to click; rename it without quotes and controls")
    written = []
    for launcher in LAUNCHERS:
        linux, macos, windows = out / "linux", out / "macos", out / "windows"
        script = linux / f"{launcher.name.lower()}.sh"
        written += [
            _write(script, _shell_script(launcher, place, linux)),
            _write(linux / f"{launcher.name}.desktop", _desktop_entry(launcher, script.resolve())),
            _write(macos / f"{launcher.name}.command", _shell_script(launcher, place, macos)),
            _write(windows / f"{launcher.name}.cmd", _command_script(launcher, place, windows)),
        ]
    return written


def _write(path: Path, text: str) -> Path:
    write_atomic(path, text)
    if path.suffix != ".cmd":
        path.chmod(0o755)
    return path


def _shell_script(launcher: Launcher, place: Place, folder: Path) -> str:
    return _rendered(
        "script.sh.j2",
        name=launcher.name,
        about=launcher.about,
        folder=shlex.quote(_way(folder, place.folder)),
        programs=shlex.quote(_programs()),
        command=shlex.join(("whet", *launcher.command(place))),
        repeats=launcher.repeats,
    )


def _desktop_entry(launcher: Launcher, script: Path) -> str:
    """Quoted for ``Exec``, then escaped as every string of such a file (Desktop Entry Specification 1.5, section 7)."""
    quoted = "".join(f"\\{character}" if character in '"`$\\' else character for character in str(script))
    value = f'"{quoted}"'.replace("\\", "\\\\").replace("%", "%%")
    return _rendered("entry.desktop.j2", name=launcher.name, about=launcher.about, script=value)


def _command_script(launcher: Launcher, place: Place, folder: Path) -> str:
    text = _rendered(
        "script.cmd.j2",
        name=launcher.name,
        about=launcher.about,
        folder=_windows_quoted(str(PureWindowsPath(_way(folder, place.folder)))),
        programs=_programs().replace("%", "%%") if os.name == "nt" else "",
        command=" ".join(("whet", *map(_windows_quoted, launcher.command(place)))),
        repeats=launcher.repeats,
    )
    return text.replace("\n", "\r\n")


def _way(folder: Path, target: Path) -> str:
    """From the folder of a file to where its command is called: relative where the one lies in the other."""
    folder, target = folder.resolve(), target.resolve()
    return os.path.relpath(target, folder) if folder.is_relative_to(target) else str(target)


def _programs() -> str:
    """Where ``whet`` is, which a desktop does not know."""
    return str(Path(shutil.which("whet") or sys.executable).parent)


def _windows_quoted(argument: str) -> str:
    """Within quotes only ``%`` means something to cmd.exe; a backslash before the last quote is doubled for whet."""
    text = argument.replace("%", "%%")
    return f'"{text}{chr(92) if text.endswith(chr(92)) else ""}"'


def _rendered(template: str, **values: str | bool) -> str:
    environment = Environment(
        loader=BaseLoader(),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
    )
    text = (files("whetstone") / "assets" / "launchers" / template).read_text(encoding="utf-8")
    shown: Mapping[str, str | bool] = values
    return environment.from_string(text).render(shown)
