"""Several answers at once, and requests that are cut off from outside."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from scripted_backend import ScriptedBackend
from whetstone.engine.api import Usage
from whetstone.serve.answered import Answered
from whetstone.serve.api.app import build_app
from whetstone.serve.api.gone import Gone, until_gone
from whetstone.serve.api.heard import Heard
from whetstone.serve.api.service import Service
from whetstone.serve.api.together import Together
from whetstone.serve.errors import ServeError
from whetstone.serve.gate.admission import Admission
from whetstone.serve.gate.keys import KeyRing
from whetstone.serve.question import Ending, Piece
from whetstone.serve_section import Serve

ENDING = Ending("stop", Usage(1, 2))


async def _say(*pieces: Piece | Ending | Exception) -> AsyncIterator[Piece | Ending]:
    for piece in pieces:
        if isinstance(piece, Exception):
            raise piece
        yield piece
        await asyncio.sleep(0)


async def _never() -> AsyncIterator[Piece | Ending]:
    yield Piece("one")
    await asyncio.Event().wait()


def test_what_came_while_nobody_looked_is_given_together() -> None:
    async def listen() -> None:
        heard = [Heard(0, ""), Heard(1, "")]
        together = Together([(one, _say(Piece("a"), Piece("b"), ENDING)) for one in heard])
        first = await together.next()
        assert [piece for _, piece in first] == [Piece("a"), Piece("a")]
        for _ in range(5):
            await asyncio.sleep(0)
        said = await together.next()
        assert [(one.index, piece) for one, piece in said] == [
            (0, Piece("b")),
            (1, Piece("b")),
            (0, ENDING),
            (1, ENDING),
        ]
        assert await together.next() == []
        assert [one.text for one in heard] == ["ab", "ab"]

    asyncio.run(listen())


def test_a_failure_comes_after_what_was_said_before_and_ends_the_others() -> None:
    async def listen() -> None:
        failure = ServeError(503, "gone", "it is gone")
        heard = [Heard(0, ""), Heard(1, "")]
        together = Together([(heard[0], _say(Piece("a"), failure)), (heard[1], _never())])
        assert len(await together.next()) == 2
        with pytest.raises(ServeError) as raised:
            await together.next()
        assert raised.value is failure
        await together.close()
        assert heard[1].ending is None

    asyncio.run(listen())


def test_whoever_hangs_up_is_told_apart_from_whoever_cancels() -> None:
    async def hang_up(after_s: float) -> dict[str, Any]:
        await asyncio.sleep(after_s)
        return {"type": "http.disconnect"}

    async def wait(after_s: float) -> None:
        async with until_gone(lambda: hang_up(after_s)):
            await asyncio.sleep(1)

    async def both() -> None:
        with pytest.raises(Gone):
            await wait(0.01)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await wait(1)
        task = asyncio.create_task(wait(1))
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(both())


def test_a_request_that_the_server_cuts_off_is_told_and_cancelled() -> None:
    class Noted:
        records: list[Answered] = []  # noqa: RUF012 - of this test alone

        def answered(self, answered: Answered) -> None:
            self.records.append(answered)

    async def cut_off() -> None:
        backend = ScriptedBackend(pause_s=0.01)
        settings = Serve()
        admission = Admission(settings.limits)
        app = build_app(Service(settings, (backend,), KeyRing(None, ()), admission, listeners=(Noted(),)))
        body = json.dumps({"model": "demo", "messages": [{"role": "user", "content": "word " * 500}]}).encode()
        messages: list[dict[str, Any]] = [{"type": "http.request", "body": body}]

        async def receive() -> dict[str, Any]:
            if not messages:
                await asyncio.Event().wait()
            return messages.pop()

        async def send(message: Any) -> None:
            raise AssertionError("nothing is sent")

        scope = {
            "type": "http",
            "method": "POST",
            "path": "/v1/chat/completions",
            "raw_path": b"",
            "query_string": b"",
            "headers": [],
        }
        task = asyncio.create_task(app(scope, receive, send))
        await asyncio.sleep(0.1)
        assert admission.running == 1
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert len(backend.cancelled) == 1
        assert admission.running == 0

    asyncio.run(cut_off())
    (record,) = Noted.records
    assert (record.outcome, record.status) == ("stopped", None)
    assert record.new_tokens > 0
