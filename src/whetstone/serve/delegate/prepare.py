"""The process that makes models ready for a program, and then its prompts.

``python -m whetstone.serve.delegate.prepare`` is started by the server's process. It finds the models, proves that they
are what was judged, merges and writes what the program needs, and then turns conversations into token ids by the code
that training did it with, so that the server's process need not import that.
"""

import os
import sys
from typing import NoReturn

from whetstone.errors import UserError
from whetstone.serve.delegate.order import Prepare, Render, read_to_preparer
from whetstone.serve.json_line import encode
from whetstone.serve.worker.faults import tell_fault
from whetstone.serve.worker.pipes import EndOfServer, Pipe, leave_signals_to_server, take_pipes
from whetstone.serve.worker.protocol import Lost, Refused, Stage

__all__ = ["main"]


def main() -> NoReturn:
    """Serves until the server's process is gone; never returns, for what libraries still do at the end is of no use."""
    leave_signals_to_server()
    pipe = take_pipes()
    try:
        _serve(pipe)
    except EndOfServer:
        pass
    except UserError as error:
        pipe.write(encode(Refused(str(error))))
        os._exit(2)
    except BaseException as error:
        tell_fault(error)
        pipe.write(encode(Lost(type(error).__name__)))
        os._exit(1)
    sys.stderr.flush()
    os._exit(0)


def _serve(pipe: Pipe) -> None:
    messages = map(read_to_preparer, pipe.lines())
    order = next(messages)
    assert isinstance(order, Prepare)
    pipe.write(encode(Stage("looking for the model")))
    # Slow to import; whoever waits is told so.
    from whetstone.serve.delegate.ready_models import ready_models
    from whetstone.serve.delegate.rendering import Rendering

    prepared, template = ready_models(order, lambda said: pipe.write(encode(Stage(said))))
    pipe.write(encode(prepared))
    rendering = Rendering(template, prepared.context_tokens, same_tokens=order.same_tokens)
    for message in messages:
        assert isinstance(message, Render)
        pipe.write(encode(rendering.rendered(message)))


if __name__ == "__main__":
    main()
