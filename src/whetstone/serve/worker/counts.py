"""What a process that computes was busy with since the server began, whatever became of the process meanwhile."""

import time
from collections import deque

from whetstone.serve.backend import Load
from whetstone.serve.worker.protocol import Busy

__all__ = ["Counts"]

_WINDOW_S = 10.0


class Counts:
    """Adds up what it told."""

    def __init__(self) -> None:
        """Nothing was told."""
        self._last: Busy | None = None
        self._prompt_tokens = self._reused_tokens = self._new_tokens = 0
        self._recent: deque[tuple[float, int]] = deque()

    def add(self, busy: Busy) -> None:
        """Takes what it told last."""
        self._last = busy
        self._prompt_tokens += busy.prompt_tokens
        self._reused_tokens += busy.reused_tokens
        self._new_tokens += busy.new_tokens
        self._recent.append((time.monotonic(), busy.new_tokens))
        self._forget()

    def end(self) -> None:
        """The process is gone, and its memory with it."""
        self._last = None

    def load(self, running: int) -> Load:
        """All of it.

        Args:
            running: Answers that are being generated.
        """
        self._forget()
        last = self._last
        return Load(
            running=running,
            memory_bytes=None if last is None else last.memory_bytes,
            cache_tokens=None if last is None else last.cache_tokens,
            cache_bytes=None if last is None else last.cache_bytes,
            reused_tokens=self._reused_tokens,
            prompt_tokens=self._prompt_tokens,
            new_tokens=self._new_tokens,
            tokens_per_s=sum(tokens for _, tokens in self._recent) / _WINDOW_S,
        )

    def _forget(self) -> None:
        while self._recent and time.monotonic() - self._recent[0][0] > _WINDOW_S:
            self._recent.popleft()
