"""What becomes of those who wait when the process that computes is killed, hangs, or talks nonsense."""

import asyncio
import gc
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

import echo_worker
from whetstone.engine.api import Sampling
from whetstone.serve.errors import ServeError
from whetstone.serve.question import Ending, Question
from whetstone.serve.worker.local_backend import LocalBackend
from whetstone.serve.worker.protocol import Opening
from whetstone.serve.worker.supervisor import Patience

HASTY = Patience(stall_s=0.8, first_pause_s=0.01, longest_pause_s=0.05)
ECHO = (sys.executable, "-I", "-S", echo_worker.__file__)


@asynccontextmanager
async def echoing(*arguments: str, patience: Patience = HASTY) -> AsyncIterator[LocalBackend]:
    backend = LocalBackend(Opening(("run:demo",), "runs"), patience, program=(*ECHO, *arguments))
    await backend.start()
    try:
        yield backend
    finally:
        await backend.close()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.005)


async def be_ready(backend: LocalBackend) -> None:
    await until(lambda: backend.state.phase == "ready")


def question(text: str, deadline_s: float | None = None) -> Question:
    return Question("demo", text, None, Sampling(), 0, deadline_s=deadline_s)


async def answer(backend: LocalBackend, text: str, deadline_s: float | None = None) -> str:
    said = [one async for one in backend.ask(question(text, deadline_s))]
    assert isinstance(said[-1], Ending)
    return "".join(one.text for one in said if not isinstance(one, Ending))


def children() -> list[psutil.Process]:
    return psutil.Process().children()


def open_files() -> int:
    gc.collect()
    return len(list(Path("/proc/self/fd").iterdir()))


