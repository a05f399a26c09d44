"""Runs Python code that nobody has read, as the answers of a model are.

On Linux the code runs in user, mount, network, process, IPC and host-name namespaces of its own: it sees the standard
library and an empty ``/tmp``, no file of the user, no other process, no network. It has no capabilities, a filter
forbids the system calls that could lead out, and its time, memory, threads, files and output are limited; it can start
no process. Where the kernel cannot do this, nothing is run (unless the caller insists).

Checks of the code run in a process of their own, and only ask the code's functions, wherever they can be split from it
(:mod:`whetstone.apart`); code cannot pass such checks by changing what they call. Checks that cannot be split run in
the code's process, and the outcome says so.

What remains is listed in ``docs/sandbox.md``: above all, the kernel is shared, so a fault of it is a way out.
"""

import contextlib
import json
import math
import os
import secrets
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

from whetstone import jail
from whetstone.apart import Questions, questions
from whetstone.errors import UserError
from whetstone.jail.job import Job

__all__ = ["DEFAULT_LIMITS", "Limits", "Outcome", "Proof", "Status", "require_sandbox", "run_python"]

Status = Literal["passed", "failed", "timeout", "memory"]
Proof = Literal["apart", "in-process"]
"""Where the checks ran: in a process that only asks the code, or in the code's own."""

