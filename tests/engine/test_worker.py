"""An engine that threads and asynchronous code share, over a real core and a model that is a rule."""

import asyncio
import threading
import time
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

import pytest
import torch
from tokenizers import AddedToken, Tokenizer, decoders, models
from transformers import PreTrainedTokenizerFast

from whetstone.engine.answer import Answer
from whetstone.engine.api import Completion, Delta, Request
from whetstone.engine.one_at_a_time import OneAtATime
from whetstone.engine.worker import Worker
from whetstone.errors import UserError

WAIT_S = 10
END = 26
Result = TypeVar("Result")


def tokenizer() -> PreTrainedTokenizerFast:
    backend = Tokenizer(models.BPE(vocab={chr(97 + index): index for index in range(26)}, merges=[]))
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken("<end>", special=True)])
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<end>")


class Alphabet:
    """Says the letter after the last one; after z comes a. It can be told to wait, or to break, at some token."""

    def __init__(self) -> None:
        self.reused_tokens = 0
        self.last = 0
        self.calls = 0
        self.at_call: Callable[[int], None] = lambda calls: None
        self.threads: set[int] = set()
        self.is_closed = False

    def start(self, token_ids: Sequence[int], adapter: str | None) -> torch.Tensor:
        return self.advance(token_ids[-1])

    def advance(self, token_id: int) -> torch.Tensor:
        self.threads.add(threading.get_ident())
        self.calls += 1
        self.at_call(self.calls)
        logits = torch.zeros(27)
        logits[(token_id + 1) % 26] = 9.0
        return logits

    def close(self) -> None:
        self.is_closed = True


@pytest.fixture
def source() -> Alphabet:
    return Alphabet()


@pytest.fixture
def engine(source: Alphabet) -> Iterator[Worker]:
    core = OneAtATime(source, tokenizer(), stop_ids=frozenset({END}), context_tokens=10_000)
    engine = Worker(core)
    yield engine
    engine.close()


def letters(begin: int, count: int) -> str:
    return "".join(chr(97 + (begin + 1 + index) % 26) for index in range(count))


async def streamed(engine: Worker, request: Request) -> list[Delta]:
    return [piece async for piece in engine.stream(request)]


def run(coroutine: Coroutine[object, object, Result]) -> Result:
    """Runs asynchronous code; what hangs is an error."""

    async def bounded() -> Result:
        return await asyncio.wait_for(coroutine, WAIT_S)

    return asyncio.run(bounded())


def texts(pieces: Sequence[Delta]) -> str:
    return "".join(piece.text for piece in pieces)


def test_generate_answers_in_order(engine: Worker) -> None:
    completions = engine.generate([Request((n,), n + 1) for n in range(4)])
    assert [completion.text for completion in completions] == [letters(n, n + 1) for n in range(4)]
    assert engine.generate([]) == []


def test_a_stream_tells_every_token_and_ends_with_the_completion(engine: Worker) -> None:
    pieces = run(streamed(engine, Request((3,), 6)))
    assert texts(pieces) == letters(3, 6)
    assert [piece.completion is not None for piece in pieces] == [False] * 5 + [True]


def test_refusals_come_first_and_begin_nothing(engine: Worker, source: Alphabet) -> None:
    with pytest.raises(UserError, match="context"):
        engine.generate([Request((1,), 2), Request((1,), 10_000)])
    with pytest.raises(UserError, match="context"):
        run(streamed(engine, Request((1,), 10_000)))
    assert source.calls == 0
    assert engine.generate([Request((1,), 2)])[0].text == "cd"


def test_leaving_the_iteration_frees_the_place(engine: Worker, source: Alphabet) -> None:
    async def leave_and_ask() -> tuple[int, str]:
        stream = engine.stream(Request((0,), 9000))
        assert isinstance(stream, AsyncGenerator)
        async for piece in stream:
            if piece.text == "d":
                break
        await stream.aclose()
        pieces = await streamed(engine, Request((7,), 3))
        return source.calls, texts(pieces)

    calls, text = run(leave_and_ask())
    assert text == letters(7, 3)
    assert calls < 9000


def test_cancelling_the_task_frees_the_place(engine: Worker, source: Alphabet) -> None:
    async def cancel_and_ask() -> str:
        task = asyncio.create_task(streamed(engine, Request((0,), 9000)))
        begun = asyncio.Event()
        loop = asyncio.get_running_loop()

        def begin(calls: int) -> None:
            loop.call_soon_threadsafe(begun.set)

        source.at_call = begin
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return texts(await streamed(engine, Request((7,), 3)))

    assert run(cancel_and_ask()) == letters(7, 3)
    assert source.calls < 9000


def test_a_late_stream_ends_with_its_deadline(engine: Worker) -> None:
    pieces = run(streamed(engine, Request((0,), 9000, deadline_s=time.monotonic() - 1)))
    assert pieces[-1].completion is not None
    assert pieces[-1].completion.finish_reason == "deadline"


