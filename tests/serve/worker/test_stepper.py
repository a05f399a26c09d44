"""The loop of the process, over an engine whose model is a rule and which answers one question at a time."""

import os
import queue
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from whetstone.data.template import CHATML, Template
from whetstone.engine.api import Request, Sampling
from whetstone.engine.one_at_a_time import OneAtATime
from whetstone.engine.open import Opened
from whetstone.engine.provenance import Provenance
from whetstone.engine.worker import Worker
from whetstone.serve.question import Ending, Piece, Question
from whetstone.serve.served_model import ServedModel
from whetstone.serve.worker.hosted import Hosted
from whetstone.serve.worker.pipes import EndOfServer, Pipe
from whetstone.serve.worker.protocol import Busy, Failed, read_from_worker, read_told
from whetstone.serve.worker.stepper import Stepper


def tokenizer() -> PreTrainedTokenizerFast:
    backend = Tokenizer(models.BPE(vocab={chr(97 + index): index for index in range(26)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken(token, special=True) for token in ("<|im_end|>", "<|im_start|>")])
    made = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|im_end|>")
    made.chat_template = CHATML
    return made


class Alphabet:
    """Says the letter after the last one; ``steps`` says how many letters may be said from now on."""

    def __init__(self) -> None:
        self.reused_tokens = 0
        self.steps: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def start(self, token_ids: Sequence[int], adapter: str | None) -> torch.Tensor:
        return self.advance(token_ids[-1])

    def advance(self, token_id: int) -> torch.Tensor:
        step = self.steps.get(timeout=10)
        if isinstance(step, Exception):
            raise step
        logits = torch.zeros(28)
        logits[(token_id + 1) % 26] = step
        return logits

    def close(self) -> None:
        pass


class Process:
    """The stepper in a thread, and what it says."""

    def __init__(self) -> None:
        self.source = Alphabet()
        made = tokenizer()
        core = OneAtATime(self.source, made, stop_ids=frozenset((26,)), context_tokens=1000)
        engine = Worker(core)
        opened = Opened(engine, Template(made), Provenance("run:demo", "torch", "a test"), context_tokens=1000)
        model = ServedModel(name="demo", ref="run:demo", engine="torch", origin="a test", context_tokens=1000)
        self.hosted = Hosted.of(model, opened)
        reading, self.writing = os.pipe()
        self._said = Pipe(reading, self.writing).lines()
        self.reading = reading
        self.stepper = Stepper(Pipe(reading, self.writing), {"demo": self.hosted}, lambda: 0.0)
        self.ended: BaseException | None = None
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.stepper.run()
        except BaseException as error:
            self.ended = error

    def ask(self, asked_id: int, text: str, most: int = 900, deadline_s: float | None = None, **named: Any) -> None:
        question = Question("demo", text, most, Sampling(), 0, **named)
        request = self.hosted.request(question, deadline_s)
        self.stepper.do(lambda: self.stepper.begin(asked_id, self.hosted, request))

    def go(self, steps: int) -> None:
        for _ in range(steps):
            self.source.steps.put(9.0)

    def hear(self) -> Any:
        """The next thing that it says, but for how it is."""
        while True:
            heard = read_from_worker(next(self._said))
            if not isinstance(heard, Busy):
                return heard

    def pieces(self, count: int) -> list[tuple[int, Piece, Ending | None]]:
        told = [one for _ in range(count) for one in self.hear()]
        return [(one[0], *read_told(one)) for one in told]

    def end(self) -> None:
        def leave() -> None:
            raise EndOfServer

        self.stepper.put(leave)
        self.go(1)
        self._thread.join(10)
        assert not self._thread.is_alive()
        for end in (self.reading, self.writing):
            os.close(end)


@pytest.fixture
def process() -> Iterator[Process]:
    process = Process()
    yield process
    process.end()


def test_each_step_is_one_line_and_the_last_one_has_the_end(process: Process) -> None:
    process.ask(7, "ab", 3)
    process.go(3)
    told = process.pieces(3)
    assert [(asked, piece.text, piece.token_ids) for asked, piece, _ in told] == [
        (7, "c", (2,)),
        (7, "d", (3,)),
        (7, "e", (4,)),
    ]
    assert [ending is None for _, _, ending in told] == [True, True, False]
    ending = told[-1][2]
    assert ending is not None and (ending.finish_reason, ending.usage.prompt_tokens) == ("length", 2)


def test_an_answer_that_nobody_waits_for_leaves_its_place_to_the_next(process: Process) -> None:
    process.ask(1, "a")
    process.go(1)
    assert process.pieces(1)[0][0] == 1
    process.stepper.put(lambda: process.stepper.drop(1))
    process.go(1)
    process.ask(2, "x", 2)
    process.go(2)
    told = process.pieces(2)
    while told[0][0] == 1:  # a step that had begun before the first was dropped
        told = [*told[1:], *process.pieces(1)]
    assert [(asked, piece.text) for asked, piece, _ in told] == [(2, "y"), (2, "z")]


def test_a_deadline_that_passed_is_said_and_frees_the_place(process: Process) -> None:
    process.ask(1, "a", deadline_s=0.0)
    failed = process.pieces(1)
    late = process.hear()
    assert failed[0][2] is None
    assert isinstance(late, Failed) and (late.id, late.status, late.code) == (1, 504, "deadline_exceeded")
    process.ask(2, "x", 1)
    process.go(1)
    assert process.pieces(1)[0][1].text == "y"


def test_an_answer_that_fails_is_an_error_and_the_others_go_on(process: Process) -> None:
    process.ask(1, "a")
    process.source.steps.put(float("nan"))
    process.pieces(1)
    failed = process.hear()
    assert isinstance(failed, Failed) and (failed.id, failed.status, failed.code) == (1, 500, "answer_failed")
    process.ask(2, "x", 1)
    process.go(1)
    assert process.pieces(1)[0][1].text == "y"


def test_forgetting_a_model_ends_its_answers_and_begins_no_others(process: Process) -> None:
    process.ask(1, "a")
    process.go(1)
    process.pieces(1)
    process.stepper.put(lambda: process.stepper.forget("demo"))
    process.go(1)
    told = process.hear()
    while not isinstance(told, Failed):  # a step that had begun before
        told = process.hear()
    assert (told.id, told.status, told.code) == (1, 404, "model_not_found")
    process.ask(2, "x", 1)
    refused = process.hear()
    assert isinstance(refused, Failed) and (refused.id, refused.status) == (2, 404)


def test_another_thread_may_step_a_lent_engine_and_all_are_told(process: Process) -> None:
    process.go(100)
    with process.stepper.lending(process.hosted.engine):
        process.ask(1, "a", 3)
        (completion,) = process.hosted.engine.generate([Request((0,), 2)])
        assert completion.text == "bc"
        told = process.pieces(1)
        while told[-1][2] is None:
            told += process.pieces(1)
    assert "".join(piece.text for _, piece, _ in told) == "bcd"


def test_an_engine_that_breaks_ends_the_process(process: Process) -> None:
    process.ask(1, "a")
    process.source.steps.put(RuntimeError("out of memory"))
    process._thread.join(10)
    assert isinstance(process.ended, RuntimeError)
