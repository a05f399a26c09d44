"""A server that is asked over HTTP: its address, one attempt at an answer, and what its failures mean.

What may be gone next time (429, 5xx, a connection that fails, a stream that breaks) is a :class:`PassingError`; what
will not (401, 404, 400) is a ``UserError``. No message holds the API key.
"""

import asyncio
import contextlib
import email.utils
import ipaddress
import json
import math
import time
from typing import Any

import httpx
from pydantic import ValidationError

from whetstone.engine.api import Completion
from whetstone.engine.http_answer import StreamedAnswer
from whetstone.engine.http_wire import DISPENSABLE, EXTENSIONS, Chunk, EventParser, ModelList, error_message
from whetstone.errors import UserError

__all__ = ["PassingError", "Server", "is_loopback", "retry_after_s", "server_address"]

_PASSING_STATUS = frozenset({408, 409, 425, 429})
_DRAIN_S = 0.2
_CLIP_CHARACTERS = 300


class PassingError(Exception):
    """Something that may be gone next time.

    Attributes:
        pause_s: How long the server asks to be left alone; None where it does not say.
    """

    def __init__(self, message: str, pause_s: float | None = None) -> None:
        super().__init__(message)
        self.pause_s = pause_s


class Server:
    """One server; used in one event loop.

    Attributes:
        url: Its address, with the path that requests go under.
    """

    def __init__(self, url: str, api_key: str | None, timeout: httpx.Timeout, connections: int) -> None:
        """Connects to nothing yet.

        Args:
            url: As ``http://localhost:8000``; a path is kept, none means ``/v1``.
            api_key: Sent as a bearer token.
            timeout: For each connection and each read.
            connections: How many may be open at once.

        Raises:
            UserError: The url is none, or the key would travel in the clear.
        """
        self._key = (api_key or "").strip()
        address = server_address(url, self._key)
        self.url = str(address).rstrip("/")
        self._refused: set[str] = set()
        self._client = httpx.AsyncClient(
            base_url=address,
            headers={"Authorization": f"Bearer {self._key}"} if self._key else {},
            timeout=timeout,
            limits=httpx.Limits(max_connections=connections, max_keepalive_connections=connections),
            # A proxy of the environment has nothing to do with this machine's own servers, and would see the key.
            trust_env=not is_loopback(address.host),
        )

    async def attempt(self, path: str, body: dict[str, Any], answer: StreamedAnswer) -> Completion:
        """Asks once, and gathers what the server streams.

        A field that the server refuses and that can be done without is left out from then on.

        Args:
            path: Under the server's address.
            body: What is asked.
            answer: Gathers the pieces.

        Raises:
            PassingError: Worth another attempt.
            UserError: The server refuses.
        """
        body = {field: value for field, value in body.items() if field not in self._refused}
        try:
            async with self._client.stream("POST", path, json=body) as response:
                if response.is_success and _media_type(response) == "text/event-stream":
                    return await self._read(response, answer)
                await response.aread()
        except httpx.RequestError as error:
            raise PassingError(self._clean(_why(error))) from None
        fault = self._fault(response, body)
        refused = {field for field in DISPENSABLE if response.is_client_error and field in body and field in str(fault)}
        if not refused:
            raise fault
        self._refused |= refused
        return await self.attempt(path, body, answer)

    async def models(self) -> tuple[str, ...] | None:
        """The models that the server lists; None where it has no list.

        Raises:
            UserError: The server is not reachable, refuses, or is no OpenAI-compatible server.
        """
        try:
            response = await self._client.get("models")
        except httpx.RequestError as error:
            why = self._clean(_why(error))
            raise UserError(f"{self.url}: the server is not reachable ({why}); is it running?") from None
        # 500 is what transformers serve answers where there is no hub cache to list; it serves its model all the same.
        if response.status_code in (404, 405, 500, 501):
            return None
        if not response.is_success:
            raise UserError(str(self._fault(response, {})))
        try:
            return tuple(model.id for model in ModelList.model_validate_json(response.content).data or ())
        except ValidationError:
            raise UserError(f"{self.url}/models is no list of models; is this an OpenAI-compatible server?") from None

    async def close(self) -> None:
        """Closes all connections."""
        await self._client.aclose()

    async def _read(self, response: httpx.Response, answer: StreamedAnswer) -> Completion:
        parser = EventParser()
        parts = response.aiter_bytes()
        try:
            async for part in parts:
                if self._take(parser.feed(part), answer):
                    completion = answer.finished()
                    # A body that was read to its end leaves its connection to the next request.
                    with contextlib.suppress(TimeoutError, httpx.RequestError):
                        async with asyncio.timeout(_DRAIN_S):
                            await anext(parts, None)
                    return completion
            ended = self._take(parser.end(), answer) or answer.ended
        except ValueError as error:
            raise PassingError(f"{self.url}: {error}") from None
        except httpx.RequestError:
            if not answer.ended:
                raise
            ended = True
        if not ended:
            raise PassingError(f"{self.url}: the stream broke off before the answer had ended")
        return answer.finished()

    def _take(self, events: list[str], answer: StreamedAnswer) -> bool:
        """Adds events to the answer; says whether one of them was the last."""
        for event in events:
            if event.strip() == "[DONE]":
                return True
            try:
                chunk = Chunk.model_validate_json(event)
            except ValidationError:
                raise PassingError(f"{self.url}: the stream has no piece of an answer: {self._clean(event)}") from None
            if chunk.error is not None:
                status, message = error_message({"error": chunk.error})
                raise _sorted(status or 500, f"{self.url}: an error in the stream: {self._clean(message)}")
            answer.add(chunk)
        return False

    def _fault(self, response: httpx.Response, body: dict[str, Any]) -> PassingError | UserError:
        """What a response means that is no stream."""
        status, text = response.status_code, response.text
        with contextlib.suppress(ValueError):
            code, text = error_message(json.loads(text))
            status = code if response.is_success and code is not None else status
        model = f" for model {body['model']}" if "model" in body else ""
        said = f"{self.url}: the server answers {status}{model}: {self._clean(text) or response.reason_phrase}"
        if response.is_success and status == response.status_code:
            return UserError(f"{said} (no stream of events; is this an OpenAI-compatible server?)")
        if response.is_redirect:
            return UserError(f"{said}; use the address that it points to: {response.headers['location'][:200]}")
        unknown = [field for field in EXTENSIONS if field in body and field in text]
        if response.is_client_error and unknown:
            said += f"; if it does not take {', '.join(unknown)}, do not set it for this server"
        return _sorted(status, said, retry_after_s(response.headers.get("retry-after")))

    def _clean(self, text: str) -> str:
        """What a server said, on one line, short, and without the key that some servers repeat."""
        if self._key:
            text = text.replace(self._key, "***")
        text = " ".join(text.split())
        return text if len(text) <= _CLIP_CHARACTERS else f"{text[:_CLIP_CHARACTERS]}…"


