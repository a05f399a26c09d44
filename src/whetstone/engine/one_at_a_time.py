"""A core for models that hold the keys and values of one sequence: requests are answered one after the other."""

from collections import deque
from collections.abc import Sequence
from typing import Protocol

import torch
from transformers import PreTrainedTokenizerBase

from whetstone.engine.answer import Answer
from whetstone.engine.api import Request
from whetstone.engine.constraint import GrammarMaker
from whetstone.engine.deadlines import Deadlines
from whetstone.engine.limits import Limits
from whetstone.engine.sampling import Chooser, choose
from whetstone.engine.worker import Listener

__all__ = ["LogitsSource", "OneAtATime"]


class LogitsSource(Protocol):
    """A model that reads one sequence.

    Attributes:
        reused_tokens: How many tokens of the last prompt were not computed, because what was read before began alike.
    """

    reused_tokens: int

    def start(self, token_ids: Sequence[int], adapter: str | None) -> torch.Tensor:
        """Begins a new sequence.

        Args:
            token_ids: The prompt.
            adapter: Which of its adapters reads it.

        Returns:
            The logits ``(vocabulary,)`` of the token after it.
        """
        ...

    def advance(self, token_id: int) -> torch.Tensor:
        """Reads one more token of the sequence and gives the logits ``(vocabulary,)`` of the next."""
        ...

    def close(self) -> None:
        """Gives memory back."""
        ...


class OneAtATime:
    """Answers requests first come first served; see :class:`whetstone.engine.worker.Core`.

    Attributes:
        limits: What can be asked.
    """

    def __init__(
        self,
        source: LogitsSource,
        tokenizer: PreTrainedTokenizerBase,
        *,
        stop_ids: frozenset[int],
        context_tokens: int,
        adapters: frozenset[str] = frozenset(),
    ) -> None:
        """Takes the source over.

        Args:
            source: Computes.
            tokenizer: Says what tokens mean.
            stop_ids: Tokens that end an answer.
            context_tokens: How long a prompt and its answer may be together.
            adapters: The names of those that the source has.
        """
        self._source = source
        self._tokenizer = tokenizer
        self._stop_ids = stop_ids
        self.limits = Limits(context_tokens, adapters=adapters)
        self._grammars = GrammarMaker(tokenizer, stop_ids)
        self._waiting: deque[Answer] = deque()
        self._current: tuple[Answer, Chooser] | None = None
        self._deadlines = Deadlines()

    @property
    def running(self) -> int:
        """Whether a request is being answered."""
        return int(self._current is not None)

    @property
    def waiting(self) -> int:
        """How many wait; those that were cancelled meanwhile are counted until it is their turn."""
        return len(self._waiting)

    def check(self, request: Request) -> None:
        """Refuses what can never be answered.

        Raises:
            UserError: It is longer than the context, names an adapter, or its constraint is not valid.
        """
        self.limits.check(request)
        if request.constraint is not None:
            self._grammars.make(request.constraint)

    def submit(self, request: Request, listener: Listener) -> Answer:
        """Queues a request."""
        answer = Answer(request, self._tokenizer, self._stop_ids, listener)
        self._deadlines.add(answer)
        self._waiting.append(answer)
        return answer

    def cancel(self, answer: Answer) -> None:
        """Ends a request; the next one may begin."""
        answer.finish("cancelled")
        self._drop_finished()

    def cancel_adapter(self, adapter: str) -> None:
        """Ends all requests that name an adapter."""
        for answer in [*([] if self._current is None else [self._current[0]]), *self._waiting]:
            if answer.request.adapter == adapter:
                answer.finish("cancelled")
        self._drop_finished()

    def step(self) -> bool:
        """Computes the next token of the oldest request."""
        self._deadlines.end_late()
        self._drop_finished()
        if self._current is not None:
            answer, chooser = self._current
            self._choose(answer, chooser, self._source.advance(answer.token_ids[-1]))
        elif self._waiting:
            answer = self._waiting.popleft()
            request = answer.request
            grammar = None if request.constraint is None else self._grammars.make(request.constraint)
            chooser = Chooser(request, grammar)
            self._current = answer, chooser
            logits = self._source.start(request.token_ids, request.adapter)
            answer.reused_tokens = self._source.reused_tokens
            self._choose(answer, chooser, logits)
        self._drop_finished()
        return self._current is not None or bool(self._waiting)

    def close(self) -> None:
        """Gives the memory of the source back."""
        self._waiting.clear()
        self._current = None
        self._source.close()

    def _choose(self, answer: Answer, chooser: Chooser, logits: torch.Tensor) -> None:
        (choice,) = choose(logits[None], [chooser])
        if choice.token_id is None:
            answer.finish("error", choice.error)
            return
        answer.add(choice.token_id, choice.logprob)
        if chooser.ended:
            answer.finish("stop")

    def _drop_finished(self) -> None:
        """Forgets the current request if it is finished, and such as stand before the next one that is not."""
        if self._current is not None and self._current[0].completion is not None:
            self._current = None
        while self._waiting and self._waiting[0].completion is not None:
            self._waiting.popleft()
