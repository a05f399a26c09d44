"""Any OpenAI-compatible server as an engine: vLLM, Ollama, llama.cpp, another whet.

Notable:
- The engine has a thread with an event loop of its own, so one pool of connections and one limit serve ``generate``
  from any thread and ``stream`` from any loop.
- An attempt that fails is repeated whole, unless a piece of the answer was shown to somebody.
- The client is httpx and not ``openai``: that one repeats what fails before the stream begins but not what breaks in
  the middle of it, and every extension field goes around its types. What it would save is one loop.
"""

import asyncio
import concurrent.futures
import contextlib
import json
import random
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import httpx

from whetstone.engine.api import Completion, Delta, Request
from whetstone.engine.http_answer import StreamedAnswer
from whetstone.engine.http_server import PassingError, Server
from whetstone.engine.http_wire import HttpMode, payload
from whetstone.errors import UserError

__all__ = ["HttpEngine", "Patience"]

_CLOSED = "the engine is closed; open it again"
_PATHS: dict[HttpMode, str] = {"chat": "chat/completions", "completions": "completions"}
_LONGEST_PAUSE_S = 120.0
_LONGEST_BACKOFF_S = 30.0
_SHOWN_MODELS = 8

_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a server is waited for, and how often it is asked again.

    Attributes:
        connect_s: For a connection.
        read_s: For the first piece, and from each piece to the next.
        retries: How many attempts follow the first.
        first_pause_s: Before the second attempt; it doubles each time, up to half a minute, less a random part. Where
            the server names a pause (``Retry-After``), that one holds; one of more than two minutes is not waited for.
    """

    connect_s: float = 10.0
    read_s: float = 60.0
    retries: int = 5
    first_pause_s: float = 0.5


class HttpEngine:
    """Answers by asking a server.

    What a server does not tell cannot be told here: ``token_ids`` are empty, ``token_s`` are the times of the pieces
    that had text (a server may put several tokens into one), and ``usage`` has 0 new tokens where the server counts
    none. Times count from when the attempt that gave the answer was sent, so neither waiting for a place nor failed
    attempts are in them. ``logprobs`` are None where the server gave none, and have ``UNKNOWN_TOKEN`` for ids that it
    keeps to itself. An answer that breaks its constraint is an error.

    Attributes:
        retried: How many attempts were repeated since the engine was opened; the error of an answer that failed for
            good has its own number of attempts.
    """

    def __init__(
        self,
        url: str,
        model: str,
        *,
        api_key: str | None = None,
        mode: HttpMode = "chat",
        concurrency: int = 8,
        patience: Patience | None = None,
    ) -> None:
        """Starts a thread; asks nothing yet.

        Args:
            url: Where the server is, as ``http://localhost:8000``; a path is kept, none means ``/v1``.
            model: What the server calls the model.
            api_key: Sent as a bearer token; no message and no log holds it.
            mode: Whether the server gets messages or token ids.
            concurrency: How many requests are with the server at once.
            patience: Time limits and retries.

        Raises:
            UserError: The url is none, or the key would travel in the clear.
        """
        self._patience = patience or Patience()
        timeout = httpx.Timeout(self._patience.read_s, connect=self._patience.connect_s, pool=None)
        # One connection more than places, for the list of models.
        self._server = Server(url, api_key, timeout, concurrency + 1)
        self._model = model
        self._mode: HttpMode = mode
        self._places = asyncio.Semaphore(concurrency)
        self._jitter = random.Random()
        self.retried = 0
        self._open = True
        self._gate = threading.Lock()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="whet-http", daemon=True)
        self._thread.start()

    def generate(self, requests: Sequence[Request]) -> list[Completion]:
        """Answers requests, in their order; one that fails for good is a completion with the reason ``error``.

        Raises:
            UserError: A request cannot be answered by this engine, or the server refuses one.
        """
        for request in requests:
            self._check(request)
        return self._wait(self._answer_all(requests))

    async def stream(self, request: Request) -> AsyncIterator[Delta]:
        """Answers one request piece by piece; leaving the iteration early closes the connection.

        Raises:
            UserError: The request cannot be answered by this engine, or the server refuses it.
        """
        self._check(request)
        loop = asyncio.get_running_loop()
        pieces: asyncio.Queue[Delta | BaseException] = asyncio.Queue()

        def tell(piece: Delta | BaseException) -> None:
            # The loop may have been closed by whoever stopped listening.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(pieces.put_nowait, piece)

        def end(future: concurrent.futures.Future[Completion]) -> None:
            if future.cancelled():
                tell(UserError(_CLOSED))
            else:
                tell(future.exception() or Delta("", completion=future.result()))

        future = self._submit(self._answer(request, tell))
        future.add_done_callback(end)
        try:
            while True:
                piece = await pieces.get()
                if isinstance(piece, BaseException):
                    raise piece
                yield piece
                if piece.completion is not None:
                    return
        finally:
            future.cancel()

    def server_models(self) -> tuple[str, ...] | None:
        """The models that the server lists; None where it has no list.

        Raises:
            UserError: The server is not reachable, refuses, or is no OpenAI-compatible server.
        """
        return self._wait(self._server.models())

    def check_model(self) -> None:
        """Asks the server whether it has the model, so that a wrong name or address shows before any work.

        Raises:
            UserError: It has not, with the models that it has; or as :meth:`server_models`.
        """
        models = self.server_models()
        # Ollama takes a name without a tag for the tag "latest".
        if not models or self._model in models or f"{self._model}:latest" in models:
            return
        shown = ", ".join(models[:_SHOWN_MODELS])
        more = f" and {len(models) - _SHOWN_MODELS} more" if len(models) > _SHOWN_MODELS else ""
        raise UserError(f"{self._server.url}: the server has no model {self._model!r}; it has {shown}{more}")

    def close(self) -> None:
        """Closes all connections and ends the thread; whoever waits is told, and to close twice is nothing."""
        with self._gate:
            if not self._open:
                return
            self._open = False
            ending = asyncio.run_coroutine_threadsafe(self._end(), self._loop)
        ending.result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _check(self, request: Request) -> None:
        url, constraint = self._server.url, request.constraint
        if request.adapter is not None:
            raise UserError(f"{url}: adapters are models on a server; open {request.adapter!r} as the model")
        if self._mode == "chat" and not request.messages:
            raise UserError(f"{url}: chat needs messages and the request has none; use the mode completions")
        if self._mode == "completions" and not request.token_ids:
            raise UserError(f"{url}: completions need token ids and the request has none; use the mode chat")
        if constraint is not None and constraint.kind == "json_schema":
            try:
                json.loads(constraint.pattern)
            except ValueError as error:
                raise UserError(f"the JSON schema of the constraint is no JSON: {error}") from None

    def _submit(self, work: Coroutine[Any, Any, _Result]) -> concurrent.futures.Future[_Result]:
        with self._gate:
            if self._open:
                return asyncio.run_coroutine_threadsafe(work, self._loop)
        work.close()
        raise UserError(_CLOSED)

    def _wait(self, work: Coroutine[Any, Any, _Result]) -> _Result:
        future = self._submit(work)
        try:
            return future.result()
        except concurrent.futures.CancelledError:
            raise UserError(_CLOSED) from None
        except BaseException:
            future.cancel()
            raise

    async def _end(self) -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._server.close()
        await self._loop.shutdown_asyncgens()

    async def _answer_all(self, requests: Sequence[Request]) -> list[Completion]:
        tasks = [asyncio.create_task(self._answer(request, None)) for request in requests]
        try:
            return await asyncio.gather(*tasks)
        except BaseException:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            raise

    async def _answer(self, request: Request, listener: Callable[[Delta], None] | None) -> Completion:
        answer = StreamedAnswer(request, listener)
        left_s = None if request.deadline_s is None else request.deadline_s - time.monotonic()
        try:
            async with asyncio.timeout(left_s), self._places:
                return await self._attempts(answer)
        except TimeoutError:
            return answer.given_up("deadline")

    async def _attempts(self, answer: StreamedAnswer) -> Completion:
        body = payload(answer.request, self._model, self._mode)
        attempt = 0
        while True:
            attempt += 1
            answer.begin()
            try:
                return await self._server.attempt(_PATHS[self._mode], body, answer)
            except UserError as refusal:
                if not answer.texts:
                    raise
                return answer.given_up("error", str(refusal))
            except PassingError as fault:
                pause_s = self._pause_s(attempt, fault)
                heard = bool(answer.texts) and answer.listener is not None
                if attempt > self._patience.retries or heard or pause_s > _LONGEST_PAUSE_S:
                    times = "1 attempt" if attempt == 1 else f"{attempt} attempts"
                    return answer.given_up("error", f"{fault} ({times})")
            self.retried += 1
            await asyncio.sleep(pause_s)

    def _pause_s(self, attempt: int, fault: PassingError) -> float:
        """Exponential backoff with jitter, so that requests that failed together do not come back together."""
        first_s = self._patience.first_pause_s
        if fault.pause_s is not None:
            return fault.pause_s + self._jitter.uniform(0, first_s)
        return min(first_s * 2.0 ** (attempt - 1), _LONGEST_BACKOFF_S) * self._jitter.uniform(0.5, 1)
