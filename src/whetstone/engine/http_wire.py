"""How an OpenAI-compatible server is asked, and how what it streams is read.

Notable: lines are cut at the newline byte, before they are decoded, so neither a character that straddles two network
reads nor a U+2028 inside an answer breaks an event. A stream may lack ``[DONE]``, usage, or choices, and may hold
comments. What a model thinks aloud (``reasoning_content``) is no part of its answer and is left out.

Sources: https://platform.openai.com/docs/api-reference/chat-streaming, https://docs.vllm.ai/en/latest/serving and
https://github.com/ggml-org/llama.cpp/tree/master/tools/server for what these two servers add.
"""

import json
from typing import Any, Literal

from pydantic import BaseModel

from whetstone.engine.api import Constraint, Logprob, Request

__all__ = [
    "DISPENSABLE",
    "EXTENSIONS",
    "UNKNOWN_TOKEN",
    "Chunk",
    "Count",
    "EventParser",
    "HttpMode",
    "Likely",
    "Logprobs",
    "ModelList",
    "error_message",
    "payload",
]

HttpMode = Literal["chat", "completions"]
"""``chat``: the server renders the messages; ``completions``: it continues our token ids."""

UNKNOWN_TOKEN = -1
"""The id of a token whose id the server does not tell."""

EXTENSIONS = ("top_k", "min_p", "repetition_penalty", "structured_outputs", "response_format", "logprobs")
"""Fields that change the answer and that not every server takes."""

DISPENSABLE = ("stream_options", "return_tokens_as_token_ids", "guided_regex", "repeat_penalty", "repeat_last_n")
"""Fields that can be left out where a server refuses them: they only tell more, or say an extension once again."""

_LONGEST_LINE_BYTES = 1 << 24


