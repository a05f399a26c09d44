"""One request after the other, over a model that is a rule."""

import math
import time
from collections.abc import Sequence

import pytest
import torch
from tokenizers import AddedToken, Tokenizer, decoders, models
from transformers import PreTrainedTokenizerFast

from whetstone.engine.api import Constraint, Delta, Request, Sampling
from whetstone.engine.one_at_a_time import OneAtATime
from whetstone.errors import UserError

LETTERS = "abcdefghijklmnopqrstuvwxyz"
END = 26


def tokenizer() -> PreTrainedTokenizerFast:
    """A token for each letter."""
    backend = Tokenizer(models.BPE(vocab={letter: index for index, letter in enumerate(LETTERS)}, merges=[]))
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken("<end>", special=True)])
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<end>")


class Alphabet:
    """Says the letter after the last one, and ends after z; remembers the sequence that it holds."""

    def __init__(self) -> None:
        self.reused_tokens = 0
        self.held: list[int] = []
        self.prompts: list[list[int]] = []
        self.adapters: list[str | None] = []
        self.broken_after: int | None = None
        self.is_closed = False

    def start(self, token_ids: Sequence[int], adapter: str | None) -> torch.Tensor:
        self.adapters.append(adapter)
        alike = 0
        while alike < min(len(self.held), len(token_ids) - 1) and self.held[alike] == token_ids[alike]:
            alike += 1
        self.reused_tokens = alike
        self.held = list(token_ids)
        self.prompts.append(self.held.copy())
        return self._logits()

    def advance(self, token_id: int) -> torch.Tensor:
        self.held.append(token_id)
        return self._logits()

    def close(self) -> None:
        self.is_closed = True

    def _logits(self) -> torch.Tensor:
        if self.held[-1] == self.broken_after:
            return torch.full((27,), math.nan)
        logits = torch.zeros(27)
        logits[self.held[-1] + 1] = 9.0
        return logits


class Listening:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.pieces: list[Delta] = []

    def __call__(self, piece: Delta) -> None:
        self.pieces.append(piece)


@pytest.fixture
def source() -> Alphabet:
    return Alphabet()


@pytest.fixture
def core(source: Alphabet) -> OneAtATime:
    return OneAtATime(source, tokenizer(), stop_ids=frozenset({END}), context_tokens=40, adapters=frozenset({"yours"}))


def asked(core: OneAtATime, request: Request) -> Listening:
    core.check(request)
    listening = Listening()
    core.submit(request, listening)
    return listening


def text_of(listening: Listening) -> str:
    completion = listening.pieces[-1].completion
    assert completion is not None
    assert completion.text == "".join(piece.text for piece in listening.pieces)
    return f"{completion.text} {completion.finish_reason}"


def test_requests_are_answered_in_their_order(core: OneAtATime, source: Alphabet) -> None:
    first, second = asked(core, Request((0, 1), 3)), asked(core, Request((23,), 9))
    steps = 1
    while core.step():
        steps += 1
        assert not second.pieces or first.pieces[-1].completion is not None
    assert (text_of(first), text_of(second)) == ("cde length", "yz stop")
    assert steps == 6
    assert source.prompts == [[0, 1], [23]]
    assert not core.step()


def test_what_was_reused_is_told(core: OneAtATime) -> None:
    listening = [asked(core, Request((3, 4, 5), 2)), asked(core, Request((3, 4, 5, 6, 9), 2))]
    while core.step():
        pass
    completions = [each.pieces[-1].completion for each in listening]
    assert [each.usage.reused_tokens for each in completions if each is not None] == [0, 4]


def test_a_cancelled_request_makes_room(core: OneAtATime, source: Alphabet) -> None:
    told = [Listening() for _ in range(3)]
    running, waiting, last = [core.submit(Request((n,), 9), each) for n, each in enumerate(told)]
    core.step()
    core.cancel(waiting)
    core.cancel(running)
    core.cancel(running)
    assert (text_of(told[0]), text_of(told[1])) == ("b cancelled", " cancelled")
    core.step()
    assert last.token_ids == [3]
    assert source.prompts == [[0], [2]]


def test_a_late_request_is_given_up(core: OneAtATime, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.monotonic()
    running = asked(core, Request((0,), 9, deadline_s=now + 100))
    waiting = asked(core, Request((0,), 9, deadline_s=now + 100))
    patient = asked(core, Request((21,), 9))
    core.step()
    monkeypatch.setattr(time, "monotonic", lambda: now + 101)
    while core.step():
        pass
    assert [text_of(each) for each in (running, waiting, patient)] == ["b deadline", " deadline", "wxyz stop"]


def test_logits_that_are_not_numbers_are_an_error_of_their_request(core: OneAtATime, source: Alphabet) -> None:
    source.broken_after = 4
    broken, sound = asked(core, Request((2,), 9)), asked(core, Request((22,), 9))
    while core.step():
        pass
    assert (text_of(broken), text_of(sound)) == ("de error", "xyz stop")
    completion = broken.pieces[-1].completion
    assert completion is not None and completion.error is not None and "not numbers" in completion.error


def test_a_constraint_ends_the_answer_when_it_is_met(core: OneAtATime) -> None:
    bound = asked(core, Request((2,), 9, constraint=Constraint("regex", "d[x-z]{2}")))
    while core.step():
        pass
    assert text_of(bound) == "dxy stop"
    assert [piece.token_id for piece in bound.pieces][:3] == [3, 23, 24]


def test_sampling_is_obeyed(core: OneAtATime) -> None:
    wild = asked(core, Request((0,), 20, Sampling(50.0), seed=3, logprobs=1))
    while core.step():
        pass
    completion = wild.pieces[-1].completion
    assert completion is not None and completion.logprobs is not None
    assert len(completion.logprobs) == len(completion.token_ids)
    assert completion.text != LETTERS[1:21]


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        (Request((1,) * 30, 11), "a prompt of 30 tokens and an answer of 11 exceed the context of 40"),
        (Request((), 1), "without tokens"),
        (Request((1,), 0), "max_new_tokens: 0"),
        (Request((1,), 1, adapter="mine"), "no adapter 'mine'"),
        (Request((1,), 1, constraint=Constraint("regex", "(")), "constraint.regex"),
    ],
)
def test_what_cannot_be_answered_is_refused(core: OneAtATime, request_: Request, said: str) -> None:
    with pytest.raises(UserError, match=said):
        core.check(request_)
    core.check(Request((1,) * 30, 10))


def test_an_adapter_is_named_to_the_source(core: OneAtATime, source: Alphabet) -> None:
    asked(core, Request((1,), 1, adapter="yours"))
    asked(core, Request((1,), 1))
    while core.step():
        pass
    assert source.adapters == ["yours", None]


def test_closing_closes_the_source(core: OneAtATime, source: Alphabet) -> None:
    core.close()
    assert source.is_closed
