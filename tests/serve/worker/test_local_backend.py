"""The real process with the model that ships with the package: what is asked of it is what its engine answers."""

import asyncio
import signal
import subprocess
import sys
import time
from collections.abc import Coroutine, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import psutil
import pytest
import torch
from peft import LoraConfig, get_peft_model

from whetstone.data.example import Message
from whetstone.engine.api import Completion, Constraint, Request, Sampling
from whetstone.engine.open import Opened, open_engine
from whetstone.models.load import load_weights
from whetstone.serve.errors import ServeError
from whetstone.serve.question import Ending, Piece, Question
from whetstone.serve.served_model import ServedModel
from whetstone.serve.worker.local_backend import LocalBackend
from whetstone.serve.worker.protocol import Opening
from whetstone.serve.worker.supervisor import Patience

BASE = "builtin:demo-base"
CONTEXT = 128
TURNS = (Message("user", "Correct the sentence: She go to school every day ."),)
GREEDY, WARM = Sampling(), Sampling(temperature=1.0)
Result = TypeVar("Result")


@dataclass
class Answer:
    pieces: list[Piece]
    ending: Ending

    @property
    def text(self) -> str:
        return "".join(piece.text for piece in self.pieces)

    @property
    def token_ids(self) -> tuple[int, ...]:
        return tuple(token_id for piece in self.pieces for token_id in piece.token_ids)


class Served:
    """A backend in a loop that several tests share."""

    def __init__(self, roots: Path) -> None:
        self.roots = roots
        self.backend = LocalBackend(
            Opening((BASE,), str(roots / "runs"), force=True, adapter_roots=(str(roots),)), Patience(first_pause_s=0.01)
        )
        self._runner = asyncio.Runner()
        self.run(self.backend.start())

    def run(self, work: Coroutine[Any, Any, Result]) -> Result:
        return self._runner.run(work)

    def ask(self, *questions: Question) -> list[Answer]:
        async def all_of_them() -> list[Answer]:
            return await asyncio.gather(*(answer(self.backend, one) for one in questions))

        return self.run(all_of_them())

    def refusal(self, question: Question) -> ServeError:
        with pytest.raises(ServeError) as refused:
            self.ask(question)
        return refused.value

    async def be_ready(self) -> None:
        async with asyncio.timeout(60):
            while self.backend.state.phase != "ready":
                assert self.backend.state.phase != "failed", self.backend.state.last_error
                await asyncio.sleep(0.01)

    def end(self) -> None:
        self.run(self.backend.close())
        self._runner.close()


async def answer(backend: LocalBackend, question: Question) -> Answer:
    *pieces, ending = [one async for one in backend.ask(question)]
    assert isinstance(ending, Ending)
    return Answer([piece for piece in pieces if isinstance(piece, Piece)], ending)


def question(prompt: tuple[Message, ...] | str | tuple[int, ...] = TURNS, **named: Any) -> Question:
    asked = Question("demo-base", prompt, None, GREEDY, 0)
    return replace(asked, **named)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    # Threads of two processes would wait for each other longer than so small a model computes.
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("OMP_NUM_THREADS", "1")
        served = Served(tmp_path_factory.mktemp("roots"))
        yield served
        served.end()
    assert psutil.Process().children() == []


@pytest.fixture(scope="module")
def opened(served: Served, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Opened]:
    """The same model here, opened while the process opens it."""
    opened = open_engine(BASE, runs=tmp_path_factory.mktemp("runs"))
    yield opened
    opened.close()


@pytest.fixture
def ready(served: Served) -> Served:
    served.run(served.be_ready())
    return served


def completion(opened: Opened, token_ids: Sequence[int], asked: Question) -> Completion:
    most = asked.max_new_tokens or CONTEXT - len(token_ids)
    request = Request(tuple(token_ids), most, asked.sampling, asked.seed, stop=asked.stop, logprobs=asked.logprobs)
    (done,) = opened.engine.generate([request])
    return done