def payload(request: Request, model: str, mode: HttpMode) -> dict[str, Any]:
    """The body of the POST that asks for an answer.

    Extensions are sent only where the request sets them; where it does not, the server's own defaults hold (llama.cpp
    has top_k 40 and min_p 0.05; vLLM reads the model's generation_config.json). Each server takes the name that it
    knows and, unless it is strict, skips the others.
    """
    sampling = request.sampling
    body: dict[str, Any] = {
        "model": model,
        "max_tokens": request.max_new_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "seed": request.seed,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    if mode == "chat":
        body["messages"] = [message.as_dict() for message in request.messages]
    else:
        body["prompt"] = list(request.token_ids)
    if request.stop:
        body["stop"] = list(request.stop)
    if sampling.top_k is not None:
        body["top_k"] = sampling.top_k
    if sampling.min_p > 0:
        body["min_p"] = sampling.min_p
    if sampling.repetition_penalty != 1:
        # The last two are llama.cpp's names; -1 lets the penalty see the whole context, as ours does.
        penalty = sampling.repetition_penalty
        body |= {"repetition_penalty": penalty, "repeat_penalty": penalty, "repeat_last_n": -1}
    if request.logprobs is not None:
        chat = {"logprobs": True, "top_logprobs": request.logprobs}
        body |= chat if mode == "chat" else {"logprobs": request.logprobs}
        body["return_tokens_as_token_ids"] = True
    if request.constraint is not None:
        body |= _constraint(request.constraint)
    return body


def _constraint(constraint: Constraint) -> dict[str, Any]:
    if constraint.kind == "json_schema":
        schema = {"name": "answer", "schema": json.loads(constraint.pattern), "strict": True}
        return {"response_format": {"type": "json_schema", "json_schema": schema}}
    # The second is what vLLM called it before version 0.12.
    return {"structured_outputs": {"regex": constraint.pattern}, "guided_regex": constraint.pattern}


class EventParser:
    """Cuts a byte stream into the data of its server-sent events.

    Source: https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation
    """

    def __init__(self) -> None:
        self._rest = b""
        self._data: list[str] = []

    def feed(self, part: bytes) -> list[str]:
        """Takes the next bytes; gives the events that are whole now, empty ones left out.

        Raises:
            ValueError: A line is longer than any answer.
        """
        *lines, self._rest = (self._rest + part).split(b"\n")
        if len(self._rest) > _LONGEST_LINE_BYTES:
            raise ValueError(f"a line of the stream is longer than {_LONGEST_LINE_BYTES} bytes")
        events = [self._take(line.removesuffix(b"\r")) for line in lines]
        return [event for event in events if event]

    def end(self) -> list[str]:
        """The stream is over: gives the event that only lacked its blank line."""
        return self.feed(b"\n\n")

    def _take(self, line: bytes) -> str:
        if not line:
            event = "\n".join(self._data)
            self._data.clear()
            return event
        field, _, value = line.partition(b":")
        if field == b"data":
            self._data.append(value.removeprefix(b" ").decode("utf-8", "replace"))
        return ""


class Likely(BaseModel):
    """A token and how likely it was, as chat completions tell it."""

    token: str = ""
    id: int | None = None
    bytes: list[int] | None = None
    logprob: float

    def token_id(self) -> int:
        """Its id; :data:`UNKNOWN_TOKEN` where the server keeps it to itself."""
        return _token_id(self.token) if self.id is None else self.id


class _Chosen(Likely):
    top_logprobs: list[Likely] | None = None


class Logprobs(BaseModel):
    """Logprobs as chat completions tell them (``content``), or as completions do (all else)."""

    content: list[_Chosen] | None = None
    tokens: list[str] | None = None
    token_logprobs: list[float | None] | None = None
    top_logprobs: list[dict[str, float] | None] | None = None

    def read(self) -> list[Logprob]:
        """The same as ours; the ids are :data:`UNKNOWN_TOKEN` where the server tells texts only."""
        if self.content is not None:
            return [
                Logprob(chosen.token_id(), chosen.logprob, _likeliest(chosen.top_logprobs or []))
                for chosen in self.content
            ]
        tops = self.top_logprobs or [None] * len(self.tokens or ())
        return [
            Logprob(_token_id(token), logprob, tuple((_token_id(other), value) for other, value in (top or {}).items()))
            for token, logprob, top in zip(self.tokens or (), self.token_logprobs or (), tops, strict=False)
            if logprob is not None
        ]


def _likeliest(others: list[Likely]) -> tuple[tuple[int, float], ...]:
    return tuple((other.token_id(), other.logprob) for other in others)


def _token_id(token: str) -> int:
    """Reads vLLM's ``token_id:5``, which it writes for a token's text when asked to."""
    number = token.removeprefix("token_id:")
    return int(number) if number != token and number.isdecimal() else UNKNOWN_TOKEN


class _Said(BaseModel):
    content: str | None = None


class _Choice(BaseModel):
    delta: _Said | None = None
    text: str | None = None
    logprobs: Logprobs | None = None
    finish_reason: str | None = None
    token_ids: list[int] | None = None

    def said(self) -> str:
        return (self.text if self.delta is None else self.delta.content) or ""


class _PromptDetails(BaseModel):
    cached_tokens: int | None = None


class Count(BaseModel):
    """The server's own count of tokens."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: _PromptDetails | None = None

    def reused_tokens(self) -> int:
        """Prompt tokens that the server had in its cache."""
        return (self.prompt_tokens_details and self.prompt_tokens_details.cached_tokens) or 0


class Chunk(BaseModel):
    """One event of an answer; every part of it may be missing."""

    choices: list[_Choice] | None = None
    usage: Count | None = None
    error: Any = None


class _Model(BaseModel):
    id: str


class ModelList(BaseModel):
    """What ``/models`` answers; Ollama without models has null."""

    data: list[_Model] | None


def error_message(document: Any) -> tuple[int | None, str]:
    """Reads what servers say when they fail: an object with ``error``, ``detail`` or ``message``, or plain text.

    Returns:
        The status that the object names, if it names one, and the message.
    """
    if not isinstance(document, dict):
        return None, document if isinstance(document, str) else json.dumps(document)
    inner = document.get("error") or document.get("detail")
    if isinstance(inner, dict):
        document = inner
    elif inner:
        return None, inner if isinstance(inner, str) else json.dumps(inner)
    code, message = document.get("code"), document.get("message")
    return code if isinstance(code, int) else None, message if isinstance(message, str) else json.dumps(document)