def test_many_streams_and_threads_at_once(engine: Worker) -> None:
    async def several(begin: int) -> list[str]:
        found = await asyncio.gather(*(streamed(engine, Request((begin + n,), 5)) for n in range(4)))
        return [texts(pieces) for pieces in found]

    def generated(begin: int) -> list[str]:
        return [completion.text for completion in engine.generate([Request((begin + n,), 5) for n in range(4)])]

    with ThreadPoolExecutor(8) as pool:
        futures: list[Future[list[str]]] = [pool.submit(run, several(begin)) for begin in range(4)]
        futures += [pool.submit(generated, begin) for begin in range(4)]
        for place, future in enumerate(futures):
            assert future.result(WAIT_S) == [letters(place % 4 + n, 5) for n in range(4)]


def test_generate_returns_while_a_long_stream_goes_on(engine: Worker, source: Alphabet) -> None:
    # Requests are answered in their order here: the stream comes after what is generated.
    async def both() -> tuple[int, int]:
        loop = asyncio.get_running_loop()
        generated = loop.run_in_executor(None, engine.generate, [Request((0,), 50)])
        while source.calls == 0:
            await asyncio.sleep(0)
        long = asyncio.create_task(streamed(engine, Request((0,), 9000)))
        tokens = len((await generated)[0].token_ids)
        long.cancel()
        return source.calls, tokens

    calls, tokens = run(both())
    assert tokens == 50
    assert calls < 1000


def test_a_core_that_raises_tells_all_who_wait(engine: Worker, source: Alphabet) -> None:
    def breaks(calls: int) -> None:
        if calls == 5:
            raise RuntimeError("out of memory")

    source.at_call = breaks

    async def waiting() -> list[list[Delta] | BaseException]:
        streams = (streamed(engine, Request((n,), 9)) for n in range(3))
        return await asyncio.gather(*streams, return_exceptions=True)

    told = run(waiting())
    assert [str(error) for error in told] == ["out of memory"] * 3


def test_a_broken_engine_tells_whoever_asks_later(engine: Worker, source: Alphabet) -> None:
    def breaks(calls: int) -> None:
        raise RuntimeError("out of memory")

    source.at_call = breaks
    for _ in range(20):
        with pytest.raises(RuntimeError, match="out of memory") as told:
            engine.generate([Request((1,), 2)])
        with pytest.raises(RuntimeError, match="out of memory"):
            run(streamed(engine, Request((1,), 2)))
    assert len(told.traceback) < 20


def test_a_closed_engine_answers_nothing(engine: Worker, source: Alphabet) -> None:
    run(streamed(engine, Request((1,), 2)))
    engine.close()
    engine.close()
    assert source.is_closed
    with pytest.raises(UserError, match="closed"):
        engine.generate([Request((1,), 2)])
    with pytest.raises(UserError, match="closed"):
        run(streamed(engine, Request((1,), 2)))


def test_closing_ends_what_is_running(engine: Worker, source: Alphabet) -> None:
    begun, closing = threading.Event(), threading.Event()

    def wait_once(calls: int) -> None:
        begun.set()
        assert closing.wait(WAIT_S)

    source.at_call = wait_once

    def answered() -> list[Completion]:
        return engine.generate([Request((0,), 9000)])

    with ThreadPoolExecutor(3) as pool:
        long = streamed(engine, Request((0,), 9000))
        futures: list[Future[Any]] = [pool.submit(run, long), pool.submit(answered)]
        assert begun.wait(WAIT_S)
        closed = pool.submit(engine.close)
        closing.set()
        closed.result(WAIT_S)
        for future in futures:
            with pytest.raises(UserError, match="closed"):
                future.result(WAIT_S)


def test_generate_steps_in_the_thread_that_waits(engine: Worker, source: Alphabet) -> None:
    engine.generate([Request((1,), 4)])
    assert source.threads == {threading.get_ident()}


def test_an_interrupted_step_ends_the_engine_and_only_its_own_thread_hears_of_ctrl_c(
    engine: Worker, source: Alphabet
) -> None:
    def interrupted(calls: int) -> None:
        raise KeyboardInterrupt

    source.at_call = interrupted
    with pytest.raises(KeyboardInterrupt):
        engine.generate([Request((1,), 2)])
    with pytest.raises(UserError, match="the engine was interrupted; open it again"):
        engine.generate([Request((1,), 2)])
    with pytest.raises(UserError, match="the engine was interrupted; open it again"):
        run(streamed(engine, Request((1,), 2)))