def test_what_is_asked_together_is_answered_as_the_engine_answers_each(opened: Opened, ready: Served) -> None:
    assert opened.template is not None
    template = opened.template
    text = "The cat sit on"
    text_ids = tuple(template.tokenizer(text)["input_ids"])
    asked = [
        (question(), template.prompt_ids(TURNS)),
        (question(sampling=WARM, seed=1), template.prompt_ids(TURNS)),
        (question(sampling=WARM, seed=2), template.prompt_ids(TURNS)),
        (question(text, max_new_tokens=9), text_ids),
        (question(text, max_new_tokens=20, stop=("s",)), text_ids),
        (question(text_ids, sampling=WARM, seed=3), text_ids),
        (
            question((*TURNS, Message("assistant", "é 漢"), *TURNS)),
            template.prompt_ids((*TURNS, Message("assistant", "é 漢"), *TURNS)),
        ),
        (
            question("héllo 漢字 😀 ", sampling=Sampling(temperature=4.0), seed=4),
            template.tokenizer("héllo 漢字 😀 ")["input_ids"],
        ),
    ]
    answers = ready.ask(*(one for one, _ in asked))
    for (one, token_ids), said in zip(asked, answers, strict=True):
        expected = completion(opened, token_ids, one)
        assert (said.text, said.token_ids) == (expected.text, expected.token_ids)
        assert said.ending.finish_reason == expected.finish_reason
        assert said.ending.usage.prompt_tokens == expected.usage.prompt_tokens
        assert said.ending.usage.new_tokens == expected.usage.new_tokens
    assert any(piece.text == "" for said in answers for piece in said.pieces)


def test_logprobs_come_with_the_bytes_of_the_text(opened: Opened, ready: Served) -> None:
    assert opened.template is not None
    asked = question("漢 The cat", sampling=Sampling(temperature=3.0), seed=5, logprobs=2)
    (said,) = ready.ask(asked)
    expected = completion(opened, opened.template.tokenizer("漢 The cat")["input_ids"], asked)
    scores = [score for piece in said.pieces for score in piece.scores]
    assert [len(piece.scores) for piece in said.pieces] == [len(piece.token_ids) for piece in said.pieces]
    assert expected.logprobs is not None
    assert [score.token_id for score in scores] == [logprob.token_id for logprob in expected.logprobs]
    logprobs = [logprob.logprob for logprob in expected.logprobs]
    assert [score.logprob for score in scores] == pytest.approx(logprobs, abs=1e-4)
    assert [[other.token_id for other in score.top] for score in scores] == [
        [token_id for token_id, _ in logprob.top] for logprob in expected.logprobs
    ]
    joined = b"".join(bytes(score.bytes) for score in scores if score.bytes is not None)
    assert joined.decode("utf-8", "replace") == said.text


def test_an_answer_is_what_its_constraint_says(ready: Served) -> None:
    pytest.importorskip("llguidance")
    (said,) = ready.ask(question(constraint=Constraint("regex", "yes|no")))
    assert said.text in ("yes", "no")
    assert ready.refusal(question(constraint=Constraint("regex", "("))).status == 400


def test_a_length_is_as_usual_or_what_the_context_leaves(ready: Served) -> None:
    prompt = tuple(range(10, 110))
    said = ready.ask(question(prompt, sampling=Sampling(temperature=5.0), seed=1))[0]
    assert said.ending.usage.new_tokens <= CONTEXT - 100
    refused = ready.refusal(question(prompt, max_new_tokens=29))
    assert (refused.status, refused.code, refused.param) == (400, "context_length_exceeded", "max_tokens")
    assert all(number in refused.message for number in ("100", "29", "128", "28"))


