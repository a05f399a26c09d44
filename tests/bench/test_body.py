"""Bodies of answers, cut anywhere."""

import itertools
import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from whetstone.bench.body import BodyError, StreamedBody, read_whole


def event(text: str | None = None, **fields: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": {} if text is None else {"content": text}, **fields}]}


def encoded(events: list[dict[str, Any]], newline: str = "\n", *, done: bool = True) -> bytes:
    lines = [f"data: {json.dumps(one, ensure_ascii=False)}{newline}{newline}" for one in events]
    return "".join(
        [f": a comment{newline}{newline}", *lines, f"data: [DONE]{newline}{newline}" if done else ""]
    ).encode()


def read(parts: list[bytes]) -> StreamedBody:
    body = StreamedBody()
    for number, part in enumerate(parts):
        body.take(part, float(number))
    body.close(float(len(parts)))
    return body


USAGE = {"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 3}}
ANSWER = [event("", role="assistant"), event("a"), event("b"), event(None, finish_reason="stop"), USAGE]


def test_the_first_token_is_the_first_text_and_not_the_first_event() -> None:
    body = read([encoded([one], done=False) for one in ANSWER] + [b"data: [DONE]\n\n"])
    assert body.piece_s == [1.0, 2.0]
    assert (body.count.prompt_tokens, body.count.completion_tokens) == (7, 3)
    assert body.ended and body.done


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning", "content"])
def test_what_is_thought_aloud_is_text(field: str) -> None:
    told = {"choices": [{"delta": {field: "hm"}, "finish_reason": None}]}
    assert read([encoded([event(""), told])]).piece_s == [0.0]


def test_completions_are_read_too() -> None:
    texts: list[dict[str, Any]] = [
        {"choices": [{"text": "a", "finish_reason": None}]},
        {"choices": [{"text": "", "finish_reason": "length"}]},
    ]
    body = read([encoded(texts, done=False)])
    assert body.piece_s == [0.0]
    assert body.ended and not body.done


def test_the_last_count_holds() -> None:
    counts = [{**event("a"), "usage": {"prompt_tokens": 7, "completion_tokens": tokens}} for tokens in (1, 2, 3)]
    assert read([encoded(counts)]).count.completion_tokens == 3


@given(
    st.lists(st.text().filter(lambda text: "[DONE]" not in text)),
    st.lists(st.integers(0, 600)),
    st.sampled_from(["\n", "\r\n"]),
)
@example(["\u2028 \x85 é 🙂", "", "\x00"], list(range(400)), "\r\n")
def test_no_cut_changes_what_is_read(texts: list[str], cuts: list[int], newline: str) -> None:
    data = encoded([*map(event, texts), event(None, finish_reason="stop"), USAGE], newline)
    body = read([data[start:end] for start, end in itertools.pairwise([0, *sorted(cuts), max(len(data), 600)])])
    assert len(body.piece_s) == sum(map(bool, texts))
    assert body.piece_s == sorted(body.piece_s)
    assert (body.count.prompt_tokens, body.count.completion_tokens) == (7, 3)


@given(st.binary())
def test_no_bytes_are_worse_than_a_bad_body(data: bytes) -> None:
    with pytest.raises(BodyError):
        read([data])


@pytest.mark.parametrize(
    ("data", "status", "said"),
    [
        (encoded(ANSWER[:2], done=False), "truncated", "ended before"),
        (b"", "truncated", "ended before"),
        (b'data: {"error": {"message": "out of memory", "code": 500}}\n\n', "error in stream", "out of memory"),
        (b"data: {oh\n\n", "malformed", "{oh"),
        (b'data: {"choices": [{"delta": {"content": 7}}]}\n\n', "malformed", "7"),
        (b"data: " + b"x" * (1 << 24) + b"y", "malformed", "longer than"),
    ],
)
def test_what_is_no_answer_is_named(data: bytes, status: str, said: str) -> None:
    with pytest.raises(BodyError, match=said) as raised:
        read([data])
    assert raised.value.status == status


def test_an_event_without_its_blank_line_is_read_at_the_end() -> None:
    assert read([encoded(ANSWER, done=False).rstrip(b"\n")]).count.completion_tokens == 3


def test_an_answer_in_one_piece() -> None:
    whole = {"choices": [{"message": {"content": "a"}}], "usage": {"prompt_tokens": 7, "completion_tokens": 1}}
    assert read_whole(json.dumps(whole).encode()).completion_tokens == 1
    assert read_whole(json.dumps({"choices": [{"text": "a"}]}).encode()).completion_tokens is None
    for body, status in (
        (b"<html>", "malformed"),
        (b'{"choices": []}', "malformed"),
        (b'{"error": "no"}', "error in stream"),
    ):
        with pytest.raises(BodyError) as raised:
            read_whole(body)
        assert raised.value.status == status
