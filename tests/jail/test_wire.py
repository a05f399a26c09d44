"""Plain values over a pipe, and what a liar on the other side can do."""

import json
import math
import os
import threading
from collections import Counter, OrderedDict, defaultdict, deque
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whetstone.jail.wire import Channel, Closed, NotPlain, decoded, encoded

ATOMS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(min_value=1 << 62, max_value=1 << 66),
    st.floats(allow_nan=False),
    st.complex_numbers(allow_nan=False),
    st.text(st.characters(exclude_categories=())),
    st.binary(),
    st.dates(),
    st.datetimes(),
    st.times(),
    st.timedeltas(),
    st.decimals(allow_nan=False),
    st.fractions(),
    st.builds(range, st.integers(), st.integers(), st.integers(min_value=1)),
)
HASHABLE = st.recursive(ATOMS, lambda inner: st.lists(inner, max_size=3).map(tuple) | st.frozensets(inner, max_size=3))
KEYS = st.deferred(lambda: HASHABLE)  # said in one word, where a failure is printed
VALUES = st.recursive(
    KEYS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.sets(KEYS, max_size=3),
        st.dictionaries(KEYS, inner, max_size=3),
        st.dictionaries(KEYS, inner, max_size=3).map(OrderedDict),
        st.lists(inner, max_size=3).map(deque),
    ),
    max_leaves=8,
)


def sent(value: Any, *, nearest: bool = False) -> Any:
    return decoded(json.loads(json.dumps(encoded(value, nearest=nearest))))


def same(one: Any, other: Any) -> bool:
    """Equality that tells 1 from True and from 1.0, and the types of containers."""
    if type(one) is not type(other) or one != other:
        return False
    if isinstance(one, list | tuple | deque):
        return all(map(same, one, other))
    return not isinstance(one, dict) or all(map(same, one.values(), other.values()))


@given(VALUES)
def test_plain_values_arrive_as_they_were(value: Any) -> None:
    assert same(sent(value), value)


def test_what_a_property_does_not_say() -> None:
    assert math.isnan(sent(math.nan)) and sent(-math.inf) == -math.inf and str(sent(-0.0)) == "-0.0"
    assert sent(10**6000) == 10**6000
    assert sent(bytearray(b"x")) == bytearray(b"x") and type(sent(bytearray())) is bytearray
    assert sent(Counter("aab")).most_common(1) == [("a", 2)]
    assert sent(deque([1, 2], 2)).maxlen == 2
    assert sent({1: 2}.keys()) == {1} and list(sent({1: 2}.values())) == [2] and sent({1: 2}.items()) == {(1, 2)}
    assert [sent(one) for one in (date.max, datetime.max, time.max, timedelta.min)] == [
        *(date.max, datetime.max, time.max, timedelta.min)
    ]


class Same(list[Any]):
    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = None

    def copy(self) -> "Same":
        return self


def test_a_derived_value_is_refused_or_sent_as_what_it_derives_from() -> None:
    for value in (Same([1]), iter([1]), defaultdict(int), object(), len, int, [object()], {1: Same()}, Exception()):
        with pytest.raises(NotPlain):
            encoded(value, nearest=False)
    arrived = sent([Same([1])], nearest=True)
    assert arrived == [[1]] and type(arrived[0]) is list and arrived != [[2]]
    assert type(sent(defaultdict(int, {1: 2}), nearest=True)) is defaultdict
    assert list(sent(iter([1, 2]), nearest=True)) == [1, 2]
    for value in (object(), len, [object()], Exception(), iter(int, 1), b"".join, Decimal):
        with pytest.raises(NotPlain):
            encoded(value, nearest=True)
    cycle: list[Any] = []
    cycle.append(cycle)
    with pytest.raises(RecursionError):
        encoded(cycle, nearest=True)


NAMES = ("builtins.int", "builtins.set", "builtins.dict", "builtins.complex", "builtins.range", "an iterator", "x")
MORE_NAMES = ("decimal.Decimal", "fractions.Fraction", "datetime.date", "datetime.timedelta", "collections.deque")
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES + MORE_NAMES), inner, max_size=2),
    max_leaves=6,
)
PLAIN: tuple[type, ...] = (
    *(type(None), bool, int, float, complex, str, bytes, bytearray, tuple, list, set, frozenset, dict, range, deque),
    *(Decimal, Fraction, date, datetime, time, timedelta, type(iter([])), type({}.keys()), type({}.values())),
    *(type({}.items()), Counter, OrderedDict, defaultdict),
)


@given(JSON)
def test_whatever_arrives_is_plain_or_refused(held: Any) -> None:
    try:
        value = decoded(held)
    except Closed:
        return
    assert type(value) in PLAIN


def channel_with(data: bytes, most_bytes: int = 100) -> Channel:
    incoming, feed = os.pipe()
    os.write(feed, data)
    os.close(feed)
    return Channel(incoming, -1, most_bytes)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "ended"),
        (b"\0\0\0", "ended"),
        (b"\0\0\0\x09[1]", "ended"),
        (b"\xff\xff\xff\xff", "too long"),
        (b"\0\0\0\x02[1", "no JSON"),
        (b"\0\0\0\x02\xff\xff", "no JSON"),
    ],
)
def test_a_message_that_is_none_closes_the_channel(data: bytes, why: str) -> None:
    with pytest.raises(Closed, match=why):
        channel_with(data).receive()


def test_a_message_may_be_longer_than_a_pipe_holds() -> None:
    incoming, outgoing = os.pipe()
    channel = Channel(incoming, outgoing, 1 << 20)
    text = "x" * 500_000
    sender = threading.Thread(target=channel.send, args=([text],))
    sender.start()
    assert channel.receive() == [text]
    sender.join()
    with pytest.raises(NotPlain, match="more than"):
        channel.send("x" * (1 << 20))
    os.close(incoming)
    with pytest.raises(Closed):
        channel.send("x")
    os.close(outgoing)