def _sorted(status: int, message: str, pause_s: float | None = None) -> PassingError | UserError:
    if status in _PASSING_STATUS or (status >= 500 and status != 501):
        return PassingError(message, pause_s)
    return UserError(message)


def server_address(url: str, key: str) -> httpx.URL:
    """Reads the address of a server; it is not repeated in a message before it is known to hold no password.

    Args:
        url: As ``http://localhost:8000``; a path is kept, none means ``/v1``.
        key: What will be sent as a bearer token; empty for none.

    Raises:
        UserError: The url is none, or the key would travel in the clear.
    """
    try:
        address = httpx.URL(url.strip())
    except httpx.InvalidURL as error:
        raise UserError(f"the server's url cannot be read ({error}); write it as http://localhost:8000") from None
    if address.userinfo or address.query or address.fragment:
        raise UserError(f"the url of the server {address.host} holds more than host and path; give a key as API key")
    if address.scheme not in ("http", "https") or not address.host:
        raise UserError(f"{url}: this is no url of a server; write it as http://localhost:8000")
    if not (key.isascii() and key.isprintable()):
        raise UserError(f"{url}: the API key has characters that no header can hold; was it copied whole?")
    if key and address.scheme == "http" and not is_loopback(address.host):
        raise UserError(
            f"{url}: an API key is not sent over plain http to another machine; use https or a tunnel, or unset the key"
        )
    return address if address.path.strip("/") else address.copy_with(path="/v1")


def is_loopback(host: str) -> bool:
    """Whether a host is this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _media_type(response: httpx.Response) -> str:
    declared: str = response.headers.get("content-type", "")
    return declared.partition(";")[0].strip().lower()


def retry_after_s(value: str | None) -> float | None:
    """Reads ``Retry-After``: seconds or a date (RFC 9110, section 10.2.3); None where there is none to read."""
    if value is None:
        return None
    try:
        pause_s = float(value)
    except ValueError:
        try:
            pause_s = email.utils.parsedate_to_datetime(value).timestamp() - time.time()
        except ValueError:
            return None
    return max(0.0, pause_s) if math.isfinite(pause_s) else None


def _why(error: httpx.RequestError) -> str:
    name = type(error).__name__
    return f"{name}: {error}" if str(error) else name
