"""Messages come out on the other side as they went in, one a line."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from whetstone.data.example import Message
from whetstone.engine.api import Constraint, Sampling, Usage
from whetstone.serve.errors import ServeError
from whetstone.serve.json_line import encode
from whetstone.serve.question import Ending, Piece, Question, TokenScore
from whetstone.serve.served_model import JudgedRate, Proof, ServedModel, Usual
from whetstone.serve.worker.protocol import (
    Ask,
    Busy,
    Done,
    Drop,
    Embed,
    Failed,
    LoadAdapter,
    Loaded,
    Lost,
    Open,
    Opening,
    Ready,
    Refused,
    Stage,
    ToServer,
    ToWorker,
    UnloadAdapter,
    Vector,
    encode_step,
    read_from_server,
    read_from_worker,
    read_told,
)
from whetstone.serve_section import Validate

MODEL = ServedModel(
    name="demo",
    ref="run:demo",
    engine="torch",
    origin="a test",
    context_tokens=128,
    usual=Usual(max_new_tokens=40),
    validation=Validate(regex="a+", json_schema='{"type": "string"}'),
    proof=Proof(verdict="SHIP", reasons=("better",), replayed=8, equal=8),
    experiment={"name": "demo", "judge": {"seed": 3}},
    judged_rates=(JudgedRate(name="empty", judged=1, samples=200, window=200, low=0, high=9),),
)

text = st.text(alphabet=st.characters(codec="utf-8"))
number = st.floats(allow_nan=False, allow_infinity=False)
questions = st.builds(
    Question,
    model=text,
    prompt=st.one_of(
        text,
        st.lists(st.integers(0, 2**31), min_size=1).map(tuple),
        st.lists(st.builds(Message, st.sampled_from(("system", "user", "assistant")), text)).map(tuple),
    ),
    max_new_tokens=st.none() | st.integers(1, 9),
    sampling=st.builds(Sampling, temperature=number, top_k=st.none() | st.integers(1, 9)),
    seed=st.integers(0, 2**63 - 1),
    stop=st.lists(text).map(tuple),
    logprobs=st.none() | st.integers(0, 9),
    constraint=st.none() | st.builds(Constraint, st.sampled_from(("regex", "json_schema")), text),
    deadline_s=st.none() | number,
)
usages = st.builds(Usage, st.integers(0, 9), st.integers(0, 9), st.integers(0, 9))


def scores(top: st.SearchStrategy[tuple[TokenScore, ...]]) -> st.SearchStrategy[TokenScore]:
    spelled = st.none() | st.binary().map(tuple)
    return st.builds(TokenScore, text, spelled, st.integers(0, 9), number, top)


pieces = st.builds(
    Piece,
    text,
    st.lists(st.integers(0, 9)).map(tuple),
    st.lists(scores(st.lists(scores(st.just(())), max_size=2).map(tuple)), max_size=2).map(tuple),
)
endings = st.none() | st.builds(Ending, st.sampled_from(("stop", "length")), usages)


@settings(max_examples=40)
@given(questions)
def test_questions_cross(question: Question) -> None:
    line = encode(Ask(7, question))
    assert line.count(b"\n") == 1 and line.endswith(b"\n")
    assert read_from_server(line) == Ask(7, question)


@settings(max_examples=40)
@given(st.lists(st.tuples(st.integers(0, 9), pieces, endings)))
def test_steps_cross(step: list[tuple[int, Piece, Ending | None]]) -> None:
    line = encode_step(step)
    assert line.count(b"\n") == 1 and line.endswith(b"\n")
    told = read_from_worker(line)
    assert isinstance(told, list)
    assert [(one[0], *read_told(one)) for one in told] == step


@pytest.mark.parametrize(
    "message",
    [
        Open(Opening(("demo=run:demo",), "runs", dtype="float32", adapter_roots=("a",)), (("b", "run:b"),)),
        Drop(3),
        Embed(3, "demo", ("a text", (1, 2))),
        LoadAdapter(3, "b", "run:b"),
        UnloadAdapter(3, "b"),
    ],
)
def test_orders_cross(message: ToWorker) -> None:
    assert read_from_server(encode(message)) == message


@pytest.mark.parametrize(
    "message",
    [
        Stage("loading"),
        Ready((MODEL,), (("b", "not there"),)),
        Refused("not judged"),
        Lost("MemoryError"),
        Failed(3, 400, "invalid_value", "no", "prompt", 1.5),
        Vector(3, (0.5, -1.0), 4),
        Loaded(3, MODEL, "run:b"),
        Done(3),
        Busy(2**33, 5, 6, 7, 8, 9, 0.5),
    ],
)
def test_news_cross(message: ToServer) -> None:
    assert read_from_worker(encode(message)) == message


def test_a_failure_is_the_error_that_it_came_from() -> None:
    error = ServeError(503, "unavailable", "not now", param="model", retry_after_s=2.5)
    back = Failed.of(3, error).error
    assert vars(back) == vars(error)


def test_a_probability_of_zero_is_told_as_a_number() -> None:
    score = TokenScore("a", None, 1, float("-inf"))
    told = read_from_worker(encode_step([(1, Piece("a", (1,), (score,)), None)]))
    assert isinstance(told, list)
    assert read_told(told[0])[0].scores[0].logprob == -9999.0


@pytest.mark.parametrize(
    "question",
    [
        Question("demo", "half a pair: \ud83d", None, Sampling(), 0),
        Question("demo", "text", None, Sampling(), 2**64),
    ],
)
def test_what_json_cannot_say_is_no_message(question: Question) -> None:
    with pytest.raises(ValueError):
        encode(Ask(7, question))


@pytest.mark.parametrize("line", [b"Loading weights: 100%\n", b'{"kind": "unheard"}\n', b"{}\n", b"[[1, \n"])
def test_what_is_no_message_is_refused(line: bytes) -> None:
    with pytest.raises(ValueError):
        read_from_worker(line)
