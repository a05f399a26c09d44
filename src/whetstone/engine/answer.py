"""One request while it is answered: its tokens, its text, and when it ends."""

import time
from collections.abc import Callable

from transformers import PreTrainedTokenizerBase

from whetstone.engine.api import Completion, Delta, FinishReason, Logprob, Request, Timing, Usage
from whetstone.engine.detokenise import Detokeniser

__all__ = ["Answer"]


class Answer:
    """Takes the tokens of one answer as they come and tells a listener what they say.

    Special tokens, and the token that ends the answer, say nothing; spaces are left as they are. Text that could still
    become a stop string, and bytes that are not a whole character yet, are told with a later token.

    Attributes:
        request: What is answered.
        token_ids: The new tokens, the one that ended the answer included.
        completion: The whole answer, once it has ended.
        reused_tokens: Prompt tokens that were not computed; whoever computes sets it.
    """

    def __init__(
        self,
        request: Request,
        tokenizer: PreTrainedTokenizerBase,
        stop_ids: frozenset[int],
        listener: Callable[[Delta], None],
    ) -> None:
        """Begins an answer; its time in the queue runs from now.

        Args:
            request: What is answered.
            tokenizer: Says what tokens mean.
            stop_ids: Tokens that end an answer.
            listener: Told one piece for each token, and the completion with the last piece.
        """
        self.request = request
        self.token_ids: list[int] = []
        self.completion: Completion | None = None
        self.reused_tokens = 0
        self._detokeniser = Detokeniser(tokenizer)
        self._stops = _StopStrings(request.stop)
        self._stop_ids = stop_ids
        self._listener = listener
        self._queued_s = time.monotonic()
        self._token_s: list[float] = []
        self._logprobs: list[Logprob] = []
        self._texts: list[str] = []

    def add(self, token_id: int, logprob: Logprob | None = None) -> None:
        """Takes the next token; the answer has ended if ``completion`` is set afterwards.

        Args:
            token_id: The token.
            logprob: Where the request asks for it.
        """
        self.token_ids.append(token_id)
        self._token_s.append(time.monotonic())
        if logprob is not None:
            self._logprobs.append(logprob)
        if token_id in self._stop_ids:
            self._end("stop", None, "", token_id, logprob)
            return
        text = self._detokeniser.add(token_id)
        if self._stops.end_with(self._detokeniser.run_bytes):
            text += self._detokeniser.flush()
        text = self._stops.pass_on(text)
        if self._stops.found:
            self._end("stop", None, text, token_id, logprob)
        elif len(self.token_ids) == self.request.max_new_tokens:
            self._end("length", None, text, token_id, logprob)
        else:
            self._texts.append(text)
            self._listener(Delta(text, token_id, logprob))

    def finish(self, reason: FinishReason, error: str | None = None) -> None:
        """Ends the answer without a token; nothing happens to one that has ended.

        Args:
            reason: Why it ends.
            error: What failed, where the reason is ``error``.
        """
        if self.completion is None:
            self._end(reason, error, "", None, None)

    def _end(
        self, reason: FinishReason, error: str | None, text: str, token_id: int | None, logprob: Logprob | None
    ) -> None:
        """Tells what was held back, and the whole."""
        if not self._stops.found:
            text += self._stops.pass_on(self._detokeniser.flush()) + self._stops.rest()
        if self._stops.found and reason == "length":
            reason = "stop"
        self._texts.append(text)
        self.completion = Completion(
            token_ids=tuple(self.token_ids),
            text="".join(self._texts),
            finish_reason=reason,
            timing=Timing(self._queued_s, tuple(self._token_s), time.monotonic()),
            usage=Usage(len(self.request.token_ids), len(self.token_ids), self.reused_tokens),
            logprobs=None if self.request.logprobs is None else tuple(self._logprobs),
            error=error,
        )
        self._listener(Delta(text, token_id, logprob, self.completion))


class _StopStrings:
    """Lets text pass up to the first stop string; holds its end back while that could be the beginning of one."""

    def __init__(self, stops: tuple[str, ...]) -> None:
        self.found = False
        self._stops = tuple(stop for stop in stops if stop)
        self._encoded = tuple(stop.encode() for stop in self._stops)
        self._longest = max((len(stop) for stop in self._stops), default=0)
        self._longest_bytes = max((len(stop) for stop in self._encoded), default=0)
        self._held = ""

    def pass_on(self, text: str) -> str:
        """What may be told now that this text has come."""
        if not self._stops:
            return text
        text = self._held + text
        places = [place for place in map(text.find, self._stops) if place >= 0]
        if places:
            self.found, self._held = True, ""
            return text[: min(places)]
        held = next(
            (size for size in range(min(self._longest - 1, len(text)), 0, -1) if self._begins(text[-size:])),
            0,
        )
        certain = len(text) - held
        self._held = text[certain:]
        return text[:certain]

    def end_with(self, run: bytearray) -> bool:
        """Whether a stop string ends where a run of byte tokens stands, which is whole characters so far."""
        if not run or not self._stops:
            return False
        text = bytes(run[-self._longest_bytes :])
        if len(run) < self._longest_bytes:
            text = self._held.encode() + text
        return text.endswith(self._encoded) and _is_text(run)

    def rest(self) -> str:
        """What was held back, once no text comes any more."""
        held, self._held = self._held, ""
        return held

    def _begins(self, text: str) -> bool:
        return any(stop.startswith(text) for stop in self._stops)


def _is_text(run: bytearray) -> bool:
    try:
        run.decode()
    except UnicodeDecodeError:
        return False
    return True
