"""The ``whet`` command. Nothing heavy is imported until a verb needs it, so that help answers at once."""

import errno
import signal
import sys
import traceback
import warnings
from types import FrameType
from typing import NoReturn

import typer

from whetstone.cli.audit import audit
from whetstone.cli.chat import chat
from whetstone.cli.check import check
from whetstone.cli.compare import compare
from whetstone.cli.data import data
from whetstone.cli.demo import demo
from whetstone.cli.export import export
from whetstone.cli.generate import generate
from whetstone.cli.init import init, recipes
from whetstone.cli.keys import keys
from whetstone.cli.launchers import launchers
from whetstone.cli.report import report
from whetstone.cli.runs import runs, show
from whetstone.cli.serve import serve
from whetstone.cli.tune import tune
from whetstone.errors import UserError

__all__ = ["app", "main"]

_INTERRUPTED = 130
"""What typer ends with after Ctrl-C, as shells do: 128 and the number of the signal."""

app = typer.Typer(
    name="whet",
    help="Tune a small language model, judge it honestly against its base, and keep the evidence.\n\n"
    "Start with: [bold]whet demo[/bold]",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    add_completion=False,
)
for verb in (demo, init, recipes, check, tune, compare, report, audit, chat, generate, serve, export, runs, show):
    app.command()(verb)
app.command()(launchers)
app.add_typer(data)
app.add_typer(keys)


def main() -> None:
    """Runs the command.

    Exit codes: 0, 1 and 3 are verdicts of ``whet compare`` (0 is also plain success, and 1 ``whet generate`` with rows
    that failed, ``whet audit`` with claims that were flagged and ``whet serve`` with answers that were cut off), 2 is
    bad input, 70 is a defect of this program (with its traceback), 130 and 143 are interrupts.
    """
    signal.signal(signal.SIGTERM, _terminate)
    # Deprecations inside libraries are for their developers and ours, not for the person at the terminal.
    warnings.simplefilter("ignore", FutureWarning)
    try:
        app()
    except UserError as error:
        _fail(str(error), 2)
    except SystemExit as ended:
        if ended.code == _INTERRUPTED:
            _fail("interrupted; what was finished is kept, and the same command goes on from there", _INTERRUPTED)
        raise
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EDQUOT):
            _crash()
        _fail(f"{error.filename or 'a file of the run'}: {error.strerror}; what was finished is kept", 2)
    except Exception:
        _crash()


def _crash() -> NoReturn:
    """A defect must not look like a verdict, whose codes are 0, 1 and 3."""
    traceback.print_exc()
    sys.exit(70)


def _terminate(signal_number: int, frame: FrameType | None) -> None:
    """Lets ``with`` blocks clean up before the process ends."""
    sys.exit(128 + signal_number)


def _fail(message: str, code: int) -> NoReturn:
    sys.stderr.write(f"error: {' '.join(message.split())}\n")
    sys.exit(code)
