"""Opens the models of this process."""

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

from whetstone.errors import UserError
from whetstone.serve.proof.open_served import open_served
from whetstone.serve.worker.adapters import load_adapter
from whetstone.serve.worker.hosted import Hosted
from whetstone.serve.worker.protocol import Open

__all__ = ["open_hosted"]


def open_hosted(message: Open, stage: Callable[[str], None]) -> tuple[list[Hosted], list[tuple[str, str]]]:
    """Opens and proves models, and loads the adapters that an earlier process had loaded.

    Args:
        message: Which.
        stage: Told what is being done, in words.

    Returns:
        The models; and the names of the adapters that could not be loaded again, each with the reason.

    Raises:
        UserError: A model cannot be opened, or must not be served.
    """
    opening = message.opening
    served = open_served(
        opening.refs,
        runs=Path(opening.runs),
        force=opening.force,
        stage=stage,
        test_mode=opening.test_mode,
        device=opening.device,
        dtype=opening.dtype,
        earlier=message.earlier,
    )
    hosted = [Hosted.of(one.model, one.opened) for one in served]
    lost = []
    for name, source in message.adapters:
        stage(f"loading the adapter {name} again")
        try:
            hosted.append(load_adapter(name, source, opening, hosted, lambda _: nullcontext()))
        except UserError as error:
            lost.append((name, str(error)))
    return hosted, lost
