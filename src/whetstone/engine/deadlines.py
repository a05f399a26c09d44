"""Which of many requests are late, without looking at all of them at every step."""

import heapq
import itertools
import time

from whetstone.engine.answer import Answer

__all__ = ["Deadlines"]


class Deadlines:
    """The deadlines of answers, the soonest first."""

    def __init__(self) -> None:
        """Nobody has one yet."""
        self._soonest: list[tuple[float, int, Answer]] = []
        self._ticks = itertools.count()

    def add(self, answer: Answer) -> None:
        """Watches an answer, if its request has a deadline."""
        if answer.request.deadline_s is not None:
            heapq.heappush(self._soonest, (answer.request.deadline_s, next(self._ticks), answer))

    def end_late(self) -> bool:
        """Ends the answers that are late; says whether there were any."""
        any_late = False
        while self._soonest:
            deadline_s, _, answer = self._soonest[0]
            if answer.completion is None:
                if time.monotonic() <= deadline_s:
                    break
                answer.finish("deadline")
                any_late = True
            heapq.heappop(self._soonest)
        return any_late
