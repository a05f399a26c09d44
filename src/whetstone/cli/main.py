"""The ``whet`` command. Nothing heavy is imported until a verb needs it, so that help answers at once."""

import signal
import sys
import warnings
from types import FrameType

import typer

from whetstone.cli.compare import compare
from whetstone.cli.demo import demo
from whetstone.cli.init import init, recipes
from whetstone.cli.report import report
from whetstone.cli.runs import runs, show
from whetstone.cli.tune import tune
from whetstone.errors import UserError

__all__ = ["app", "main"]

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
for verb in (demo, init, recipes, tune, compare, report, runs, show):
    app.command()(verb)


def main() -> None:
    """Runs the command; bad input ends with one line and exit code 2, an interrupt with 130 or 143."""
    signal.signal(signal.SIGTERM, _terminate)
    # Deprecations inside libraries are for their developers and ours, not for the person at the terminal.
    warnings.simplefilter("ignore", FutureWarning)
    try:
        app()
    except UserError as error:
        _fail(str(error), 2)
    except KeyboardInterrupt:
        _fail("interrupted; what was finished is kept, and the same command goes on from there", 130)
    except OSError as error:
        if error.errno is None or error.filename is None:
            raise
        _fail(f"{error.filename}: {error.strerror}; what was finished is kept", 2)


def _terminate(signal_number: int, frame: FrameType | None) -> None:
    """Lets ``with`` blocks clean up before the process ends."""
    sys.exit(128 + signal_number)


def _fail(message: str, code: int) -> None:
    sys.stderr.write(f"error: {' '.join(message.split())}\n")
    sys.exit(code)
