"""An OpenAI-compatible server in a thread that behaves as badly as a test wants it to."""

import asyncio
import contextlib
import json
import threading
from collections.abc import Awaitable, Callable
from typing import Any

__all__ = ["Act", "Server", "Talk", "cut", "fine", "silent", "status"]


class Talk:
    """One request and its answer, as the server sees them."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, target: str, raw: bytes) -> None:
        self.reader, self.writer, self.target = reader, writer, target
        self.body: dict[str, Any] = json.loads(raw) if raw else {}

    async def reply(self, status: int, body: object, **headers: str) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        fields = {"content-type": "application/json", "content-length": str(len(data))}
        fields |= {name.replace("_", "-"): value for name, value in headers.items()}
        await self.head(status, fields)
        self.writer.write(data)
        await self.writer.drain()

    async def head(self, status: int, headers: dict[str, str]) -> None:
        lines = [f"HTTP/1.1 {status} Status", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
        self.writer.write("\r\n".join(lines).encode())
        await self.writer.drain()

    async def begin(self) -> None:
        await self.head(200, {"content-type": "text/event-stream; charset=utf-8", "transfer-encoding": "chunked"})

    async def send(self, data: bytes) -> None:
        self.writer.write(b"%x\r\n%s\r\n" % (len(data), data))
        await self.writer.drain()

    async def say(self, text: str, **fields: object) -> None:
        await self.event({"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None, **fields}]})

    async def event(self, document: object) -> None:
        await self.send(b"data: " + json.dumps(document).encode() + b"\n\n")

    async def finish(self, reason: str = "stop", usage: dict[str, Any] | None = None) -> None:
        await self.event({"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]})
        await self.event({"choices": [], "usage": usage or {"prompt_tokens": 5, "completion_tokens": 2}})
        await self.send(b"data: [DONE]\n\n")
        await self.end()

    async def end(self) -> None:
        self.writer.write(b"0\r\n\r\n")
        await self.writer.drain()

    async def until_closed(self) -> None:
        while await self.reader.read(1024):
            pass


Act = Callable[[Talk], Awaitable[None]]


async def fine(talk: Talk) -> None:
    await talk.begin()
    await talk.say("Hello")
    await talk.say(" there")
    await talk.finish()


class Server:
    """Serves acts in their order, then fine answers, in a thread."""

    def __init__(self) -> None:
        self.acts: list[Act] = []
        self.default: Act = fine
        self.models: Act = lambda talk: talk.reply(200, {"data": [{"id": "small"}, {"id": "large:latest"}]})
        self.bodies: list[dict[str, Any]] = []
        self.targets: list[str] = []
        self.heads: list[str] = []
        self.connections = 0
        self.closed = threading.Event()
        self.arrived = threading.Semaphore(0)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        listening = asyncio.run_coroutine_threadsafe(asyncio.start_server(self._serve, "127.0.0.1", 0), self._loop)
        self._server = listening.result()
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                self.heads.append(head)
                target = head.split()[1]
                lengths = [line for line in head.lower().splitlines() if line.startswith("content-length")]
                raw = await reader.readexactly(int(lengths[0].split(":")[1])) if lengths else b""
                talk = Talk(reader, writer, target, raw)
                if target.endswith("/models"):
                    await self.models(talk)
                    continue
                self.bodies.append(talk.body)
                self.targets.append(target)
                self.arrived.release()
                await (self.acts.pop(0) if self.acts else self.default)(talk)
        writer.close()

    def close(self) -> None:
        async def end() -> None:
            self._server.close()
            tasks = asyncio.all_tasks() - {asyncio.current_task()}
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        asyncio.run_coroutine_threadsafe(end(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


def status(code: int, body: object = b"", **headers: str) -> Act:
    return lambda talk: talk.reply(code, body, **headers)


async def cut(talk: Talk) -> None:
    await talk.begin()
    await talk.say("Hel")
    talk.writer.close()


async def silent(talk: Talk) -> None:
    await talk.until_closed()
