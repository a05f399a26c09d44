"""Events: whatever the pieces are, clients read the text that was said."""

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from openai.types import Completion
from openai.types.chat import ChatCompletionChunk

from whetstone.engine.api import Usage
from whetstone.engine.http_wire import EventParser
from whetstone.serve.api.chat import ChatEvents
from whetstone.serve.api.completions import CompletionEvents
from whetstone.serve.api.heard import Heard
from whetstone.serve.api.stream import Envelope, error_event, usage_of
from whetstone.serve.api.together import Said
from whetstone.serve.errors import ServeError
from whetstone.serve.question import Ending, Piece, TokenScore

ENVELOPE = Envelope("id-1", "chat.completion.chunk", 5, 'a "model"\n', "f" * 16)
COMPLETION = replace(ENVELOPE, object="text_completion")

_TEXTS = st.text(alphabet=st.characters(codec="utf-8") | st.sampled_from('"\\\n\r\u2028\x00é€😀'), max_size=12)


def score(token: str) -> TokenScore:
    return TokenScore(
        token,
        tuple(token.encode()),
        5,
        -0.5,
        (TokenScore(token, None, 5, -0.5), TokenScore("", None, 6, -float("inf"))),
    )


@st.composite
def _said(draw: st.DrawFn) -> list[Said]:
    """Pieces of one to three answers, mixed up."""
    answers = [Heard(index, "") for index in range(draw(st.integers(1, 3)))]
    left: list[list[Piece | Ending]] = []
    for _ in answers:
        pieces = [
            Piece(text, tuple(range(tokens)), tuple(score(text) for _ in range(tokens)))
            for text, tokens in draw(st.lists(st.tuples(_TEXTS, st.integers(0, 2)), max_size=5))
        ]
        reason: Any = draw(st.sampled_from(["stop", "length"]))
        left.append([*pieces, Ending(reason, Usage(3, sum(len(piece.token_ids) for piece in pieces), 1))])
    said = []
    while any(left):
        index = draw(st.sampled_from([index for index, pieces in enumerate(left) if pieces]))
        piece = left[index].pop(0)
        answers[index].add(piece)
        said.append((answers[index], piece))
    return said


def batches(said: Sequence[Said], size: int) -> list[Sequence[Said]]:
    return [said[start : start + size] for start in range(0, len(said), size)]


def read(stream: bytes) -> list[str]:
    parser = EventParser()
    return [*parser.feed(stream), *parser.end()]


@given(_said(), st.integers(1, 5), st.booleans(), st.booleans(), st.booleans())
def test_the_deltas_of_a_chat_are_its_text(
    said: list[Said], size: int, usage: bool, scores: bool, token_ids: bool
) -> None:
    heard = sorted({id(one): one for one, _ in said}.values(), key=lambda one: one.index)
    events = ChatEvents(ENVELOPE, len(heard), usage=usage, scores=scores, token_ids=token_ids)
    stream = events.opening() + b"".join(map(events.said, batches(said, size))) + events.closing(heard, 1)
    *data, done = read(stream)
    assert done == "[DONE]"
    chunks = [ChatCompletionChunk.model_validate_json(one) for one in data]
    assert {chunk.model for chunk in chunks} == {ENVELOPE.model}
    if usage:
        last = json.loads(data.pop())
        assert last["choices"] == []
        assert last["usage"] == usage_of(heard, 1)
    choices = [json.loads(one)["choices"][0] for one in data]
    for one in heard:
        own = [choice for choice in choices if choice["index"] == one.index]
        assert own[0]["delta"] == {"role": "assistant", "content": ""}
        assert "".join(choice["delta"].get("content", "") for choice in own) == one.text
        assert [choice["finish_reason"] for choice in own[:-1]] == [None] * (len(own) - 1)
        assert one.ending is not None
        assert (own[-1]["delta"], own[-1]["finish_reason"]) == ({}, one.ending.finish_reason)
        if scores:
            told = [token for choice in own for token in (choice["logprobs"] or {"content": []})["content"]]
            assert [token["token"] for token in told] == [score.token for score in one.scores]
        if token_ids:
            assert [token for choice in own for token in choice.get("token_ids", [])] == one.token_ids


@given(_said(), st.integers(1, 5), st.booleans())
def test_the_deltas_of_a_completion_are_its_text(said: list[Said], size: int, scores: bool) -> None:
    heard = sorted({id(one): one for one, _ in said}.values(), key=lambda one: one.index)
    events = CompletionEvents(COMPLETION, len(heard), scores=scores)
    stream = events.opening() + b"".join(map(events.said, batches(said, size))) + events.closing(heard, 1)
    *data, done = read(stream)
    assert done == "[DONE]"
    chunks = [
        Completion.model_validate_json(one.replace('"finish_reason":null', '"finish_reason":"stop"')) for one in data
    ]
    for one in heard:
        own = [chunk.choices[0] for chunk in chunks if chunk.choices[0].index == one.index]
        assert "".join(choice.text for choice in own) == one.text
        if scores:
            offsets = [offset for choice in own if choice.logprobs for offset in choice.logprobs.text_offset or ()]
            assert offsets == one.offsets
            assert offsets == sorted(offsets)


def test_events_that_say_nothing_are_left_out() -> None:
    heard = Heard(0, "")
    assert ChatEvents(ENVELOPE, 1).said([(heard, Piece("", (5,)))]) == b""
    assert ChatEvents(ENVELOPE, 1, token_ids=True).said([(heard, Piece("", (5,)))]).count(b"data: ") == 1


def test_half_a_character_is_told_as_it_is() -> None:
    (data,) = read(ChatEvents(ENVELOPE, 1).said([(Heard(0, ""), Piece("a\ud800"))]))
    assert json.loads(data)["choices"][0]["delta"]["content"] == "a\ud800"


def test_an_error_is_one_event() -> None:
    (data,) = read(error_event(ServeError(503, "gone", "line 1\nline 2")))
    assert json.loads(data)["error"]["message"] == "line 1\nline 2"
    assert json.loads(data)["error"]["type"] == "unavailable_error"


def test_a_token_that_cannot_come_has_a_number() -> None:
    heard = Heard(0, "")
    (data,) = read(ChatEvents(ENVELOPE, 1, scores=True).said([(heard, Piece("a", (1,), (score("a"),)))]))
    assert json.loads(data)["choices"][0]["logprobs"]["content"][0]["top_logprobs"][1]["logprob"] == -9999.0


def test_each_prompt_counts_once() -> None:
    heard = [Heard(index, "") for index in range(4)]
    for one in heard:
        one.add(Ending("stop", Usage(10 + one.index // 2, 2, 1)))
    assert usage_of(heard, 2) == {
        "prompt_tokens": 21,
        "completion_tokens": 8,
        "total_tokens": 29,
        "prompt_tokens_details": {"cached_tokens": 2},
    }
