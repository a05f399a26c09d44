"""What became of one request: the one record that metrics, logs, traces and the drift watch are all made from."""

from dataclasses import dataclass
from typing import Protocol

__all__ = ["Answered", "Listener"]


@dataclass(frozen=True, slots=True)
class Answered:
    """One answer (a request with ``n`` above 1 has several), or a request that got none.

    Times are seconds of the monotonic clock of the server's process.

    Attributes:
        request_id: Of the request; the client's own where it sent one.
        answer_id: What the response calls the answer; empty where there was none.
        choice: Which of the answers to the request it is.
        endpoint: ``chat``, ``completions`` or ``embeddings``.
        principal: Whose key asked; ``local`` without keys.
        model: As it was asked for; empty where the request named none of this server.
        backend: Who answered; empty where nobody did.
        fingerprint: Of the weights, the adapter, the template and the engine that answered, as responses tell it.
        outcome: ``ok``, ``disconnected``, or the code of the failure.
        streamed: Whether it went out in pieces.
        cached: It was answered from the cache.
        prompt_tokens: Length of the prompt; 0 for further answers to it, so that sums count it once.
        new_tokens: Length of the answer.
        reused_tokens: Prompt tokens that were not computed; as of ``prompt_tokens``.
        finish_reason: Why the answer ended; empty where it did not.
        invalid: How many answers did not pass validation before this one.
        arrived_s: When the request was there.
        admitted_s: When it had a place; None where it never had.
        token_s: When pieces with tokens came, one time for each token.
        ended_s: When it was over.
        messages: The whole conversation as it was answered, the system turn included, as a JSON list of roles and
            contents; empty where a text was continued, or where prompts are not kept.
        asked: The last user turn, or the text that was continued.
        text: The answer.
        status: Of HTTP; None where nobody was told one.
        traceparent: The trace that the request belongs to, as the client said it (W3C Trace Context); empty where it
            said none.
    """

    request_id: str
    endpoint: str
    principal: str
    model: str
    outcome: str
    arrived_s: float
    ended_s: float
    answer_id: str = ""
    choice: int = 0
    backend: str = ""
    fingerprint: str = ""
    streamed: bool = False
    cached: bool = False
    prompt_tokens: int = 0
    new_tokens: int = 0
    reused_tokens: int = 0
    finish_reason: str = ""
    invalid: int = 0
    admitted_s: float | None = None
    token_s: tuple[float, ...] = ()
    messages: str = ""
    asked: str = ""
    text: str = ""
    status: int | None = None
    traceparent: str = ""


class Listener(Protocol):
    """Whoever wants to know what became of requests; must be quick, and must not raise."""

    def answered(self, answered: Answered) -> None:
        """Takes note of one."""
        ...
