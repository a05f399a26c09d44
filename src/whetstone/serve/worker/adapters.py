"""Adapters that are put on the models of this process while it serves."""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from pathlib import Path

from whetstone.engine.open import close_adapter, open_adapter
from whetstone.engine.worker import Worker
from whetstone.serve.proof.adapters import find_base, prove_adapter, serve_adapter
from whetstone.serve.worker.hosted import Hosted
from whetstone.serve.worker.protocol import Opening

__all__ = ["load_adapter", "unload_adapter"]


def load_adapter(
    name: str,
    source: str,
    opening: Opening,
    hosted: Iterable[Hosted],
    lending: Callable[[Worker], AbstractContextManager[None]],
) -> Hosted:
    """Finds, proves and loads an adapter.

    Args:
        name: What requests will call it.
        source: ``run:NAME``, or the name of a folder below one of the roots.
        opening: What the process was started with.
        hosted: The models that are here.
        lending: Lets this thread step an engine.

    Raises:
        UserError: It may not be served, or cannot be put on any model here.
    """
    runs, force = Path(opening.runs), opening.force
    proved = prove_adapter(source, runs=runs, roots=[Path(root) for root in opening.adapter_roots], force=force)
    base = find_base(proved, [one.opened for one in hosted])
    opened = open_adapter(base, source if source.startswith("run:") else proved.folder, runs=runs)
    try:
        # The judged answers are asked for in this thread; others are computed along with them, not after them.
        with lending(Hosted.engine_of(opened)):
            served = serve_adapter(name, proved, opened, force=force, device=opening.device, stage=_to_nobody)
        return Hosted.of(served.model, served.opened)
    except BaseException:
        close_adapter(opened)
        raise


def unload_adapter(hosted: Hosted) -> None:
    """Gives the memory of an adapter back.

    Raises:
        UserError: It is none.
    """
    close_adapter(hosted.opened)


def _to_nobody(said: str) -> None:
    """Whoever asked for an adapter is told what became of it, and not on the way."""
