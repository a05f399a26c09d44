"""One server of another program, as the event loop of ours asks it.

What it fails at becomes a :class:`ServeError` that says whose fault it is: what it says of the question goes to the
client (400); that it is not there, busy, broken, or does not know us is ours to bear (503), so that a fallback answers.

Notable: aiohttp, because all streams of all clients share this loop, and its parser is written in C. No ``asyncio``
time-out is held while a piece is handed on, for it would end whoever reads the pieces.
"""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncGenerator, Awaitable, Iterator
from typing import Any, TypeVar

import aiohttp
from pydantic import ValidationError

from whetstone.engine.api import Usage
from whetstone.engine.http_answer import REASONS, keeps
from whetstone.engine.http_server import is_loopback, retry_after_s, server_address
from whetstone.engine.http_wire import Chunk, Count, EventParser, error_message
from whetstone.serve.delegate.dialect import Asked
from whetstone.serve.delegate.scores import scores_of
from whetstone.serve.errors import ServeError
from whetstone.serve.question import Ending, Piece, Question
from whetstone.serve.worker.counts import Counts
from whetstone.serve.worker.protocol import Busy

__all__ = ["BROKEN", "BUSY", "LOST", "REFUSED", "UNREACHABLE", "Upstream"]

UNREACHABLE = "unavailable"
"""Of failures: it is not there."""
BUSY = "upstream_busy"
"""Of failures: it has too much to do."""
BROKEN = "upstream_failed"
"""Of failures: it is there, and did not answer this one."""
LOST = "backend_lost"
"""Of failures: it broke off amid an answer."""
REFUSED = "upstream_refused"
"""Of failures: it knows neither us nor the model; asking again changes nothing."""

_ABOUT_THE_QUESTION = frozenset({400, 413, 415, 422})
_AWAY = frozenset({502, 503, 504})
_CONNECT_S = 10.0
_DRAIN_S = 0.05
_AGAIN_S = 2.0
"""When to ask again, where the server does not say."""
_LONGEST_MESSAGE_BYTES = 1 << 16
_CLIP_CHARACTERS = 300

_Result = TypeVar("_Result")


