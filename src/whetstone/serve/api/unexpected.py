"""Failures that nobody foresaw: they are written down without a word of what was asked or said."""

import logging
import traceback

from whetstone.serve.errors import ServeError

__all__ = ["unexpected"]

_log = logging.getLogger(__name__)


def unexpected(error: BaseException) -> ServeError:
    """Logs where a failure happened, and gives what the client is told of it.

    The message of the exception is left out: it may hold what a client sent.
    """
    where = "".join(traceback.format_tb(error.__traceback__)).rstrip()
    _log.error("a request failed: %s at\n%s", type(error).__name__, where)
    return ServeError(500, "internal_error", "the server failed; its log says where")