_TAIL_CHARS = 2000
_NAMESPACES_ON = "linux"
_START = "import sys; sys.path.append(sys.argv[1]); from jail.main import main; main()"
_JAIL_PROCESSES = 4
"""That the limit of an ordinary user's processes counts beside the threads of the code."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What code may use.

    Attributes:
        time_s: Seconds on the clock; as many of the processor in each process.
        memory_bytes: Address space of the code, all threads together; checks that run apart may use as much again.
        threads: At a time. No process can be started, where the code is isolated.
        file_bytes: Of each file, and of what the code prints; all files together, and what a function is given or
            gives, may be four times as large.
        open_files: At a time.
    """

    time_s: float = 5.0
    memory_bytes: int = 512 << 20
    threads: int = 16
    file_bytes: int = 1 << 20
    open_files: int = 64

    def resources(self) -> dict[str, int]:
        """The names that setrlimit knows."""
        return {
            "RLIMIT_CPU": math.ceil(self.time_s),
            "RLIMIT_AS": self.memory_bytes,
            "RLIMIT_NPROC": self.threads + _JAIL_PROCESSES,
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
        proof: Where the checks ran. Code that looks for a way can pass checks in its own process; it cannot pass
            those apart from it other than by giving the right values.
        gave_object: It failed because a function gave something that is no plain value, which checks apart from it
            cannot compare.
    """

    status: Status
    output: str
    proof: Proof = "in-process"
    gave_object: bool = False


def run_python(
    code: str,
    checks: str = "",
    *,
    before: str = "",
    limits: Limits = DEFAULT_LIMITS,
    apart: bool = True,
    allow_unisolated: bool = False,
) -> Outcome:
    """Runs code, then checks of it.

    Args:
        code: What nobody has read.
        checks: Code that raises where the other is wrong. It sees the names of the other.
        before: What the code continues, such as the head of a function.
        limits: What both may use.
        apart: Run the checks in a process of their own where they allow it.
        allow_unisolated: Run where the code cannot be isolated, too, with nothing but the limits: it can then read the
            user's files and reach the network.

    Raises:
        UserError: The code cannot be isolated here.
    """
    isolate = sys.platform == _NAMESPACES_ON
    if not isolate and not allow_unisolated:
        raise _refusal(f"{sys.platform} has no namespaces")
    answer = f"{before}\n{code}" if before else code
    asked = questions(checks, before) if apart else None
    outcome = _attempt(answer, checks, asked, limits, isolate=isolate)
    if isinstance(outcome, str):
        if not allow_unisolated:
            raise _refusal(outcome)
        outcome = _attempt(answer, checks, asked, limits, isolate=False)
    if isinstance(outcome, str):
        raise AssertionError(outcome)
    return outcome


def require_sandbox(*, limits: Limits = DEFAULT_LIMITS, allow_unisolated: bool = False) -> None:
    """Makes sure that code can be run before much depends on it.

    Raises:
        UserError: It cannot be isolated here, or not within these limits.
    """
    outcome = run_python("", limits=limits, allow_unisolated=allow_unisolated)
    if outcome.status != "passed":
        raise _refusal(f"an empty program ended as '{outcome.status}': {outcome.output.strip() or 'it said nothing'}")


def _refusal(reason: str) -> UserError:
    return UserError(
        f"code cannot be run safely here ({reason}); use Linux 5.12 or newer with user namespaces (in a container: "
        "without a seccomp profile that forbids unshare), or leave out what runs tests"
    )


def _attempt(answer: str, checks: str, asked: Questions | None, limits: Limits, *, isolate: bool) -> Outcome | str:
    """Runs the code, or says why it cannot be isolated."""
    token = secrets.token_hex(16).encode()
    with (
        tempfile.TemporaryDirectory(prefix="whet-") as root,
        tempfile.TemporaryFile() as job_file,
        tempfile.TemporaryFile() as checks_file,
        tempfile.TemporaryFile() as output,
        _pipe() as (token_end, token_start),
        _pipe() as (result_end, result_start),
    ):
        token_start.write(token)
        token_start.close()
        checks_file.write((asked.source if asked else checks).encode(errors="surrogatepass"))
        checks_file.flush()
        job = Job(
            parent=os.getpid(),
            isolate=isolate,
            root=root,
            disk_bytes=4 * limits.file_bytes,
            limits=limits.resources(),
            answer=answer,
            names=list(asked.names) if asked else None,
            checks=checks_file.fileno(),
            token=token_end.fileno(),
            result=result_start.fileno(),
        )
        job_file.write(json.dumps(job._asdict()).encode())
        job_file.seek(0)
        exit_code = _wait(job_file, output, (job.checks, job.token, job.result), limits.time_s)
        os.set_blocking(result_end.fileno(), False)
        result = result_end.read(4096) or b""
        if exit_code == jail.REFUSED:
            return result.decode(errors="replace")
        if asked and exit_code == jail.UNPLAIN:
            return _attempt(answer, checks, None, limits, isolate=isolate)
        return Outcome(
            _status(exit_code, result == token),
            _tail(output),
            proof="apart" if asked else "in-process",
            gave_object=exit_code == jail.OBJECT,
        )


def _status(exit_code: int, proven: bool) -> Status:
    if exit_code == jail.TIMEOUT:
        return "timeout"
    if exit_code == jail.MEMORY:
        return "memory"
    return "passed" if proven else "failed"


def _wait(job: IO[bytes], output: IO[bytes], descriptors: tuple[int, ...], time_s: float) -> int:
    """Starts the jail with a bare environment and ends it, and all that it started, when the time is over."""
    process = subprocess.Popen(
        [os.path.realpath(sys.executable), "-P", "-s", "-S", "-c", _START, str(Path(jail.__file__).parent.parent)],
        stdin=job,
        stdout=output,
        stderr=output,
        env={"LC_ALL": "C.UTF-8", "PYTHONHASHSEED": "0"},
        pass_fds=descriptors,
        start_new_session=True,
    )
    try:
        return _ended(process, time_s)
    except subprocess.TimeoutExpired:
        return jail.TIMEOUT
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _ended(process: subprocess.Popen[bytes], time_s: float) -> int:
    """The exit code; on Linux at once, where Popen would look up to 50 ms later."""
    if sys.platform == _NAMESPACES_ON:
        descriptor = os.pidfd_open(process.pid)
        try:
            poll = select.poll()
            poll.register(descriptor, select.POLLIN)
            poll.poll(1000 * time_s)
        finally:
            os.close(descriptor)
        return process.wait(0)
    return process.wait(time_s)


def _tail(output: IO[bytes]) -> str:
    size = output.seek(0, os.SEEK_END)
    output.seek(max(0, size - 4 * _TAIL_CHARS))
    return output.read().decode(errors="replace")[-_TAIL_CHARS:]


@contextlib.contextmanager
def _pipe() -> Iterator[tuple[IO[bytes], IO[bytes]]]:
    end, start = os.pipe()
    with os.fdopen(end, "rb", buffering=0) as reading, os.fdopen(start, "wb", buffering=0) as writing:
        yield reading, writing
