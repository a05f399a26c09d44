"""A server somewhere else: what it is asked, and what becomes of its failures."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from scripted_upstream import ScriptedUpstream, chunk, event
from whetstone.data.example import Message
from whetstone.engine.api import Constraint, Sampling, Usage
from whetstone.errors import UserError
from whetstone.serve.delegate.http_backend import HttpBackend, Probing
from whetstone.serve.errors import ServeError
from whetstone.serve.question import Ending, Piece, Question

HASTY = Probing(every_s=0.02, idle_s=0.05, timeout_s=2.0)
QUESTION = Question("mine", (Message("user", "Hello?"),), 20, Sampling(), seed=3)


@asynccontextmanager
async def backed(upstream: ScriptedUpstream, probing: Probing = HASTY, **options: Any) -> AsyncIterator[HttpBackend]:
    backend = HttpBackend(upstream.url, "theirs", name="mine", probing=probing, **options)
    await backend.start()
    try:
        yield backend
    finally:
        await backend.close()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


async def be_ready(backend: HttpBackend) -> None:
    await until(lambda: backend.state.phase == "ready")


async def ask(backend: HttpBackend, question: Question = QUESTION) -> tuple[str, Ending, list[Piece]]:
    said = [one async for one in backend.ask(question)]
    pieces = [one for one in said if isinstance(one, Piece)]
    assert isinstance(said[-1], Ending)
    return "".join(one.text for one in pieces), said[-1], pieces


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(test)


def scripted(test: Callable[[ScriptedUpstream, HttpBackend], Coroutine[Any, Any, None]], **options: Any) -> None:
    """Runs a test with a server that is there and a backend that is ready."""

    async def inside() -> None:
        async with ScriptedUpstream().serving() as upstream, backed(upstream, **options) as backend:
            await be_ready(backend)
            await test(upstream, backend)

    run(inside())


def test_what_is_asked_and_answered() -> None:
    async def test(upstream: ScriptedUpstream, backend: HttpBackend) -> None:
        text, ending, _ = await ask(backend, replace(QUESTION, stop=("END",), sampling=Sampling(0.5, 0.9)))
        assert (text, ending) == ("Hello there", Ending("stop", Usage(7, 2)))
        body = upstream.bodies[0]
        assert body["messages"] == [{"role": "user", "content": "Hello?"}]
        asked = [body[name] for name in ("model", "max_tokens", "temperature", "top_p", "seed", "stop")]
        assert asked == ["theirs", 20, 0.5, 0.9, 3, ["END"]]
        assert upstream.headers["Authorization"] == "Bearer secret"
        await ask(backend, replace(QUESTION, prompt="Once"))
        await ask(backend, replace(QUESTION, prompt=(5, 6), max_new_tokens=None))
        assert [one["prompt"] for one in upstream.bodies[1:]] == ["Once", [5, 6]]
        assert upstream.bodies[2]["max_tokens"] == 512
        await ask(backend, replace(QUESTION, max_new_tokens=None))
        # How long a context it has, the server knows alone.
        assert "max_tokens" not in upstream.bodies[3]
        assert upstream.paths[-3:] == ["completions", "completions", "chat/completions"]
        load = backend.load
        assert (load.running, load.prompt_tokens, load.new_tokens) == (0, 28, 8)
        model = backend.models["mine"]
        assert (model.engine, model.origin, model.sha256) == ("http", upstream.url, None)
        assert model.proof.forced and "secret" not in repr(backend.state) + repr(model)

    scripted(test, api_key="secret")


def test_ready_is_a_token_and_nothing_less() -> None:
    async def test() -> None:
        upstream = ScriptedUpstream()
        async with upstream.serving():
            upstream.status = 503
            async with backed(upstream) as backend:
                await until(lambda: len(upstream.probes) > 2)
                assert backend.state.phase == "starting" and backend.models == {}
                with pytest.raises(ServeError) as caught:
                    await ask(backend)
                assert (caught.value.status, caught.value.retry_after_s is not None) == (503, True)
                upstream.status = 200
                await be_ready(backend)
                assert upstream.probes[-1]["max_tokens"] == 1
                before = len(upstream.probes)
                await until(lambda: len(upstream.probes) > before)  # idle, and looked after

    run(test())


def test_one_that_goes_away_comes_back() -> None:
    async def test() -> None:
        first, second = ScriptedUpstream(), ScriptedUpstream()
        async with first.serving():
            backend = HttpBackend(first.url, "theirs", name="mine", probing=HASTY)
            await backend.start()
            await be_ready(backend)
        await until(lambda: backend.state.phase == "restarting")
        assert list(backend.models) == ["mine"]
        async with second.serving(first.port):
            await be_ready(backend)
            assert (await ask(backend))[0] == "Hello there"
            assert backend.state.restarts == 1
        await backend.close()
        assert backend.state.phase == "closed"

    run(test())


def test_a_wrong_key_is_for_good() -> None:
    async def test() -> None:
        async with ScriptedUpstream().serving() as upstream:
            upstream.status, upstream.error = 401, {"error": {"message": "wrong key secret"}}
            async with backed(upstream, api_key="secret") as backend:
                await until(lambda: backend.state.phase == "failed")
                assert backend.state.last_error == "the server answers 401: wrong key ***"

    run(test())


@pytest.mark.parametrize(
    ("status", "expected", "code", "retry_after_s"),
    [
        (400, 400, "invalid_value", None),
        (429, 503, "upstream_busy", 9.0),
        (500, 503, "upstream_failed", 9.0),
        (503, 503, "unavailable", 9.0),
        (404, 503, "upstream_refused", 9.0),
    ],
)
def test_failures(status: int, expected: int, code: str, retry_after_s: float | None) -> None:
    async def test(upstream: ScriptedUpstream, backend: HttpBackend) -> None:
        upstream.status, upstream.retry_after, upstream.error = status, "9", {"error": {"message": "so it is"}}
        with pytest.raises(ServeError, match="so it is") as caught:
            await ask(backend)
        error = caught.value
        assert (error.status, error.code, error.retry_after_s) == (expected, code, retry_after_s)
        assert backend.state.phase == ("restarting" if status == 503 else "ready")

    scripted(test, probing=replace(HASTY, idle_s=60.0))


def test_a_stream_that_breaks_off_is_no_answer() -> None:
    async def test(upstream: ScriptedUpstream, backend: HttpBackend) -> None:
        for upstream.breaks in (True, False):
            upstream.events = [event(chunk("Hel"))]
            with pytest.raises(ServeError) as caught:
                await ask(backend)
            assert (caught.value.status, caught.value.code) == (503, "backend_lost")
        upstream.events = [event(chunk("Hel")), event({"error": {"message": "out of memory", "code": 500}})]
        with pytest.raises(ServeError, match="out of memory"):
            await ask(backend)

    scripted(test)


def test_what_is_no_answer_is_a_failure() -> None:
    async def test(upstream: ScriptedUpstream, backend: HttpBackend) -> None:
        for nonsense in (b"data: what?\n\n", event(chunk("Hi", "content_filter")), b"data: [1]\n\n"):
            upstream.events = [nonsense]
            with pytest.raises(ServeError) as caught:
                await ask(backend)
            assert (caught.value.status, caught.value.code) == (500, "upstream_failed")

    scripted(test)


def test_leaving_early_ends_it_there() -> None:
    async def test(upstream: ScriptedUpstream, backend: HttpBackend) -> None:
        upstream.events, upstream.pause_s = [event(chunk("word "))] * 1000, 0.01
        answer = backend.ask(QUESTION)
        await anext(answer)
        assert backend.load.running == 1
        await answer.aclose()  # type: ignore[attr-defined]
        await until(lambda: upstream.cancelled == 1)
        assert backend.load.running == 0

    scripted(test)


def test_a_deadline_holds() -> None:
    async def test(upstream: ScriptedUpstream, backend: HttpBackend) -> None:
        upstream.events, upstream.pause_s = [event(chunk("word "))] * 1000, 0.02
        with pytest.raises(ServeError) as caught:
            await ask(backend, replace(QUESTION, deadline_s=0.1))
        assert caught.value.status == 504
        await until(lambda: upstream.cancelled == 1)

    scripted(test)


def test_what_it_would_skip_in_silence_is_refused() -> None:
    async def test(upstream: ScriptedUpstream, backend: HttpBackend) -> None:
        upstream.reads = {"top_k"}
        await ask(backend, replace(QUESTION, sampling=Sampling(1.0, top_k=4)))
        assert upstream.bodies[-1]["top_k"] == 4
        for sampling in (Sampling(1.0, min_p=0.1), Sampling(repetition_penalty=1.1)):
            with pytest.raises(ServeError) as caught:
                await ask(backend, replace(QUESTION, sampling=sampling))
            assert caught.value.status == 400 and caught.value.param in ("min_p", "repetition_penalty")
        with pytest.raises(ServeError, match="regex"):
            await ask(backend, replace(QUESTION, constraint=Constraint("regex", "a+")))
        with pytest.raises(ServeError) as caught:
            await ask(backend, replace(QUESTION, logprobs=2))
        assert (caught.value.status, caught.value.param) == (400, "logprobs")
        assert len(upstream.bodies) == 2

    scripted(test)


def test_a_constraint_that_is_not_kept_is_no_answer() -> None:
    async def test(upstream: ScriptedUpstream, backend: HttpBackend) -> None:
        upstream.reads = {"structured_outputs"}
        with pytest.raises(ServeError, match="did not keep it"):
            await ask(backend, replace(QUESTION, constraint=Constraint("regex", "a+")))

    scripted(test)


def test_log_probabilities_in_both_shapes() -> None:
    async def test(upstream: ScriptedUpstream, backend: HttpBackend) -> None:
        told = {"token": "é", "bytes": [195, 169], "logprob": -0.5, "id": 9}
        content = {"content": [{**told, "top_logprobs": [told, {"token": "e", "logprob": -1.0}]}]}
        upstream.events = [event(chunk("é", "stop", logprobs=content))]
        _, _, pieces = await ask(backend, replace(QUESTION, logprobs=1))
        (score,) = pieces[0].scores
        assert (score.token, score.bytes, score.token_id, score.logprob) == ("é", (195, 169), 9, -0.5)
        assert [one.token_id for one in score.top] == [9]
        old = {
            "tokens": ["a", "b"],
            "token_logprobs": [-1.0, -2.0],
            "top_logprobs": [{"a": -1.0, "c": -3.0}, {"b": -2.0}],
        }
        choice = {"text": "ab", "finish_reason": "length", "logprobs": old, "token_ids": [4, 5]}
        upstream.events = [event({"choices": [choice]})]
        _, ending, pieces = await ask(backend, replace(QUESTION, prompt="x", logprobs=1))
        assert [one.token_id for one in pieces[0].scores] == [4, 5] == list(pieces[0].token_ids)
        assert [one.token for one in pieces[0].scores[0].top] == ["a"]
        assert ending == Ending("length", Usage(0, 2))

    scripted(test)


def test_what_only_tells_more_is_left_out_where_it_is_refused() -> None:
    async def test(upstream: ScriptedUpstream, backend: HttpBackend) -> None:
        upstream.status, upstream.error = 400, {"error": {"message": "unknown field stream_options"}}
        with pytest.raises(ServeError):
            await ask(backend)
        assert ["stream_options" in body for body in upstream.bodies] == [True, False]
        upstream.status = 200
        await ask(backend)
        assert "stream_options" not in upstream.bodies[-1]

    scripted(test)


def test_adapters_and_embeddings_are_not_to_be_had() -> None:
    async def test(upstream: ScriptedUpstream, backend: HttpBackend) -> None:
        for refused in (backend.embed("mine", ["a"]), backend.load_adapter("a", "b"), backend.unload_adapter("a")):
            with pytest.raises(ServeError) as caught:
                await refused
            assert caught.value.status == 400

    scripted(test)


def test_a_key_does_not_travel_in_the_clear() -> None:
    with pytest.raises(UserError, match="plain http"):
        HttpBackend("http://example.com/v1", "theirs", name="mine", api_key="secret")


def test_takes_no_torch() -> None:
    modules = "whetstone.serve.delegate.http_backend, sys"
    left = "sorted({'torch', 'transformers', 'scipy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", f"import {modules}; print({left})"], capture_output=True, check=True)
    assert done.stdout.strip() == b"[]"
