"""Who answers: fallbacks, second attempts, and answers that were given before."""

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import httpx
import pytest

from scripted_backend import ScriptedBackend, model_named
from whetstone.serve.backend import BackendState
from whetstone.serve.errors import ServeError
from whetstone.serve.question import Ending, Piece, Question
from whetstone.serve.served_model import Usual
from whetstone.serve_section import Validate

Start = Callable[..., Any]


class BreaksOff(ScriptedBackend):
    """Says two words and is not there any more."""

    async def ask(self, question: Question) -> AsyncIterator[Piece | Ending]:
        async for piece in super().ask(question):
            yield piece
            if len(self.questions) > 0 and isinstance(piece, Piece) and piece.text.startswith(" "):
                raise ServeError.unavailable("the process is gone", 1.0, "backend_lost")


def error_of(response: httpx.Response) -> tuple[int, str, str | None]:
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return response.status_code, error["code"], error["param"]


def test_the_first_that_is_ready_answers(serving: Start) -> None:
    first, second = ScriptedBackend(name="first"), ScriptedBackend("spare", name="second")
    server = serving(first, fallbacks=[second])
    assert server.ask().headers["x-whetstone-backend"] == "first"
    first.state = BackendState("restarting", retry_after_s=2.0)
    response = server.ask()
    assert response.headers["x-whetstone-backend"] == "second"
    assert response.json()["model"] == "spare"
    assert [question.model for question in second.questions] == ["spare"]
    assert [(record.backend, record.model) for record in server.told(2)] == [("first", "demo"), ("second", "demo")]


@pytest.mark.parametrize("stream", [False, True])
def test_one_that_fails_before_the_first_piece_is_passed_over(serving: Start, stream: bool) -> None:
    first, second = ScriptedBackend(name="first"), ScriptedBackend(name="second")
    first.failure = ServeError.unavailable("too much to do", 3.0)
    response = serving(first, fallbacks=[second]).ask(stream=stream)
    assert response.headers["x-whetstone-backend"] == "second"


def test_whole_answers_change_backends_until_their_end(serving: Start) -> None:
    server = serving(BreaksOff(name="first"), fallbacks=[ScriptedBackend(name="second")])
    response = server.ask(n=2)
    assert response.headers["x-whetstone-backend"] == "second"
    assert [choice["message"]["content"] for choice in response.json()["choices"]] == ["ONE TWO THREE"] * 2


def test_a_fault_of_the_request_is_not_tried_elsewhere(serving: Start) -> None:
    first, second = ScriptedBackend(name="first"), ScriptedBackend(name="second")
    first.failure = ServeError.invalid("max_tokens: too long", "max_tokens", "context_length_exceeded")
    assert error_of(serving(first, fallbacks=[second]).ask()) == (400, "context_length_exceeded", "max_tokens")
    assert second.questions == []


def test_nobody_is_ready(serving: Start) -> None:
    first, second = ScriptedBackend(models={}), ScriptedBackend(models={}, name="second")
    first.state = BackendState("starting", "loading weights", retry_after_s=2.6)
    second.state = BackendState("failed")
    response = serving(first, fallbacks=[second]).ask()
    assert error_of(response) == (503, "starting", None)
    assert response.json()["error"]["message"] == "scripted is starting (loading weights)"
    assert response.headers["retry-after"] == "3"


def test_while_models_are_not_known_a_fallback_answers_for_any(serving: Start) -> None:
    first = ScriptedBackend(models={})
    first.state = BackendState("starting", retry_after_s=1.0)
    server = serving(first, fallbacks=[ScriptedBackend("spare", name="second")])
    assert server.ask().json()["model"] == "spare"
    assert server.record().model == ""


def test_a_model_that_nobody_serves(serving: Start) -> None:
    server = serving(ScriptedBackend(), fallbacks=[ScriptedBackend("spare")])
    response = server.ask(model="demmo")
    assert error_of(response) == (404, "model_not_found", "model")
    assert "did you mean 'demo'?" in response.json()["error"]["message"]
    assert (server.record().outcome, server.record().model, server.record().status) == ("model_not_found", "", 404)


def test_two_that_serve_different_models(serving: Start) -> None:
    first, second = ScriptedBackend("a", name="first"), ScriptedBackend("b", name="second")
    server = serving(first, second)
    assert server.ask(model="b").headers["x-whetstone-backend"] == "second"
    second.state = BackendState("restarting", retry_after_s=1.0)
    assert error_of(server.ask(model="b")) == (503, "restarting", None)
    assert first.questions == []


