"""The process that runs what nobody has read."""

import builtins
import contextlib
import os
import sys
from collections.abc import Callable
from typing import Any, NoReturn

from . import FAILED, MEMORY
from .job import Job
from .wire import Channel, Closed, NotPlain, decoded, encoded

__all__ = ["run_alone", "serve", "show_fault"]


def run_alone(job: Job) -> NoReturn:
    """Runs the answer, then the checks in the same namespace; only then is the token read, and passed on.

    Whoever runs in this process can read the token and pass it on himself, but not by accident: neither output, nor an
    exit code, nor an early end looks like it. What the answer has put in the place of builtins is undone before the
    checks.
    """
    genuine, read, write = dict(vars(builtins)), os.read, os.write

    def all_of_it() -> None:
        names = {"__name__": "__main__"}
        exec(compile(job.answer, "<answer>", "exec"), names)
        vars(builtins).update(genuine)
        sys.settrace(None)
        sys.setprofile(None)
        exec(compile(read_whole(job.checks), "<tests>", "exec"), names)
        write(job.result, read(job.token, 64))

    _end_after(all_of_it)


def serve(job: Job, channel: Channel, asked: list[str]) -> NoReturn:
    """Runs the answer, then its functions as often as the checks ask."""

    def all_of_it() -> None:
        names: dict[str, Any] = {"__name__": "__main__"}
        exec(compile(job.answer, "<answer>", "exec"), names)
        channel.send(_reply(lambda: _introduction(names, asked)))
        while True:
            _flush()
            name, arguments, keywords = channel.receive()
            function, given = names[name], decoded(arguments)
            named = {key: decoded(value) for key, value in keywords}
            channel.send(_reply(lambda: _called(function, given, named)))  # noqa: B023 (called at once)

    _end_after(all_of_it)


def read_whole(descriptor: int) -> str:
    """The text of a file, from its beginning."""
    return os.pread(descriptor, os.fstat(descriptor).st_size, 0).decode(errors="surrogatepass")


def show_fault() -> None:
    """Prints the exception at hand without the frames of the jail; the interpreter's own way imports nothing."""
    kind, error, trace = sys.exc_info()
    while trace is not None and not trace.tb_frame.f_code.co_filename.startswith("<"):
        trace = trace.tb_next
    if kind is not None and error is not None:
        sys.__excepthook__(kind, error.with_traceback(trace), trace)


def _end_after(work: Callable[[], None]) -> NoReturn:
    end, suppressed, status = os._exit, BaseException, FAILED
    try:
        work()
    except MemoryError:
        status = MEMORY
    except Closed:
        pass
    except suppressed:
        with contextlib.suppress(suppressed):
            show_fault()
    _flush()
    end(status)


def _flush() -> None:
    """Lets what was printed be seen, where the answer left something to print to."""
    with contextlib.suppress(BaseException):
        sys.stdout.flush()
        sys.stderr.flush()


def _introduction(names: dict[str, Any], asked: list[str]) -> dict[str, Any]:
    """Which of the names are functions, and the values of the others."""
    functions = [name for name in asked if callable(names.get(name))]
    values = [[name, encoded(names[name], nearest=True)] for name in asked if name in names and name not in functions]
    return {"functions": functions, "values": values}


def _called(function: Callable[..., Any], given: list[Any], named: dict[str, Any]) -> dict[str, Any]:
    """What a function gives, and the arguments that it changed in place, by their number."""
    arguments = [*given, *named.values()]
    before = [encoded(one, nearest=True) for one in arguments]
    value = encoded(function(*given, **named), nearest=True)
    after = [encoded(one, nearest=True) for one in arguments]
    changed = [[number, one] for number, one in enumerate(after) if one != before[number]]
    return {"value": value, "changed": changed}


def _reply(work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    try:
        return work()
    except NotPlain as error:
        return {"object": str(error)}
    except Exception as error:
        return {"raised": [kind.__name__ for kind in type(error).__mro__], "arguments": [*map(_told, error.args)]}


def _told(argument: object) -> Any:
    try:
        return encoded(argument, nearest=True)
    except (NotPlain, RecursionError):
        return str(argument)
