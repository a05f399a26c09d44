"""One answer while a server streams it."""

import json
import time
from collections.abc import Callable

import regex

from whetstone.engine.api import Completion, Constraint, Delta, FinishReason, Logprob, Request, Timing, Usage
from whetstone.engine.http_wire import Chunk, Count

__all__ = ["REASONS", "StreamedAnswer", "keeps"]

REASONS: dict[str, FinishReason] = {
    "stop": "stop",
    "eos_token": "stop",
    "stop_sequence": "stop",
    "length": "length",
}
"""Why an answer ended, in the words of servers and in ours."""

_MATCH_S = 1.0


class StreamedAnswer:
    """Gathers the pieces of an answer, with their times, and tells them to a listener.

    Attributes:
        request: What is answered.
        listener: Told each piece; None where only the completion counts, so that an attempt can be done again whole.
        texts: The pieces of this attempt.
    """

    def __init__(self, request: Request, listener: Callable[[Delta], None] | None) -> None:
        """The first attempt begins now."""
        self.request = request
        self.listener = listener
        self.begin()

    def begin(self) -> None:
        """Forgets what an earlier attempt brought; times count from here."""
        self.texts: list[str] = []
        self._token_s: list[float] = []
        self._logprobs: list[Logprob] = []
        self._count = Count()
        self._reason: str | None = None
        self._queued_s = time.monotonic()
        self._end_s: float | None = None

    @property
    def ended(self) -> bool:
        """Whether the server said why the answer ended; only its count of tokens may still come."""
        return self._reason is not None

    def add(self, chunk: Chunk) -> None:
        """Takes one event of the stream."""
        now_s = time.monotonic()
        if chunk.usage is not None:
            self._count = chunk.usage
        for choice in chunk.choices or ():
            text = choice.said()
            asked = choice.logprobs is not None and self.request.logprobs is not None
            logprobs = choice.logprobs.read() if asked and choice.logprobs is not None else []
            self._logprobs += logprobs
            if text:
                self.texts.append(text)
                self._token_s.append(now_s)
                if self.listener is not None:
                    self.listener(Delta(text, logprob=logprobs[0] if len(logprobs) == 1 else None))
            if choice.finish_reason:
                self._reason = choice.finish_reason
                self._end_s = now_s

    def finished(self) -> Completion:
        """The whole answer, which the server has ended; an error where it ended for a reason that is no good answer.

        A stream that only said ``[DONE]`` gave no reason: it reached its length if the server counted so many tokens.
        """
        said = self._reason
        if said is None:
            said = "length" if (self._count.completion_tokens or 0) >= self.request.max_new_tokens else "stop"
        reason = REASONS.get(said)
        if reason is None:
            return self.given_up("error", f"the server ended the answer with the reason {said[:80]!r}")
        constraint = self.request.constraint
        if reason == "stop" and constraint is not None and not keeps(constraint, "".join(self.texts)):
            return self.given_up("error", f"the server took a constraint ({constraint.kind}) and did not keep it")
        return self.given_up(reason)

    def given_up(self, reason: FinishReason, error: str | None = None) -> Completion:
        """What there is of the answer, with the reason why there is no more."""
        count, request = self._count, self.request
        # Where the server does not count, a number is known only if it follows from what was sent or told.
        prompt_tokens = len(request.token_ids) if count.prompt_tokens is None else count.prompt_tokens
        new_tokens = len(self._logprobs) if count.completion_tokens is None else count.completion_tokens
        return Completion(
            token_ids=(),
            text="".join(self.texts),
            finish_reason=reason,
            timing=Timing(self._queued_s, tuple(self._token_s), self._end_s or time.monotonic()),
            usage=Usage(prompt_tokens, new_tokens, count.reused_tokens()),
            logprobs=tuple(self._logprobs) or None,
            error=error,
        )


def keeps(constraint: Constraint, text: str) -> bool:
    """Whether a whole answer is what was asked for: JSON at all, or a match; servers skip fields they do not know."""
    try:
        if constraint.kind == "json_schema":
            json.loads(text)
            return True
        return regex.fullmatch(constraint.pattern, text, timeout=_MATCH_S) is not None
    except ValueError:
        return False
    except (regex.error, TimeoutError):
        # A dialect that this side cannot read, or a pattern too slow to try, is no proof of a breach.
        return True
