"""A server of OpenAI's protocol that does what a test tells it to."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

__all__ = ["ScriptedUpstream", "chunk", "event"]


def event(document: Any) -> bytes:
    return f"data: {json.dumps(document)}\n\n".encode()


def chunk(text: str, reason: str | None = None, **more: Any) -> dict[str, Any]:
    return {"choices": [{"delta": {"content": text}, "finish_reason": reason, **more}]}


class ScriptedUpstream:
    """Says ``events``; ``answer`` may be replaced by anything at any time.

    Attributes:
        bodies: All that were asked for with a stream.
        probes: All that were asked for without.
        headers: Of the last request.
        cancelled: Streams that were left early.
        status: Of every response, where it is not 200.
        reads: Fields whose absurd values are refused.
    """

    def __init__(self) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.probes: list[dict[str, Any]] = []
        self.paths: list[str] = []
        self.headers: dict[str, str] = {}
        self.cancelled = 0
        self.status = 200
        self.error: Any = {"error": {"message": "no"}}
        self.retry_after: str | None = None
        self.reads: set[str] = set()
        self.events: list[bytes] = [
            event(chunk("Hello")),
            event(chunk(" there", "stop")),
            event({"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 2}}),
            b"data: [DONE]\n\n",
        ]
        self.pause_s = 0.0
        self.breaks = False
        self.url = ""

    @asynccontextmanager
    async def serving(self, port: int = 0) -> AsyncIterator["ScriptedUpstream"]:
        app = web.Application()
        app.router.add_post("/v1/{path:.*}", self._answer)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", port)
        await site.start()
        self.port = runner.addresses[0][1]
        self.url = f"http://127.0.0.1:{self.port}/v1"
        try:
            yield self
        finally:
            await runner.cleanup()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.paths.append(request.match_info["path"])
        self.headers = dict(request.headers)
        (self.bodies if body.get("stream") else self.probes).append(body)
        if self.status != 200:
            headers = {} if self.retry_after is None else {"Retry-After": self.retry_after}
            return web.json_response(self.error, status=self.status, headers=headers)
        if not body.get("stream"):
            if any(body.get(field) == "none" for field in self.reads):
                return web.json_response({"error": "no number"}, status=400)
            return web.json_response({"choices": [{"message": {"content": "a"}}]})
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        try:
            for one in self.events:
                await response.write(one)
                await asyncio.sleep(self.pause_s)
        except (ConnectionError, asyncio.CancelledError):
            self.cancelled += 1
            raise
        if self.breaks and request.transport is not None:
            request.transport.abort()
        return response