def run(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(test())


def test_twenty_kills_under_load_leave_nobody_waiting_and_nothing_behind() -> None:
    async def test() -> None:
        asked = answered = lost = 0
        async with echoing() as backend:
            await be_ready(backend)
            files = open_files()
            over = False

            async def client(name: int) -> None:
                nonlocal asked, answered, lost
                while not over:
                    text = " ".join(f"{name}-{asked}-{word}" for word in range(30))
                    asked += 1
                    said = ""
                    try:
                        async for one in backend.ask(question(text)):
                            said += "" if isinstance(one, Ending) else one.text
                        assert said.split() == text.split()
                        answered += 1
                    except ServeError as error:
                        assert error.status == 503 and error.retry_after_s is not None
                        assert error.code in ("backend_lost", "unavailable")
                        assert text.startswith(said.strip())
                        lost += error.code == "backend_lost"
                        await until(lambda: backend.state.phase == "ready" or over)

            clients = [asyncio.create_task(client(name)) for name in range(8)]
            for _ in range(20):
                await be_ready(backend)
                some = answered + 8
                await until(lambda some=some: answered >= some)  # type: ignore[misc]
                (child,) = children()
                child.kill()
                await until(lambda: backend.state.phase != "ready")
            await be_ready(backend)
            over = True
            async with asyncio.timeout(10):
                await asyncio.gather(*clients)
            assert lost >= 20
            assert len(children()) == 1
            assert open_files() <= files
            assert backend.state.restarts == 20 and "SIGKILL" in (backend.state.last_error or "")
            assert backend.load.running == 0
        assert children() == []

    run(test)


def test_a_process_that_hangs_is_ended_and_started_again() -> None:
    async def test() -> None:
        async with echoing() as backend:
            await be_ready(backend)
            (hung,) = children()
            hung.send_signal(signal.SIGSTOP)
            with pytest.raises(ServeError) as lost:
                await answer(backend, "is there anybody")
            assert (lost.value.status, lost.value.code) == (503, "backend_lost")
            await be_ready(backend)
            assert await answer(backend, "here again") == "here again "
            assert "hung" in (backend.state.last_error or "")

    run(test)


def test_a_process_that_cannot_get_on_with_reading_is_ended_though_it_answers_others() -> None:
    async def test() -> None:
        async with echoing("slow") as backend:
            await be_ready(backend)
            texts = ("stuck", " ".join("word" for _ in range(500)))
            for lost in await asyncio.gather(*(answer(backend, text) for text in texts), return_exceptions=True):
                assert isinstance(lost, ServeError) and lost.code == "backend_lost"
            await be_ready(backend)
            assert "hung for 99 s" in (backend.state.last_error or "")

    run(test)


def test_a_process_that_nobody_asks_anything_may_be_silent() -> None:
    async def test() -> None:
        async with echoing() as backend:
            await be_ready(backend)
            await asyncio.sleep(1.5 * HASTY.stall_s)
            assert await answer(backend, "still here") == "still here "
            assert backend.state.restarts == 0

    run(test)


@pytest.mark.parametrize(("text", "reason"), [("garbage", "cannot be read"), ("leave", "exit code 7")])
def test_a_process_that_breaks_the_protocol_or_leaves_is_started_again(text: str, reason: str) -> None:
    async def test() -> None:
        async with echoing() as backend:
            await be_ready(backend)
            with pytest.raises(ServeError) as lost:
                await answer(backend, text)
            assert lost.value.code == "backend_lost"
            await be_ready(backend)
            assert reason in (backend.state.last_error or "")
            assert backend.state.restarts == 1

    run(test)


def test_what_must_not_be_served_stays_away_with_the_reason() -> None:
    async def test() -> None:
        async with echoing("refuse") as backend:
            await until(lambda: backend.state.phase == "failed")
            state = backend.state
            assert (state.last_error, state.restarts, state.retry_after_s) == (
                "run:demo: not judged; judge it",
                0,
                None,
            )
            with pytest.raises(ServeError) as refused:
                await answer(backend, "anybody")
            assert refused.value.status == 503 and "not judged" in refused.value.message
            assert refused.value.retry_after_s is None
            assert children() == []

    run(test)


def test_opening_that_never_succeeds_is_given_up() -> None:
    async def test() -> None:
        async with echoing("fail") as backend:
            await until(lambda: backend.state.phase == "failed")
            assert (backend.state.restarts, backend.state.last_error) == (2, "MemoryError")
            assert backend.models == {}

    run(test)


def test_the_pause_before_a_restart_doubles_up_to_a_limit(caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        patience = Patience(first_pause_s=0.1, longest_pause_s=0.4)
        async with echoing(patience=patience) as backend:
            for restarts in range(4):
                await until(lambda: backend.state.phase == "ready")
                with pytest.raises(ServeError):
                    await answer(backend, "leave")
                assert (backend.state.phase, backend.state.restarts) == ("restarting", restarts)
                assert backend.state.retry_after_s is not None

    run(test)
    pauses = [record.args[0] for record in caplog.records if isinstance(record.args, tuple)]
    assert pauses == [0.1, 0.2, 0.4, 0.4][: len(pauses)] and len(pauses) >= 3


def test_before_it_is_ready_it_says_when_to_ask_again() -> None:
    async def test() -> None:
        backend = LocalBackend(Opening(("run:demo",), "runs"), HASTY, program=ECHO)
        with pytest.raises(ServeError) as early:
            await answer(backend, "anybody")
        assert (early.value.status, early.value.code) == (503, "unavailable")
        assert early.value.retry_after_s is not None and early.value.retry_after_s >= 1
        assert backend.name == "local" and backend.models == {}

    run(test)


def test_deadlines_hold_even_where_the_process_says_nothing() -> None:
    async def test() -> None:
        async with echoing(patience=Patience()) as backend:
            await be_ready(backend)
            (child,) = children()
            child.send_signal(signal.SIGSTOP)
            began = time.monotonic()
            with pytest.raises(ServeError) as late:
                await answer(backend, "is there anybody", deadline_s=0.2)
            assert (late.value.status, late.value.code) == (504, "deadline_exceeded")
            assert time.monotonic() - began < 2
            child.send_signal(signal.SIGCONT)
            assert await answer(backend, "here again", deadline_s=10) == "here again "

    run(test)


def test_whoever_reads_slowly_slows_nobody_else() -> None:
    async def test() -> None:
        async with echoing() as backend:
            await be_ready(backend)
            long = " ".join("slow" for _ in range(300))
            slow = backend.ask(question(long))
            await anext(slow)
            for index in range(5):
                assert await answer(backend, f"quick {index}") == f"quick {index} "
            rest = [one async for one in slow]
            assert len(rest) == 300 and isinstance(rest[-1], Ending)

    run(test)


def test_leaving_early_or_closing_forgets_the_answer() -> None:
    async def test() -> None:
        async with echoing("slow") as backend:
            await be_ready(backend)
            early = backend.ask(question("one two three four"))
            await anext(early)
            assert backend.load.running == 1
            await early.aclose()  # type: ignore[attr-defined]
            assert backend.load.running == 0
            waiting = asyncio.create_task(answer(backend, "one two three four five six seven"))
            await until(lambda: backend.load.running == 1)
            await backend.close()
            with pytest.raises(ServeError) as closed:
                await waiting
            assert (closed.value.status, closed.value.code) == (503, "closed")
            assert backend.state.phase == "closed" and children() == []

    run(test)


def test_the_servers_process_needs_nothing_that_computes() -> None:
    program = """
import sys
import whetstone.serve.worker.local_backend
assert sys.modules.keys().isdisjoint(("torch", "scipy", "transformers", "numpy")), sorted(sys.modules)
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=30)
