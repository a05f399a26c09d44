"""A program behind the server: it is started, proved, looked after, started again, and never left behind."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil
import pytest

import echo_program
from whetstone.data.example import Message
from whetstone.engine.api import Sampling, Usage
from whetstone.serve.delegate.delegate_backend import DelegateBackend
from whetstone.serve.delegate.dialect import Dialect
from whetstone.serve.delegate.http_backend import Probing
from whetstone.serve.delegate.order import Form, Prepared
from whetstone.serve.delegate.program import Launch
from whetstone.serve.errors import ServeError
from whetstone.serve.question import Ending, Question
from whetstone.serve.worker.protocol import Opening
from whetstone.serve.worker.supervisor import Patience

SCRIPT = (sys.executable, "-I", "-S", str(Path(echo_program.__file__)))
HASTY = Patience(stall_s=0.8, first_pause_s=0.01, longest_pause_s=0.05)
QUESTION = Question("demo", (Message("user", "ab"),), 5, Sampling(), seed=0)


@dataclass(frozen=True, slots=True)
class Echo:
    mode: str = "usual"
    title: str = "echo"
    engine: str = "echo"
    form: Form = "folders"
    takes_token_ids: bool = True
    grace_s: float = 0.3

    def dialect(self, prepared: Prepared) -> Dialect:
        return Dialect("echo")

    def check(self, prepared: Prepared) -> None:
        return None

    def launch(self, prepared: Prepared, port: int, key: str) -> Launch:
        return Launch((*SCRIPT, "serve", str(port), self.mode), {"ECHO_KEY": key})

    def model(self, name: str) -> str:
        return name


@asynccontextmanager
async def echoing(
    mode: str = "usual", preparing: str = "usual", *, force: bool = False, patience: Patience = HASTY
) -> AsyncIterator[DelegateBackend]:
    opening = Opening(("run:demo",), "runs", force=force)
    backend = DelegateBackend(
        Echo(mode),
        opening,
        patience=patience,
        probing=Probing(every_s=0.1, idle_s=0.3, timeout_s=5.0),
        preparing=(*SCRIPT, "prepare", preparing),
    )
    await backend.start()
    try:
        yield backend
    finally:
        await backend.close()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.01)


async def be(backend: DelegateBackend, phase: str) -> None:
    await until(lambda: backend.state.phase == phase)


async def answer(backend: DelegateBackend, question: Question = QUESTION) -> tuple[str, Ending]:
    async with asyncio.timeout(20):
        said = [one async for one in backend.ask(question)]
    assert isinstance(said[-1], Ending)
    return "".join(one.text for one in said if not isinstance(one, Ending)), said[-1]


def servers() -> list[psutil.Process]:
    """The program's own processes, found by their command line, wherever they are; not those of tests beside these."""
    found = []
    mine = os.environ.get("PYTEST_XDIST_WORKER")
    for process in psutil.process_iter(["cmdline", "environ"]):
        line = process.info["cmdline"] or []
        if (process.info["environ"] or {}).get("PYTEST_XDIST_WORKER") != mine:
            continue
        if str(Path(echo_program.__file__)) in line and "serve" in line and "guard.py" not in " ".join(line):
            found.append(process)
    return found


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(test)
    assert servers() == []


def test_answers_with_the_token_ids_of_ours() -> None:
    async def test() -> None:
        async with echoing() as backend:
            with pytest.raises(ServeError) as caught:
                await answer(backend)
            assert (caught.value.status, backend.state.phase) == (503, "starting")
            assert (caught.value.retry_after_s or 0) >= 1
            await be(backend, "ready")
            assert await answer(backend) == ("97 98 ", Ending("stop", Usage(2, 2)))
            await until(lambda: (backend.load.memory_bytes or 0) > 2**20)
            assert (backend.load.prompt_tokens, backend.load.running) == (2, 0)

    run(test())


def test_what_the_prompt_cannot_be_is_refused() -> None:
    async def test() -> None:
        async with echoing() as backend:
            await be(backend, "ready")
            for question, param in (
                (replace(QUESTION, prompt="quote"), "prompt"),
                (replace(QUESTION, max_new_tokens=19), "max_tokens"),
                (replace(QUESTION, prompt="\ud800"), None),
            ):
                with pytest.raises(ServeError) as caught:
                    await answer(backend, question)
                assert (caught.value.status, caught.value.param) == (400, param)
            text, _ = await answer(backend, replace(QUESTION, max_new_tokens=18))
            assert text == "97 98 "

    run(test())