def test_waiting_for_many_answers_looks_at_each_a_few_times(engine: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    looked = 0

    class Watched(Answer):
        def __getattribute__(self, name: str) -> object:
            nonlocal looked
            looked += name == "completion"
            return super().__getattribute__(name)

    monkeypatch.setattr("whetstone.engine.one_at_a_time.Answer", Watched)
    soon = time.monotonic() + 3600
    assert len(engine.generate([Request((n % 26,), 1, deadline_s=soon) for n in range(500)])) == 500
    assert looked < 500 * 12


def stepped(engine: Worker, answers: Sequence[Answer]) -> list[str]:
    while engine.advance():
        pass
    return [answer.completion.text for answer in answers if answer.completion is not None]


def test_an_owner_steps_by_itself_and_is_told_in_its_own_thread(engine: Worker, source: Alphabet) -> None:
    told: list[tuple[int, str]] = []
    request = Request((3,), 6)
    engine.check(request)
    answer = engine.begin(request, lambda piece: told.append((threading.get_ident(), piece.text)))
    assert not told and source.calls == 0
    assert engine.advance()
    assert [text for _, text in told] == ["e"]
    assert stepped(engine, [answer]) == [letters(3, 6)]
    assert "".join(text for _, text in told) == letters(3, 6)
    assert {thread for thread, _ in told} == source.threads == {threading.get_ident()}
    assert not engine.advance()
    with pytest.raises(UserError, match="context"):
        engine.check(Request((1,), 10_000))


def test_what_is_dropped_is_cancelled_and_frees_its_place_at_once(engine: Worker) -> None:
    told: list[Delta] = []
    first, second = (engine.begin(Request((n,), 9000), told.append) for n in range(2))
    engine.advance()
    engine.drop(first)
    assert told[-1].completion is first.completion is not None
    assert first.completion.finish_reason == "cancelled"
    engine.drop(first)
    engine.advance()
    assert second.token_ids == [2]
    engine.drop(second)
    assert not engine.advance()


def test_streams_and_batches_go_on_beside_an_owner_that_steps(engine: Worker) -> None:
    owner = [engine.begin(Request((n,), 40), lambda piece: None) for n in range(5)]
    with ThreadPoolExecutor(4) as pool:
        streams = [pool.submit(run, streamed(engine, Request((n,), 40))) for n in range(2)]
        batches = [pool.submit(engine.generate, [Request((n,), 40)]) for n in range(2)]
        while not all(answer.completion for answer in owner):
            engine.advance()
        assert [texts(future.result(WAIT_S)) for future in streams] == [letters(n, 40) for n in range(2)]
        assert [future.result(WAIT_S)[0].text for future in batches] == [letters(n, 40) for n in range(2)]
    assert stepped(engine, owner) == [letters(n, 40) for n in range(5)]


def test_an_owner_of_a_broken_engine_is_told_why(engine: Worker, source: Alphabet) -> None:
    def breaks(calls: int) -> None:
        raise RuntimeError("out of memory")

    source.at_call = breaks
    engine.begin(Request((1,), 2), lambda piece: None)
    for _ in range(2):
        with pytest.raises(RuntimeError, match="out of memory"):
            engine.advance()
        with pytest.raises(RuntimeError, match="out of memory"):
            engine.begin(Request((1,), 2), lambda piece: None)
    engine.close()
    with pytest.raises(RuntimeError, match="out of memory"):
        engine.generate([Request((1,), 2)])


def test_what_is_done_between_steps_never_meets_one(engine: Worker, source: Alphabet) -> None:
    steps = threading.Semaphore(1)
    done: list[int] = []

    def busy(calls: int) -> None:
        assert steps.acquire(blocking=False)
        time.sleep(0.0005)
        steps.release()

    def action() -> int:
        assert steps.acquire(blocking=False)
        done.append(threading.get_ident())
        time.sleep(0.0005)
        steps.release()
        return len(done)

    source.at_call = busy
    assert engine.do_between_steps(action) == 1
    with ThreadPoolExecutor(5) as pool:
        # Who steps without a pause never leaves the lock to others for long, and does for them what they wait for.
        batch = pool.submit(engine.generate, [Request((0,), 400)])
        asked = [pool.submit(lambda: [engine.do_between_steps(action) for _ in range(10)]) for _ in range(4)]
        counts = sorted(count for future in asked for count in future.result(WAIT_S))
        assert batch.result(WAIT_S)[0].text == letters(0, 400)
    assert counts == list(range(2, 42))


def test_what_fails_between_steps_is_told_to_who_asked_and_breaks_nothing(engine: Worker) -> None:
    def fails() -> None:
        raise UserError("no such adapter")

    long = engine.begin(Request((0,), 20), lambda piece: None)
    engine.advance()
    with pytest.raises(UserError, match="no such adapter"):
        engine.do_between_steps(fails)
    assert stepped(engine, [long]) == [letters(0, 20)]
    engine.close()
    with pytest.raises(UserError, match="the engine is closed"):
        engine.do_between_steps(fails)
