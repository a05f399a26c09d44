"""Asks an OpenAI-compatible server once per request, and notes when what came.

Notable: the client must not be what is measured. It is aiohttp, whose parser is written in C, with one connection a
request in flight, no retries and no compression; a time is taken when bytes are there, before they are read.
"""

import asyncio
import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import aiohttp
import orjson
from pydantic import ValidationError

from whetstone.bench.body import BodyError, StreamedBody, read_whole
from whetstone.bench.request_row import OK
from whetstone.data.prompts import Prompt
from whetstone.engine.http_server import is_loopback, server_address
from whetstone.engine.http_wire import Count, HttpMode, ModelList, error_message
from whetstone.errors import UserError

__all__ = ["CONNECTION", "Client", "Outcome", "Target"]

CONNECTION = "connection"
"""The status of a request that found no server."""

_PATHS: dict[HttpMode, str] = {"chat": "chat/completions", "completions": "completions"}
_SHOWN_MODELS = 8
_CLIP_CHARACTERS = 300
_DRAIN_S = 0.2


@dataclass(frozen=True, slots=True)
class Target:
    """What is asked, and how.

    Attributes:
        url: Of the server; a path is kept, none means ``/v1``.
        model: What it calls the model; None for the only one that it lists.
        key: Sent as a bearer token; no message, row or file holds it.
        api: ``chat``, or ``completions`` for models without a chat template.
        stream: Whether answers come in pieces.
        max_tokens: Of an answer whose prompt does not say.
        extra: Further fields of each request.
        timeout_s: How long one answer is waited for.
    """

    url: str
    model: str | None = None
    key: str | None = field(default=None, repr=False)
    api: HttpMode = "chat"
    stream: bool = True
    max_tokens: int = 128
    extra: Mapping[str, Any] = field(default_factory=dict)
    timeout_s: float = 300.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one request; times are those of the event loop.

    Attributes:
        started_s: When it was sent.
        end_s: When its last byte came, or when it failed.
        status: As in a row.
        streamed: Whether it was asked to come in pieces.
        said: What went wrong, in the server's words; empty for answers.
        prompt_tokens: As the server counted them; None where it did not.
        new_tokens: The same of the answer.
        piece_s: When each piece with text came.
    """

    started_s: float
    end_s: float
    status: str
    streamed: bool
    said: str = ""
    prompt_tokens: int | None = None
    new_tokens: int | None = None
    piece_s: tuple[float, ...] = ()


class Client:
    """Connections to one server; used inside ``async with``.

    Attributes:
        url: Its address, with the path that requests go under.
        model: What is asked for; empty until :meth:`prepare` has found it.
        refuses_usage: The server takes no ``stream_options``.
    """

    def __init__(self, target: Target) -> None:
        """Connects to nothing yet.

        Raises:
            UserError: The url is none, or the key would travel in the clear.
        """
        key = (target.key or "").strip()
        address = server_address(target.url, key)
        self.url = str(address).rstrip("/")
        self.model = target.model or ""
        self.refuses_usage = False
        self._target = target
        self._key = key
        self._proxied = not is_loopback(address.host)
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        headers = {"accept-encoding": "identity", "content-type": "application/json"}
        if self._key:
            headers["authorization"] = f"Bearer {self._key}"
        self._session = aiohttp.ClientSession(
            # Servers close idle connections after five seconds or more; a request sent meanwhile would be lost.
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=4),
            headers=headers,
            timeout=aiohttp.ClientTimeout(total=None),
            trust_env=self._proxied,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._opened.close()
        self._session = None

    async def prepare(self, prompt: Prompt) -> Outcome:
        """Finds the model and asks once; what no later request would get past is said here.

        Args:
            prompt: What to ask.

        Returns:
            The answer.

        Raises:
            UserError: The server is not there, refuses, or does not answer as an OpenAI-compatible server does.
        """
        if not self.model:
            self.model = await self._only_model()
        outcome = await self.ask(prompt, "whet-bench-first")
        if outcome.status.startswith("http 4") and "stream_options" in outcome.said:
            self.refuses_usage = True
            outcome = await self.ask(prompt, "whet-bench-first")
        if outcome.status != OK:
            said = f": {outcome.said}" if outcome.said else ""
            raise UserError(f"{self.url}: the first request ended with '{outcome.status}'{said}; nothing was measured")
        return outcome

    async def ask(self, prompt: Prompt, request_id: str) -> Outcome:
        """Asks once.

        Args:
            prompt: What to ask.
            request_id: Sent as ``x-request-id``, so that a server's log can be laid beside the rows.
        """
        body = orjson.dumps(self._body(prompt))
        loop = asyncio.get_running_loop()
        streamed = StreamedBody()
        count = Count()
        started_s = loop.time()
        end_s: float | None = None
        status, said = OK, ""
        try:
            async with (
                asyncio.timeout(self._target.timeout_s),
                self._opened.post(
                    f"{self.url}/{_PATHS[self._target.api]}",
                    data=body,
                    headers={"x-request-id": request_id},
                    allow_redirects=False,
                ) as response,
            ):
                if response.status != 200:
                    status, said = f"http {response.status}", self._clean(await response.text(errors="replace"))
                elif not self._target.stream:
                    count = read_whole(await response.read())
                elif response.content_type != "text/event-stream":
                    status, said = "malformed", f"no stream of events but {response.content_type}"
                else:
                    end_s = await _read_stream(response, streamed)
                    count = streamed.count
        except TimeoutError:
            status = "timeout"
        except BodyError as error:
            status, said = error.status, self._clean(str(error))
        except aiohttp.ClientPayloadError as error:
            status, said = "truncated", self._clean(str(error))
        except (aiohttp.ClientError, OSError) as error:
            status, said = CONNECTION, self._clean(str(error) or type(error).__name__)
        return Outcome(
            started_s=started_s,
            end_s=loop.time() if end_s is None else end_s,
            status=status,
            streamed=self._target.stream,
            said=said,
            prompt_tokens=count.prompt_tokens,
            new_tokens=count.completion_tokens,
            piece_s=tuple(streamed.piece_s),
        )

    @property
    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            raise RuntimeError("the client is used outside 'async with'")
        return self._session

    def _body(self, prompt: Prompt) -> dict[str, Any]:
        target = self._target
        body: dict[str, Any] = {
            "model": self.model,
            "max_tokens": target.max_tokens if prompt.max_new_tokens is None else prompt.max_new_tokens,
            "temperature": 0.0,
            "stream": target.stream,
        }
        if target.stream and not self.refuses_usage:
            body["stream_options"] = {"include_usage": True}
        if target.api == "chat":
            body["messages"] = [message.as_dict() for message in prompt.messages]
        else:
            body["prompt"] = "\n".join(message.content for message in prompt.messages)
        return body | dict(target.extra)

    async def _only_model(self) -> str:
        try:
            async with asyncio.timeout(self._target.timeout_s), self._opened.get(f"{self.url}/models") as response:
                status, body = response.status, await response.read()
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            why = self._clean(str(error) or type(error).__name__)
            raise UserError(f"{self.url}: the server is not reachable ({why}); is it running?") from None
        if status != 200:
            raise UserError(f"{self.url}/models answers {status}: {self._clean(body.decode('utf-8', 'replace'))}")
        try:
            names = [model.id for model in ModelList.model_validate_json(body).data or ()]
        except ValidationError:
            raise UserError(f"{self.url}/models is no list of models; give the model with --model") from None
        if len(names) != 1:
            shown = ", ".join(names[:_SHOWN_MODELS]) + (", ..." if len(names) > _SHOWN_MODELS else "")
            raise UserError(f"{self.url} lists {len(names)} models ({shown or 'none'}); name one with --model")
        return names[0]

    def _clean(self, text: str) -> str:
        """What a server said, on one line, short, and without the key that some servers repeat."""
        with contextlib.suppress(ValueError):
            text = error_message(orjson.loads(text))[1]
        if self._key:
            text = text.replace(self._key, "***")
        return " ".join(text.split())[:_CLIP_CHARACTERS]


async def _read_stream(response: aiohttp.ClientResponse, body: StreamedBody) -> float:
    """Reads to the end of the body; gives when its last part came."""
    loop = asyncio.get_running_loop()
    last_s = loop.time()
    try:
        async for part in response.content.iter_any():
            last_s = loop.time()
            body.take(part, last_s)
            if body.done:
                # A body that was read to its end leaves its connection to the next request.
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_DRAIN_S):
                        await response.content.read()
                return last_s
    except aiohttp.ClientPayloadError:
        # Whoever has said that the answer is whole may hang up.
        if not body.ended:
            raise
    body.close(last_s)
    return last_s