class Upstream:
    """One server.

    Attributes:
        url: Its address, with the path that requests go under.
        running: Answers that it is giving.
        heard_s: When it said something last, or was asked for the first time after a pause, by the monotonic clock.
    """

    def __init__(self, url: str, api_key: str | None, counts: Counts, *, program: str) -> None:
        """Connects to nothing yet; is made and used in one event loop.

        Args:
            url: As ``http://localhost:8000``; a path is kept, none means ``/v1``.
            api_key: Sent as a bearer token; no message and no log holds it.
            counts: Told what it was busy with.
            program: What it is called in messages.

        Raises:
            UserError: The url is none, or the key would travel in the clear.
        """
        self._key = (api_key or "").strip()
        address = server_address(url, self._key)
        self.url = str(address).rstrip("/")
        self.running = 0
        self.heard_s = time.monotonic()
        self._counts = counts
        self._program = program
        self._dispensable: set[str] = set()
        self._session = aiohttp.ClientSession(
            headers={"Authorization": f"Bearer {self._key}"} if self._key else {},
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_S),
            connector=aiohttp.TCPConnector(limit=0),
            # A proxy of the environment has nothing to do with this machine's own servers, and would see the key.
            trust_env=not is_loopback(address.host),
        )

    async def ask(
        self, asked: Asked, question: Question, prompt_tokens: int | None = None
    ) -> AsyncGenerator[Piece | Ending]:
        """Answers, piece by piece; leaving the iteration early closes the connection, which cancels it there.

        Args:
            asked: The question as the server takes it.
            question: The same, of a client.
            prompt_tokens: Length of the prompt, where that is known.

        Raises:
            ServeError: There is no whole answer.
        """
        deadline_s = None if question.deadline_s is None else asyncio.get_running_loop().time() + question.deadline_s
        answer = _Answer(question, prompt_tokens)
        if not self.running:
            self.heard_s = time.monotonic()
        self.running += 1
        response = None
        try:
            response = await self._open(asked, deadline_s)
            parser = EventParser()
            data = b" "
            while data and not answer.done:
                data = await self._read(response.content.readany(), deadline_s)
                self.heard_s = time.monotonic()
                for piece in self._pieces(parser.feed(data) if data else parser.end(), answer):
                    self._counts.add(Busy(0, new_tokens=len(piece.token_ids) or 1))
                    yield piece
            if not answer.ended:
                raise self._lost()
            ending = await answer.ending(self._program)
            self._counts.add(
                Busy(0, prompt_tokens=ending.usage.prompt_tokens, reused_tokens=ending.usage.reused_tokens)
            )
            with contextlib.suppress(TimeoutError, aiohttp.ClientError):
                # A body that was read to its end leaves its connection to the next request.
                async with asyncio.timeout(_DRAIN_S):
                    await response.content.read()
            yield ending
        except ValueError:
            raise ServeError(500, BROKEN, f"{self._program} sent what is no piece of an answer") from None
        finally:
            self.running -= 1
            if response is not None:
                response.close()

    async def probe(self, asked: Asked, timeout_s: float) -> None:
        """Has it generate one token, which proves more than a page that says that all is well.

        Args:
            asked: The question.
            timeout_s: How long it may take.

        Raises:
            ServeError: It cannot.
        """
        body = asked.body | {"max_tokens": 1, "stream": False}
        body.pop("stream_options", None)
        deadline_s = asyncio.get_running_loop().time() + timeout_s
        response = await self._post(asked.path, body, deadline_s, retrying=True)
        try:
            text = await self._read(response.text(errors="replace"), deadline_s)
            if response.status != 200:
                raise self._fault(response, text)
            try:
                whole = bool(json.loads(text)["choices"])
            except (ValueError, LookupError, TypeError):
                whole = False
            if not whole:
                raise ServeError(500, REFUSED, f"{self.url}: is no OpenAI-compatible server; it has no choices to tell")
            self.heard_s = time.monotonic()
        finally:
            response.close()

    async def reads(self, asked: Asked, absurd: dict[str, Any], timeout_s: float) -> bool:
        """Whether it reads a field: one that does refuses a value that is none.

        Args:
            asked: Some question.
            absurd: The field, with such a value.
            timeout_s: How long it may take.

        Raises:
            ServeError: 503, it does not say.
        """
        try:
            await self.probe(Asked(asked.path, asked.body | absurd), timeout_s)
        except ServeError as error:
            if error.status == 400:
                return True
            raise ServeError.unavailable(error.message, error.retry_after_s or _AGAIN_S) from None
        return False

    async def close(self) -> None:
        """Closes all connections."""
        await self._session.close()

    async def _open(self, asked: Asked, deadline_s: float | None) -> aiohttp.ClientResponse:
        """A stream that has begun. A field that the server refuses and that only tells more is left out from then on.

        Raises:
            ServeError: There is none.
        """
        while True:
            body = {name: value for name, value in asked.body.items() if name not in self._dispensable}
            response = await self._post(asked.path, body, deadline_s, retrying=True)
            if response.status == 200 and response.content_type == "text/event-stream":
                return response
            try:
                said = await self._read(response.content.read(_LONGEST_MESSAGE_BYTES), deadline_s)
                fault = self._fault(response, said.decode("utf-8", "replace"))
            finally:
                response.close()
            refused = {name for name in _LEFT_OUT_WHERE_REFUSED if name in body and name in fault.message}
            if fault.status != 400 or not refused:
                raise fault
            self._dispensable |= refused

    async def _post(
        self, path: str, body: dict[str, Any], deadline_s: float | None, *, retrying: bool
    ) -> aiohttp.ClientResponse:
        try:
            return await self._within(
                deadline_s, self._session.post(f"{self.url}/{path}", json=body, allow_redirects=False)
            )
        except (aiohttp.ServerDisconnectedError, ConnectionResetError):
            # A connection that was kept may have been closed at the very moment when it was used again.
            if retrying:
                return await self._post(path, body, deadline_s, retrying=False)
            raise self._lost() from None
        except aiohttp.ClientConnectorError as error:
            raise ServeError.unavailable(f"{self.url}: not reachable ({error.os_error.strerror})", _AGAIN_S) from None
        except (aiohttp.ClientError, OSError) as error:
            raise ServeError.unavailable(f"{self.url}: not reachable ({type(error).__name__})", _AGAIN_S) from None

    async def _within(self, deadline_s: float | None, awaited: Awaitable[_Result]) -> _Result:
        """Waits for something of the server.

        Raises:
            ServeError: The deadline passed.
        """
        try:
            async with asyncio.timeout_at(deadline_s) as timeout:
                return await awaited
        except TimeoutError:
            if not timeout.expired():
                raise ServeError.unavailable(f"{self.url}: no connection in {_CONNECT_S:.0f} s", _AGAIN_S) from None
            raise ServeError(504, "deadline_exceeded", "the deadline passed before the answer was whole") from None

    async def _read(self, awaited: Awaitable[_Result], deadline_s: float | None) -> _Result:
        """Waits for a part of a response.

        Raises:
            ServeError: The deadline passed, or the connection broke.
        """
        try:
            return await self._within(deadline_s, awaited)
        except (aiohttp.ClientError, OSError):
            raise self._lost() from None

    def _pieces(self, events: list[str], answer: "_Answer") -> Iterator[Piece]:
        for event in events:
            if event.strip() == "[DONE]":
                answer.done = True
                return
            try:
                chunk = Chunk.model_validate_json(event)
            except ValidationError:
                raise ValueError("no piece") from None
            if chunk.error is not None:
                status, message = error_message({"error": chunk.error})
                raise self._sorted(status or 500, message, None)
            yield from answer.take(chunk, self._program)

    def _fault(self, response: aiohttp.ClientResponse, text: str) -> ServeError:
        """What a response means that is no answer."""
        status = response.status
        with contextlib.suppress(ValueError):
            code, text = error_message(json.loads(text))
            status = code if status == 200 and code is not None else status
        if status == 200:
            return ServeError(500, BROKEN, f"{self._program} answers with no stream of events")
        return self._sorted(status, text or response.reason or "", retry_after_s(response.headers.get("Retry-After")))

    def _sorted(self, status: int, text: str, pause_s: float | None) -> ServeError:
        said = f"{self._program} answers {status}: {self._clean(text)}"
        if status in _ABOUT_THE_QUESTION:
            return ServeError.invalid(said)
        if status == 429:
            return ServeError.unavailable(said, pause_s or _AGAIN_S, BUSY)
        if status in _AWAY:
            return ServeError.unavailable(said, pause_s or _AGAIN_S)
        return ServeError.unavailable(said, pause_s or _AGAIN_S, REFUSED if status < 500 else BROKEN)

    def _lost(self) -> ServeError:
        return ServeError.unavailable(f"{self._program} broke off; ask again", _AGAIN_S, LOST)

    def _clean(self, text: str) -> str:
        """What a server said, on one line, short, and without the key that some servers repeat."""
        if self._key:
            text = text.replace(self._key, "***")
        text = " ".join(text.split())
        return text if len(text) <= _CLIP_CHARACTERS else f"{text[:_CLIP_CHARACTERS]}…"


