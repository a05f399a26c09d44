"""Runs Python code that nobody has read, as the answers of a model are.

On Linux the code runs in user, mount, network, process, IPC and host-name namespaces of its own: it sees the standard
library and an empty ``/tmp``, no file of the user, no other process, no network. It has no capabilities, a filter
forbids the system calls that could lead out, and its time, memory, processes, files and output are limited. Where the
kernel cannot do this, nothing is run (unless the caller insists).

What remains: the kernel is shared, so a fault of it is a way out; the memory limit is one for each process; the
standard library and the system's shared libraries can be read; and code that looks for it can pass the checks that run
in its own process, by changing what they call or by reading the token that proves their end (:mod:`whetstone.jail`).
"""

import contextlib
import json
import math
import os
import secrets
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

from whetstone.errors import UserError
from whetstone.jail import MEMORY, REFUSED, TIMEOUT

__all__ = ["DEFAULT_LIMITS", "Limits", "Outcome", "run_python"]

_TAIL_CHARS = 2000
_NAMESPACES_ON = "linux"
_JAIL = Path(__file__).with_name("jail.py")


@dataclass(frozen=True, slots=True)
class Limits:
    """What code may use.

    Attributes:
        time_s: Seconds on the clock; as many of the processor in each process.
        memory_bytes: Address space of each process.
        processes: Processes and threads at a time.
        file_bytes: Of each file, and of what the code prints; all files together may be four times as large.
        open_files: In each process.
    """

    time_s: float = 5.0
    memory_bytes: int = 512 << 20
    processes: int = 16
    file_bytes: int = 1 << 20
    open_files: int = 64

    def resources(self) -> dict[str, int]:
        """The names that setrlimit knows."""
        return {
            "RLIMIT_CPU": math.ceil(self.time_s),
            "RLIMIT_AS": self.memory_bytes,
            "RLIMIT_NPROC": self.processes,
            "RLIMIT_FSIZE": self.file_bytes,
            "RLIMIT_NOFILE": self.open_files,
            "RLIMIT_CORE": 0,
        }


DEFAULT_LIMITS = Limits()


@dataclass(frozen=True, slots=True)
class Outcome:
    """How code ended.

    Attributes:
        status: ``passed`` when all of it ran without a fault; an early exit is ``failed``.
        output: The end of what it printed, its traceback included.
    """

    status: Literal["passed", "failed", "timeout", "memory"]
    output: str


def run_python(
    code: str, checks: str = "", *, limits: Limits = DEFAULT_LIMITS, allow_unisolated: bool = False
) -> Outcome:
    """Runs code, then checks in the same namespace, in a process of their own.

    Args:
        code: What nobody has read.
        checks: Code that raises where the other is wrong; compiled apart, so that the other cannot swallow it.
        limits: What both may use.
        allow_unisolated: Run where the code cannot be isolated, too, with nothing but the limits: it can then read the
            user's files and reach the network.

    Raises:
        UserError: The code cannot be isolated here.
    """
    isolate = sys.platform == _NAMESPACES_ON
    if not isolate and not allow_unisolated:
        raise _refusal(f"{sys.platform} has no namespaces")
    parts = {"answer": code, "tests": checks}
    outcome = _attempt(parts, limits, isolate=isolate)
    if isinstance(outcome, str):
        if not allow_unisolated:
            raise _refusal(outcome)
        outcome = _attempt(parts, limits, isolate=False)
    if isinstance(outcome, str):
        raise AssertionError(outcome)
    return outcome


def _refusal(reason: str) -> UserError:
    return UserError(
        f"code cannot be run safely here ({reason}); use Linux 5.12 or newer with user namespaces (in a container: "
        "without a seccomp profile that forbids unshare), or leave out the reward 'tests'"
    )


def _attempt(parts: dict[str, str], limits: Limits, *, isolate: bool) -> Outcome | str:
    """Runs the code, or says why it cannot be isolated."""
    token = secrets.token_hex(16).encode()
    with (
        tempfile.TemporaryDirectory(prefix="whet-") as root,
        tempfile.TemporaryFile() as job,
        tempfile.TemporaryFile() as output,
        _pipe() as (token_end, token_start),
        _pipe() as (result_end, result_start),
    ):
        token_start.write(token)
        token_start.close()
        settings = {"isolate": isolate, "root": root, "disk_bytes": 4 * limits.file_bytes, "parts": parts}
        descriptors = {"token": token_end.fileno(), "result": result_start.fileno()}
        job.write(json.dumps({**settings, **descriptors, "limits": limits.resources()}).encode())
        job.seek(0)
        exit_code = _wait(job, output, tuple(descriptors.values()), limits.time_s)
        os.set_blocking(result_end.fileno(), False)
        result = result_end.read(4096) or b""
        if exit_code == REFUSED:
            return result.decode(errors="replace")
        return Outcome(_status(exit_code, result == token), _tail(output))


def _status(exit_code: int, proven: bool) -> Literal["passed", "failed", "timeout", "memory"]:
    if exit_code == TIMEOUT:
        return "timeout"
    if exit_code == MEMORY:
        return "memory"
    return "passed" if proven else "failed"


def _wait(job: IO[bytes], output: IO[bytes], descriptors: tuple[int, ...], time_s: float) -> int:
    """Starts the jail with a bare environment and ends it, and all that it started, when the time is over."""
    process = subprocess.Popen(
        [os.path.realpath(sys.executable), "-I", "-S", "-B", str(_JAIL)],
        stdin=job,
        stdout=output,
        stderr=output,
        env={"LC_ALL": "C.UTF-8"},
        pass_fds=descriptors,
        start_new_session=True,
    )
    try:
        return process.wait(time_s)
    except subprocess.TimeoutExpired:
        return TIMEOUT
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _tail(output: IO[bytes]) -> str:
    size = output.seek(0, os.SEEK_END)
    output.seek(max(0, size - 4 * _TAIL_CHARS))
    return output.read().decode(errors="replace")[-_TAIL_CHARS:]


@contextlib.contextmanager
def _pipe() -> Iterator[tuple[IO[bytes], IO[bytes]]]:
    end, start = os.pipe()
    with os.fdopen(end, "rb", buffering=0) as reading, os.fdopen(start, "wb", buffering=0) as writing:
        yield reading, writing
