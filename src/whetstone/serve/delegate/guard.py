"""Runs one command, and ends it with all that it started once whoever asked for it is gone.

``python -I -S guard.py GRACE_S COMMAND...``: says the number of the command's process on standard output; when standard
input ends (it was closed, or the one who held it died, in whatever way) it sends SIGTERM to the command's session, and
SIGKILL after the grace. It ends as the command does, or with 128 and the signal.

Notable: it imports nothing but the standard library, and of that little, for it takes memory as long as the other.
"""

import contextlib
import ctypes
import os
import select
import signal
import subprocess
import sys
import time

__all__ = ["main"]

_LOOK_S = 0.1
_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG of linux/prctl.h


def main(arguments: list[str]) -> int:
    """Runs a command.

    Args:
        arguments: The grace in seconds; the command.

    Returns:
        The exit code.
    """
    grace_s, command = float(arguments[0]), arguments[1:]
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    # What it says goes to standard error: standard output is the guard's own.
    child = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=2, stderr=2, start_new_session=True, preexec_fn=_be_mortal
    )
    os.write(1, f"{child.pid}\n".encode())
    while child.poll() is None and not select.select([0], [], [], _LOOK_S)[0]:
        pass
    if child.poll() is None:
        _signal(child.pid, signal.SIGTERM)
        end_s = time.monotonic() + grace_s
        while child.poll() is None and time.monotonic() < end_s:
            time.sleep(_LOOK_S / 2)
    # Also what a command that has ended left behind.
    _signal(child.pid, signal.SIGKILL)
    code = child.wait()
    return code if code >= 0 else 128 - code


def _be_mortal() -> None:
    """What is ignored here is not ignored there; and where Linux can do it, it dies with this process."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)


def _signal(session: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(session, number)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