_LEFT_OUT_WHERE_REFUSED = (
    "stream_options",
    "return_tokens_as_token_ids",
    "return_token_ids",
    "guided_regex",
    "repeat_penalty",
    "repeat_last_n",
)
"""Fields that only tell more, or say another one once again."""


class _Answer:
    """What was heard of one answer.

    Attributes:
        done: Nothing more comes.
    """

    def __init__(self, question: Question, prompt_tokens: int | None) -> None:
        self.done = False
        self._question = question
        self._prompt_tokens = prompt_tokens
        self._count = Count()
        self._texts: list[str] = []
        self._tokens = 0
        self._reason: str | None = None

    @property
    def ended(self) -> bool:
        """Whether the server said that the answer is whole."""
        return self.done or self._reason is not None

    def take(self, chunk: Chunk, program: str) -> Iterator[Piece]:
        """Takes one event of the stream; gives the piece in it, if there is one."""
        if chunk.usage is not None:
            self._count = chunk.usage
        wanted = self._question.logprobs
        for choice in chunk.choices or ():
            text, token_ids = choice.said(), tuple(choice.token_ids or ())
            self._reason = choice.finish_reason or self._reason
            scores = () if choice.logprobs is None or wanted is None else scores_of(choice.logprobs, token_ids, wanted)
            if text and wanted is not None and not scores:
                raise ServeError.invalid(f"{program} tells no log probabilities; leave 'logprobs' out", "logprobs")
            if text or token_ids or scores:
                self._texts.append(text)
                self._tokens += len(token_ids) or len(scores) or 1
                yield Piece(text, token_ids, scores)

    async def ending(self, program: str) -> Ending:
        """How it ended.

        Raises:
            ServeError: 500, it ended for a reason that is no good answer, or is not what was asked for.
        """
        said, count = self._reason or "stop", self._count
        # Where the server does not count, a piece is a token.
        new_tokens = self._tokens if count.completion_tokens is None else count.completion_tokens
        prompt_tokens = (self._prompt_tokens or 0) if count.prompt_tokens is None else count.prompt_tokens
        usage = Usage(prompt_tokens, new_tokens, count.reused_tokens())
        constraint, text = self._question.constraint, "".join(self._texts)
        match REASONS.get(said):
            case "length":
                return Ending("length", usage)
            case "stop":
                # A pattern may take its time, and others wait for this loop.
                if constraint is not None and not await asyncio.to_thread(keeps, constraint, text):
                    raise ServeError(
                        500, BROKEN, f"{program} took a constraint ({constraint.kind}) and did not keep it"
                    )
                return Ending("stop", usage)
        raise ServeError(500, BROKEN, f"{program} ended the answer with the reason {said[:80]!r}")