@pytest.mark.parametrize(
    ("wrong", "status", "code", "param"),
    [
        ({"prompt": tuple(range(10, 10 + CONTEXT))}, 400, "context_length_exceeded", "prompt"),
        ({"prompt": "x" * 1_000_000}, 400, "context_length_exceeded", "prompt"),
        ({"prompt": (Message("user", "a word " * 100_000),)}, 400, "context_length_exceeded", "messages"),
        ({"prompt": (1, 99_999)}, 400, "invalid_value", None),
        ({"prompt": (1, -5)}, 400, "invalid_value", None),
        ({"prompt": (1, 2**80)}, 400, "invalid_value", None),
        ({"prompt": ()}, 400, "invalid_value", "prompt"),
        ({"prompt": "half a pair \ud83d"}, 400, "invalid_value", None),
        ({"max_new_tokens": 0}, 400, "invalid_value", None),
        ({"sampling": Sampling(temperature=float("nan"))}, 400, "invalid_value", None),
        ({"model": "nobody"}, 404, "model_not_found", "model"),
    ],
)
def test_a_wrong_question_is_refused_and_breaks_nothing(
    ready: Served, wrong: dict[str, Any], status: int, code: str, param: str | None
) -> None:
    refused = ready.refusal(question(**wrong))
    assert (refused.status, refused.code, refused.param) == (status, code, param)
    assert ready.backend.state.restarts == 0
    assert ready.ask(question())[0].text


def test_a_deadline_that_passes_is_an_error_with_its_name(ready: Served) -> None:
    late = ready.refusal(question("a", sampling=Sampling(temperature=5.0), deadline_s=0.001))
    assert (late.status, late.code) == (504, "deadline_exceeded")


def test_leaving_early_ends_the_answer_in_the_process(ready: Served) -> None:
    async def leave() -> int:
        before = ready.backend.load.new_tokens
        for seed in range(20):
            pieces = ready.backend.ask(question("a", sampling=Sampling(temperature=5.0), seed=seed))
            await anext(pieces)
            await pieces.aclose()  # type: ignore[attr-defined]
        assert ready.backend.load.running == 0
        async with asyncio.timeout(10):
            while ready.backend.load.new_tokens == before:
                await asyncio.sleep(0.05)
        return ready.backend.load.new_tokens - before

    # Twenty whole answers at this temperature have about 1,500 tokens.
    assert ready.run(leave()) < 1000


def test_signals_are_left_to_the_server(ready: Served) -> None:
    (child,) = psutil.Process().children()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        child.send_signal(number)
    assert ready.ask(question())[0].text
    assert ready.backend.state.restarts == 0


def test_load_says_what_was_done(ready: Served) -> None:
    async def counted() -> None:
        before = ready.backend.load.prompt_tokens
        said = await answer(ready.backend, question("a b c"))
        async with asyncio.timeout(10):
            while ready.backend.load.prompt_tokens - before < said.ending.usage.prompt_tokens:
                await asyncio.sleep(0.02)

    ready.run(counted())
    load = ready.backend.load
    assert load.memory_bytes is not None and load.memory_bytes > 10**8
    assert load.cache_bytes is not None and load.cache_tokens is not None
    assert load.new_tokens > 0 and load.tokens_per_s > 0


def test_vectors_are_those_of_the_engine(opened: Opened, ready: Served) -> None:
    assert opened.template is not None
    texts: list[str | tuple[int, ...]] = ["the cat", (40, 41, 42), "the dog"]
    vectors = ready.run(ready.backend.embed("demo-base", texts))
    encode = opened.template.tokenizer
    ids: list[list[int]] = [encode(one)["input_ids"] if isinstance(one, str) else list(one) for one in texts]
    assert [one.tokens for one in vectors] == [len(one) for one in ids]
    for vector, token_ids in zip(vectors, ids, strict=True):
        assert list(vector.vector) == pytest.approx(opened.embed(token_ids), abs=1e-5)
    with pytest.raises(ServeError) as refused:
        ready.run(ready.backend.embed("demo-base", ["fine", "x" * 10_000]))
    assert refused.value.status == 400


@pytest.fixture(scope="module")
def adapter(served: Served, opened: Opened) -> str:
    """The name of an adapter below the root, which nobody judged."""
    assert opened.weights is not None
    model = load_weights(opened.weights.folder, dtype="float32", device=torch.device("cpu"))
    torch.manual_seed(1)
    adapted = get_peft_model(model, LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False))
    adapted.save_pretrained(served.roots / "adapters" / "odd")
    return "adapters/odd"


