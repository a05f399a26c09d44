"""Opens the models of this process."""

from collections.abc import Callable
from pathlib import Path

from whetstone.serve.proof.open_served import open_served
from whetstone.serve.worker.hosted import Hosted
from whetstone.serve.worker.protocol import Open

__all__ = ["open_hosted"]


def open_hosted(message: Open, stage: Callable[[str], None]) -> list[Hosted]:
    """Opens and proves them.

    Args:
        message: Which.
        stage: Told what is being done, in words.

    Raises:
        UserError: One of them cannot be opened, or must not be served.
    """
    opening = message.opening
    served = open_served(
        opening.refs,
        runs=Path(opening.runs),
        force=opening.force,
        test_mode=opening.test_mode,
        device=opening.device,
        dtype=opening.dtype,
        proved=message.proved,
        stage=stage,
    )
    return [Hosted.of(one.model, one.opened) for one in served]
