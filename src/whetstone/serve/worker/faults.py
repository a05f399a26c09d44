"""What a process that computes says of what goes wrong in it."""

import sys
import traceback

from whetstone.errors import UserError
from whetstone.serve.errors import ServeError

__all__ = ["as_serve_error", "tell_fault"]


def tell_fault(error: BaseException) -> None:
    """Says on standard error where a fault was; not its words, which may quote a prompt."""
    traceback.print_tb(error.__traceback__, file=sys.stderr)
    sys.stderr.write(f"{type(error).__name__}\n")
    sys.stderr.flush()


def as_serve_error(error: Exception) -> ServeError:
    """What a client is told: what is wrong with the question; or that it was nobody's fault but ours."""
    if isinstance(error, ServeError):
        return error
    if isinstance(error, UserError):
        return ServeError.invalid(str(error))
    tell_fault(error)
    return ServeError(500, "internal_error", f"answering failed ({type(error).__name__}); the server's log says where")