def test_adapters_come_while_others_answer_and_stay_when_the_process_is_killed(ready: Served, adapter: str) -> None:
    backend = ready.backend
    (base,) = ready.ask(question())

    async def load() -> ServedModel:
        others = asyncio.create_task(answer(backend, question()))
        model = await backend.load_adapter("odd", adapter)
        assert (await others).text == base.text
        return model

    async def kill() -> None:
        asking = asyncio.create_task(answer(backend, question("a", sampling=Sampling(temperature=5.0))))
        await asyncio.sleep(0)
        psutil.Process().children()[0].kill()
        with pytest.raises(ServeError) as lost:
            await asking
        assert (lost.value.status, lost.value.code) == (503, "backend_lost")
        assert set(backend.models) == {"demo-base", "odd"}
        await ready.be_ready()

    async def unload() -> ServeError:
        asking = asyncio.create_task(answer(backend, question("a", model="odd", sampling=Sampling(temperature=5.0))))
        async with asyncio.timeout(10):
            while not backend.load.running:
                await asyncio.sleep(0)
        await backend.unload_adapter("odd")
        with pytest.raises(ServeError) as ended:
            await asking
        return ended.value

    model = ready.run(load())
    assert (model.name, model.ref, backend.models["odd"]) == ("odd", adapter, model)
    assert model.adapter_sha256 is not None and model.proof.forced is not None
    (odd,) = ready.ask(question(model="odd"))
    assert odd.text != base.text
    with pytest.raises(ServeError) as refused:
        ready.run(backend.load_adapter("odd", adapter))
    assert (refused.value.status, refused.value.code, refused.value.param) == (409, "name_taken", "name")

    ready.run(kill())
    again = ready.ask(question(), question(model="odd"))
    assert [(one.text, one.token_ids) for one in again] == [(one.text, one.token_ids) for one in (base, odd)]
    assert backend.state.restarts == 1

    ended = ready.run(unload())
    assert (ended.status, ended.code) == (404, "model_not_found")
    assert list(backend.models) == ["demo-base"]
    assert ready.refusal(question(model="odd")).status == 404
    assert ready.ask(question())[0].text == base.text
    ready.run(backend.load_adapter("odd-again", adapter))
    assert ready.ask(question(model="odd-again"))[0].text == odd.text


@pytest.mark.parametrize("source", ["../secret", "/etc", "nothing", "run:nothing", "runs"])
def test_adapters_that_may_not_be_loaded_are_refused(ready: Served, source: str) -> None:
    with pytest.raises(ServeError) as refused:
        ready.run(ready.backend.load_adapter("another", source))
    assert (refused.value.status, refused.value.code, refused.value.param) == (400, "adapter_refused", "source")
    assert "another" not in ready.backend.models


def test_a_model_that_the_server_was_started_with_stays(ready: Served) -> None:
    with pytest.raises(ServeError) as refused:
        ready.run(ready.backend.unload_adapter("demo-base"))
    assert refused.value.status == 409
    assert ready.ask(question())[0].text


def test_the_process_ends_with_a_server_that_is_killed() -> None:
    program = """
import asyncio
from whetstone.serve.worker.local_backend import LocalBackend
from whetstone.serve.worker.protocol import Opening

async def serve():
    backend = LocalBackend(Opening(("builtin:demo-base",), "runs", force=True))
    await backend.start()
    while backend.state.said != "STAGE":
        await asyncio.sleep(0.01)
    print(backend._supervisor._child.pid, flush=True)
    await asyncio.sleep(60)

asyncio.run(serve())
""".replace("STAGE", "starting")
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        worker = psutil.Process(int(server.stdout.readline()))
        server.kill()
    began = time.monotonic()
    while worker.is_running() and worker.status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() - began < 10
        time.sleep(0.01)
