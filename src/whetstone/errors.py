"""The one exception that a person is meant to read."""

__all__ = ["UserError"]


class UserError(Exception):
    """Bad input, said in one line: what is wrong, where (file, line, key or example), and the mend.

    The command line prints the message without a traceback and ends with exit code 2.
    """
