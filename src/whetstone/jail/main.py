"""The beginning of the jail, and its supervisor."""

import contextlib
import json
import os
import resource
import signal
import sys
from typing import NoReturn

from . import ENDED, FAILED, MEMORY, OBJECT, REFUSED, TIMEOUT, UNPLAIN
from .answer import run_alone, serve
from .checks import ask
from .job import Job
from .privileges import ARCHITECTURES, drop_privileges
from .walls import die_with_parent, enter_private_root, in_new_namespaces
from .wire import Channel

__all__ = ["main"]


def main() -> NoReturn:
    """Reads the job and does it; never returns."""
    sys.path.pop()  # the place of this package
    sys.dont_write_bytecode = True
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # the first process is safe from signals that it does not handle
    job = Job(**json.loads(sys.stdin.buffer.read()))
    user = os.getuid()
    machine = os.uname().machine
    if job.isolate:
        try:
            if machine not in ARCHITECTURES:
                raise OSError(f"no filter of system calls for {machine}")
            die_with_parent()
            if os.getppid() != job.parent:
                os._exit(FAILED)
            in_new_namespaces()
            enter_private_root(job.root, job.disk_bytes)
        except (OSError, AttributeError) as error:
            os.write(job.result, str(error).encode())
            os._exit(REFUSED)
    else:
        os.chdir(job.root)
    os._exit(_supervise(job, user, machine))


def _supervise(job: Job, user: int, machine: str) -> int:
    """Runs the answer and the checks in children, which alone lose their privileges, and says how they ended."""
    if job.names is None:
        answer = os.fork()
        if answer == 0:
            _confine(job, user, machine)
            run_alone(job)
        return _of_answer(_waited(answer)[answer])
    questions, replies = os.pipe(), os.pipe()
    answer = os.fork()
    if answer == 0:
        for descriptor in (job.checks, job.token, job.result, questions[1], replies[0]):
            os.close(descriptor)
        _confine(job, user, machine)
        serve(job, Channel(questions[0], replies[1], job.disk_bytes), job.names)
    checks = os.fork()
    if checks == 0:
        os.close(questions[0])
        os.close(replies[1])
        _confine(job, user, machine)
        ask(job, Channel(replies[0], questions[1], job.disk_bytes))
    for descriptor in (*questions, *replies):
        os.close(descriptor)
    ended = _waited(checks)
    if os.waitstatus_to_exitcode(ended[checks]) == ENDED:
        return _of_answer(ended[answer] if answer in ended else _waited(answer)[answer])
    if answer not in ended:
        os.kill(answer, signal.SIGKILL)
    return _of_checks(ended[checks])


def _confine(job: Job, user: int, machine: str) -> None:
    """Sets the limits and takes the privileges of this process."""
    os.close(0)
    os.open(os.devnull, os.O_RDONLY)
    os.environ.update(HOME=os.getcwd(), TMPDIR=os.getcwd())
    try:
        for name, value in job.limits.items():
            with contextlib.suppress(ValueError):  # macOS takes no limit of the address space
                resource.setrlimit(getattr(resource, name), (value, value))
        if job.isolate:
            drop_privileges(user, machine)
    except OSError as error:
        print(error, file=sys.stderr, flush=True)  # noqa: T201 (the output of the run)
        os._exit(FAILED)


def _waited(child: int) -> dict[int, int]:
    """The statuses of what ended until a child did."""
    statuses: dict[int, int] = {}
    while child not in statuses:
        ended, status = os.wait()
        statuses[ended] = status
    return statuses


def _of_answer(status: int) -> int:
    """What the end of the answer's process means; it may have chosen it, so most codes mean nothing."""
    if os.WIFSIGNALED(status):
        return TIMEOUT if os.WTERMSIG(status) == signal.SIGXCPU else FAILED
    return MEMORY if os.WEXITSTATUS(status) == MEMORY else FAILED


def _of_checks(status: int) -> int:
    code = os.waitstatus_to_exitcode(status)
    return code if code in (OBJECT, UNPLAIN) else _of_answer(status)
