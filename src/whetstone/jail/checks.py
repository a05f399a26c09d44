"""The process that runs the checks, and only asks the answer.

None of the answer's code runs here, and nothing of the checks is in the answer's process but the arguments of its
functions. What comes back is a plain value, so it is these checks that compare, and Python's own types that say what is
equal.
"""

import builtins
import os
import sys
from collections import deque
from collections.abc import Callable
from typing import Any, NoReturn

from . import ENDED, FAILED, MEMORY, OBJECT, UNPLAIN
from .answer import read_whole, show_fault
from .job import Job
from .wire import Channel, Closed, NotPlain, decoded, encoded

__all__ = ["ask"]


def ask(job: Job, channel: Channel) -> NoReturn:
    """Runs the checks, with functions that stand for those of the answer."""
    status = FAILED
    try:
        introduction = _received(channel)
        names: dict[str, Any] = {name: _value(value) for name, value in introduction["values"]}
        names.update({name: _stand_in(name, channel) for name in introduction["functions"]})
        names["__name__"] = "__main__"
        exec(compile(read_whole(job.checks), "<tests>", "exec"), names)
        os.write(job.result, os.read(job.token, 64))
    except MemoryError:
        status = MEMORY
    except BaseException:
        show_fault()
    _leave(status)


def _leave(status: int, reason: str = "") -> NoReturn:
    """Ends the process; an exception is something that checks can catch."""
    if reason:
        sys.stderr.write(f"{reason}\n")
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _stand_in(name: str, channel: Channel) -> Callable[..., Any]:
    def function(*arguments: Any, **keywords: Any) -> Any:
        given = [*arguments, *keywords.values()]
        try:
            sent = [encoded(one, nearest=False) for one in given]
            named = [[key, one] for key, one in zip(keywords, sent[len(arguments) :], strict=True)]
            channel.send([name, sent[: len(arguments)], named])
        except (NotPlain, RecursionError) as error:
            _leave(UNPLAIN, f"the tests give {name} {error}")
        except Closed:
            _leave(ENDED)
        reply = _received(channel)
        if "raised" in reply:
            raise _exception(reply["raised"], _value(reply["arguments"]))
        for number, changed in reply["changed"]:
            _restore(given[number], _value(changed))
        return _value(reply["value"])

    function.__name__ = function.__qualname__ = name
    return function


def _received(channel: Channel) -> Any:
    try:
        reply = channel.receive()
    except Closed as error:
        _leave(ENDED, str(error))
    if "object" in reply:
        _leave(OBJECT, f"the answer gives {reply['object']}, which cannot be compared from outside of its process")
    return reply


def _value(held: Any) -> Any:
    try:
        return decoded(held)
    except (Closed, RecursionError) as error:
        _leave(FAILED, f"the answer's process sends {error}")


def _exception(kinds: list[str], arguments: list[Any]) -> Exception:
    """The exception that the answer raised, or the nearest of Python's own that it is one of."""
    for name in kinds:
        kind = getattr(builtins, name, None)
        if isinstance(kind, type) and issubclass(kind, Exception):
            try:
                return kind(*arguments)
            except (TypeError, ValueError):  # it takes other arguments
                continue
    return Exception(*arguments)


def _restore(held: Any, changed: Any) -> None:
    """Does to an argument what the answer did to its copy."""
    if type(held) is not type(changed):
        return
    if isinstance(held, list | bytearray):
        held[:] = changed
    elif isinstance(held, dict | set):
        held.clear()
        held.update(changed)
    elif isinstance(held, deque):
        held.clear()
        held.extend(changed)
