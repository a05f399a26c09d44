"""An event loop whose clock jumps to whatever is due next, so that a test of an hour takes no time and is exact."""

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

__all__ = ["run_virtually"]

_Result = TypeVar("_Result")


class _Instant(selectors.SelectSelector):
    now_s = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self.now_s += timeout or 0.0
        return super().select(0)


class _Loop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._clock = _Instant()
        super().__init__(self._clock)

    def time(self) -> float:
        return self._clock.now_s


def run_virtually(main: Coroutine[Any, Any, _Result]) -> _Result:
    """Runs to the end; nothing in it may wait for another thread or the network."""
    with asyncio.Runner(loop_factory=_Loop) as runner:
        return runner.run(main)
