"""Several answers at once, each piece as it comes.

One task an answer, and none a piece. Pieces that came while nobody looked are given together, so whoever writes them
out falls back on fewer and larger writes when there is more to do than time.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence

from whetstone.serve.api.heard import Heard
from whetstone.serve.api.unexpected import unexpected
from whetstone.serve.errors import ServeError
from whetstone.serve.question import Ending, Piece

__all__ = ["Said", "Together"]

Said = tuple[Heard, Piece | Ending]
"""A piece, and the answer that it belongs to; the answer may know more already."""


class Together:
    """Listens to all answers to one request."""

    def __init__(self, streams: Sequence[tuple[Heard, AsyncIterator[Piece | Ending]]], *, note: bool = True) -> None:
        """Begins to listen.

        Args:
            streams: The answers.
            note: Tell each answer of its pieces; not where the stream does that itself.
        """
        self._note = note
        self._waiting: list[Said] = []
        self._failure: ServeError | None = None
        self._there = asyncio.Event()
        self._running = len(streams)
        self._tasks = [asyncio.create_task(self._listen(heard, stream)) for heard, stream in streams]

    async def next(self) -> list[Said]:
        """What was said since, at least one piece; nothing when all answers have ended.

        Raises:
            ServeError: One of the answers failed; what was said before has been given.
        """
        while not self._waiting:
            if self._failure is not None:
                raise self._failure
            if not self._running:
                return []
            self._there.clear()
            await self._there.wait()
        said, self._waiting = self._waiting, []
        return said

    async def close(self) -> None:
        """Ends the answers that have not ended; returns when they have."""
        running = [task for task in self._tasks if not task.done()]
        for task in running:
            task.cancel()
        if running:
            await asyncio.gather(*running, return_exceptions=True)

    async def _listen(self, heard: Heard, stream: AsyncIterator[Piece | Ending]) -> None:
        try:
            async for piece in stream:
                if self._note:
                    heard.add(piece)
                self._waiting.append((heard, piece))
                self._there.set()
            if heard.ending is None:
                raise ServeError(500, "no_ending", "the answer broke off; ask again")
        except ServeError as error:
            self._failure = self._failure or error
        except Exception as error:
            self._failure = self._failure or unexpected(error)
        finally:
            self._running -= 1
            self._there.set()
