"""The server's side of the process that prepares models and renders prompts."""

import asyncio
import contextlib
import itertools
import sys
from asyncio.subprocess import PIPE, Process, create_subprocess_exec
from collections.abc import Callable, Sequence

from whetstone.errors import UserError
from whetstone.serve.delegate.order import Prepare, Prepared, PromptOfWire, Render, Rendered, read_from_preparer
from whetstone.serve.delegate.running import whole
from whetstone.serve.errors import ServeError
from whetstone.serve.json_line import encode
from whetstone.serve.worker.protocol import Lost, Refused, Stage

__all__ = ["PROGRAM", "Preparing"]

PROGRAM = (sys.executable, "-P", "-m", "whetstone.serve.delegate.prepare")
"""How the process is started; -P because what lies in the working folder must not stand in for a module."""

_LONGEST_LINE_BYTES = 1 << 26
_GRACE_S = 2.0


class Preparing:
    """One such process, once its models are ready."""

    def __init__(self, process: Process) -> None:
        """Takes over what :meth:`begin` started."""
        assert process.stdin is not None and process.stdout is not None
        self._process = process
        self._to, self._from = process.stdin, process.stdout
        self._ids = itertools.count()
        self._waiting: dict[int, asyncio.Future[Rendered]] = {}
        self._hearing: asyncio.Task[None] | None = None

    @classmethod
    async def begin(
        cls, order: Prepare, stage: Callable[[str], None], program: Sequence[str] = PROGRAM
    ) -> tuple["Preparing", Prepared]:
        """Starts one, and waits for its models.

        Args:
            order: What to prepare.
            stage: Told what it is doing, in words.
            program: The process; another one only for tests.

        Raises:
            UserError: A model cannot be prepared, and trying again changes nothing.
            OSError: It broke.
        """
        process = await create_subprocess_exec(
            *program, stdin=PIPE, stdout=PIPE, limit=_LONGEST_LINE_BYTES, start_new_session=True
        )
        preparing = cls(process)
        try:
            prepared = await preparing._prepared(order, stage)
        except BaseException:
            await whole(preparing.end())
            raise
        preparing._hearing = asyncio.create_task(preparing._hear(), name="whet-preparing")
        return preparing, prepared

    @property
    def ended(self) -> bool:
        """Whether the process has."""
        return self._hearing is None or self._hearing.done()

    async def render(self, model: str, prompt: PromptOfWire) -> tuple[int, ...]:
        """The token ids of a prompt.

        Raises:
            ServeError: 400, it cannot be put to the model; 503, the process broke.
        """
        if self.ended:
            raise _lost()
        asked = next(self._ids)
        future: asyncio.Future[Rendered] = asyncio.get_running_loop().create_future()
        self._waiting[asked] = future
        try:
            try:
                self._to.write(encode(Render(asked, model, prompt)))
            except ValueError as error:
                raise ServeError.invalid(f"it cannot be written as JSON: {error}") from None
            with contextlib.suppress(ConnectionError):
                await self._to.drain()
            rendered = await future
        finally:
            del self._waiting[asked]
        if rendered.error is not None:
            raise ServeError.invalid(rendered.error, rendered.param, rendered.code)
        return rendered.token_ids

    async def end(self) -> None:
        """Has it end, and waits for that."""
        self._to.close()
        try:
            async with asyncio.timeout(_GRACE_S):
                await self._process.wait()
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()
        # To the end, so that its pipe is closed before the loop is.
        await (self._from.read() if self._hearing is None else self._hearing)

    async def _prepared(self, order: Prepare, stage: Callable[[str], None]) -> Prepared:
        self._to.write(encode(order))
        while line := await self._from.readline():
            match read_from_preparer(line):
                case Stage(said):
                    stage(said)
                case Prepared() as prepared:
                    return prepared
                case Refused(message):
                    raise UserError(message)
                case Lost(message):
                    raise OSError(f"preparing the model failed ({message}); the log says where")
        raise OSError("the process that prepares the model broke")

    async def _hear(self) -> None:
        try:
            while line := await self._from.readline():
                rendered = read_from_preparer(line)
                if isinstance(rendered, Rendered) and rendered.id in self._waiting:
                    future = self._waiting[rendered.id]
                    if not future.done():
                        future.set_result(rendered)
        except ValueError:
            self._process.kill()
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(_lost())


def _lost() -> ServeError:
    return ServeError.unavailable("the process that renders prompts broke; ask again", 1.0, "backend_lost")