class Attempts:
    """Answers with one thing after another."""

    def __init__(self, *answers: str) -> None:
        self._answers: Iterator[str] = iter(answers)

    def __call__(self, question: Question) -> str:
        return next(self._answers)


def validated(*answers: str, **must: Any) -> ScriptedBackend:
    model = model_named("demo").model_copy(update={"validation": Validate(**must)})
    return ScriptedBackend(models={"demo": model}, answer=Attempts(*answers))


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_that_is_not_what_it_must_be_is_asked_for_again(serving: Start, stream: bool) -> None:
    backend = validated("no way", "not so", "yes", regex="yes")
    server = serving(backend)
    response = server.ask(stream=stream, seed=3)
    assert response.headers["x-whetstone-invalid"] == "2"
    assert "no way" not in response.text
    assert "not so" not in response.text
    assert '"content":"yes"' in response.text
    first, second, third = backend.questions
    assert first.sampling.temperature == 0
    assert second.sampling.temperature == third.sampling.temperature == 0.7
    assert len({first.seed, second.seed, third.seed}) == 3
    assert (server.record().invalid, server.record().new_tokens, server.record().text) == (2, 1, "yes")


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_that_is_never_what_it_must_be(serving: Start, stream: bool) -> None:
    backend = validated("a", "b", "c", regex="yes", retries=2)
    server = serving(backend)
    response = server.ask(stream=stream)
    assert error_of(response) == (422, "answer_invalid", None)
    assert "none of 3 answers was what it must be" in response.json()["error"]["message"]
    assert (server.record().outcome, server.record().invalid) == ("answer_invalid", 3)


def test_the_server_says_what_answers_must_be_where_the_model_does_not(serving: Start) -> None:
    server = serving(ScriptedBackend(), validate={"not_prompt": True, "retries": 0})
    assert error_of(server.ask())[:2] == (422, "answer_invalid")


def test_answers_that_were_given_before(serving: Start) -> None:
    backend = ScriptedBackend()
    server = serving(backend, cache_bytes=10_000)
    first, second = server.ask(), server.ask(seed=5)
    assert [one.headers["x-whetstone-cache"] for one in (first, second)] == ["miss", "hit"]
    assert len(backend.questions) == 1
    for name in ("choices", "usage", "system_fingerprint", "model"):
        assert first.json()[name] == second.json()[name]
    streamed = server.ask(stream=True, return_token_ids=True)
    assert streamed.headers["x-whetstone-cache"] == "hit"
    assert '"content":"ONE TWO THREE"},"logprobs":null,"finish_reason":null,"token_ids":[5,6,7]' in streamed.text
    assert [record.cached for record in server.told(3)] == [False, True, True]
    assert server.records[2].new_tokens == 3


def test_a_stream_is_remembered_when_it_is_whole(serving: Start) -> None:
    backend = ScriptedBackend()
    server = serving(backend, cache_bytes=10_000)
    assert "x-whetstone-cache" in server.ask(stream=True).headers
    assert server.ask().headers["x-whetstone-cache"] == "hit"


@pytest.mark.parametrize("more", [{"temperature": 1}, {"n": 2}, {"logprobs": True}])
def test_answers_that_are_not_remembered(serving: Start, more: dict[str, Any]) -> None:
    backend = ScriptedBackend()
    server = serving(backend, cache_bytes=10_000)
    for _ in range(2):
        assert "x-whetstone-cache" not in server.ask(**more).headers
    assert len(backend.questions) == 2 * more.get("n", 1)


def test_a_second_attempt_is_not_remembered(serving: Start) -> None:
    server = serving(validated("no", "yes", "yes", regex="yes"), cache_bytes=10_000)
    assert [server.ask().headers["x-whetstone-cache"] for _ in range(3)] == ["miss", "miss", "hit"]


def test_a_model_that_is_sampled_by_default_is_not_remembered(serving: Start) -> None:
    model = model_named("demo").model_copy(update={"usual": Usual(temperature=0.5)})
    server = serving(ScriptedBackend(models={"demo": model}), cache_bytes=10_000)
    assert "x-whetstone-cache" not in server.ask().headers
