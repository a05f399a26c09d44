"""Clients that hang up: what they asked for is given up at once."""

import asyncio
from types import TracebackType

from starlette.types import Receive

__all__ = ["Gone", "until_gone"]


class Gone(Exception):  # noqa: N818 - it says what happened
    """The client is not there any more."""


class until_gone:  # noqa: N801 - used like asyncio.timeout
    """Cancels the block when the client hangs up, and raises :class:`Gone` then.

    Works as :class:`asyncio.Timeout` does, so that both can be around the same block, in any order. The body of the
    request has to have been read before.
    """

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._gone = False

    async def __aenter__(self) -> None:
        """Begins to watch."""
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self._cancelling = task.cancelling()
        self._watch = asyncio.create_task(self._wait())

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Tells apart who cancelled the block."""
        self._watch.cancel()
        if self._gone and self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise Gone from None

    async def _wait(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._gone = True
        self._task.cancel()
