"""The process that computes: ``python -m whetstone.serve.worker.main``, started by the server's process.

It opens and proves models, says that it is ready, and then answers questions until the server's process is gone. Its
threads: one hears the server's process, one makes requests of questions, the main one steps the engines, and two more
embed texts and load adapters.
"""

import os
import sys
from typing import NoReturn

from whetstone.errors import UserError
from whetstone.serve.json_line import encode
from whetstone.serve.worker.faults import tell_fault
from whetstone.serve.worker.incoming import Incoming
from whetstone.serve.worker.pipes import EndOfServer, Pipe, leave_signals_to_server, take_pipes
from whetstone.serve.worker.protocol import Lost, Ready, Refused, Stage

__all__ = ["main"]


def main() -> NoReturn:
    """Serves; never returns, for what threads of libraries still do at the end is of no use to anybody."""
    leave_signals_to_server()
    pipe = take_pipes()
    incoming = Incoming(pipe)
    try:
        _serve(pipe, incoming)
    except EndOfServer:
        os._exit(0)
    except UserError as error:
        pipe.write(encode(Refused(str(error))))
        os._exit(2)
    except BaseException as error:
        tell_fault(error)
        pipe.write(encode(Lost(_in_words(error))))
        sys.stderr.flush()
        os._exit(1)
    raise AssertionError("the stepper stepped out")


def _serve(pipe: Pipe, incoming: Incoming) -> None:
    message = incoming.opening.get()
    pipe.write(encode(Stage("starting")))
    # Slow to import; whoever waits is told so, and hears at once when the server's process is gone.
    from whetstone.serve.worker.errands import Errands
    from whetstone.serve.worker.intake import Intake
    from whetstone.serve.worker.opening import open_hosted
    from whetstone.serve.worker.stepper import Stepper

    hosted, lost = open_hosted(message, lambda said: pipe.write(encode(Stage(said))))
    intake = Intake(incoming, pipe)
    stepper = Stepper(pipe, {one.model.name: one for one in hosted}, lambda: intake.busy_s)
    intake.start(stepper, Errands(message.opening, stepper, pipe))
    pipe.write(encode(Ready(tuple(one.model for one in hosted), tuple(lost))))
    stepper.run()


def _in_words(error: BaseException) -> str:
    """The kind of a fault and its first line."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


if __name__ == "__main__":
    main()