def test_one_that_is_killed_comes_back() -> None:
    async def test() -> None:
        async with echoing() as backend:
            await be(backend, "ready")
            answering = backend.ask(replace(QUESTION, prompt="slow"))
            await anext(answering)
            [process] = servers()
            process.kill()
            with pytest.raises(ServeError) as caught:
                [_ async for _ in answering]
            assert (caught.value.status, caught.value.code) == (503, "backend_lost")
            await until(lambda: backend.state.restarts == 1)
            assert list(backend.models) == ["demo"]
            await be(backend, "ready")
            assert (await answer(backend))[0] == "97 98 "
            assert "signal 9" in (backend.state.last_error or "")

    run(test())


def test_one_that_hangs_is_started_again() -> None:
    async def test() -> None:
        async with echoing() as backend:
            await be(backend, "ready")
            with pytest.raises(ServeError):
                await answer(backend, replace(QUESTION, prompt="hang"))
            await until(lambda: backend.state.restarts == 1)
            assert "it hung" in (backend.state.last_error or "")

    run(test())


def test_one_that_says_no_token_any_more_is_started_again() -> None:
    async def test() -> None:
        async with echoing(patience=replace(HASTY, stall_s=60.0)) as backend:
            backend._probing = Probing(every_s=0.1, idle_s=0.2, timeout_s=0.3)
            await be(backend, "ready")
            [process] = servers()
            process.suspend()
            await until(lambda: backend.state.restarts == 1)
            assert "no answers any more" in (backend.state.last_error or "")

    run(test())


def test_prompts_are_rendered_again_after_their_process_broke() -> None:
    async def test() -> None:
        async with echoing(preparing="judged") as backend:
            await be(backend, "ready")
            with pytest.raises(ServeError) as caught:
                await answer(backend, replace(QUESTION, prompt="die"))
            assert caught.value.status == 503
            await until(lambda: backend.state.restarts == 1)
            await be(backend, "ready")
            assert (await answer(backend))[0] == "97 98 "
            assert backend.models["demo"].proof.replayed == 1

    run(test())


def test_one_that_never_begins_is_given_up() -> None:
    async def test() -> None:
        async with echoing("broken", patience=replace(HASTY, openings=2)) as backend:
            await be(backend, "failed")
            assert backend.state.restarts == 1
            assert "exit code 1; its last line was: out of memory" in (backend.state.last_error or "")

    run(test())


def test_judged_answers_have_to_come_again() -> None:
    async def test() -> None:
        async with echoing(preparing="judged") as backend:
            await be(backend, "ready")
            proof = backend.models["demo"].proof
            assert (proof.replayed, proof.equal, proof.forced) == (1, 1, None)
        async with echoing(preparing="otherwise") as backend:
            await be(backend, "failed")
            assert "1 of 1 judged answers come out otherwise, 'one' first" in (backend.state.last_error or "")
        async with echoing(preparing="otherwise", force=True) as backend:
            await be(backend, "ready")
            proof = backend.models["demo"].proof
            assert (proof.replayed, proof.equal) == (1, 0) and "otherwise" in (proof.forced or "")
        async with echoing(preparing="refused") as backend:
            await be(backend, "failed")
            assert backend.state.last_error == "run:demo: not served: REJECT"

    run(test())


def test_closing_ends_what_does_not_want_to() -> None:
    async def test() -> None:
        async with echoing("stubborn") as backend:
            await be(backend, "ready")
            [process] = servers()
            inner = process.children()
            assert len(inner) == 1
            await asyncio.gather(backend.close(), backend.close())
            assert not process.is_running()
            assert not inner[0].is_running() or inner[0].status() == psutil.STATUS_ZOMBIE
            assert backend.state.phase == "closed"

    run(test())


def test_nothing_is_left_when_the_server_is_killed() -> None:
    """The guard notices, whatever became of the server."""
    script = f"""
import asyncio, sys
from whetstone.serve.delegate.running import Running
async def main():
    running = await Running.spawn({SCRIPT!r} + ("serve", "0", "stubborn"), {{}}, title="echo", grace_s=0.2)
    print(running.pid, flush=True)
    await asyncio.sleep(600)
asyncio.run(main())
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    server = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, env=environment)
    assert server.stdout is not None
    program = psutil.Process(int(server.stdout.readline()))
    server.send_signal(signal.SIGKILL)
    server.wait()
    program.wait(timeout=10)
    end_s = time.monotonic() + 10
    while servers() and time.monotonic() < end_s:
        time.sleep(0.02)
    assert servers() == []
