"""Plain values between two processes that do not trust each other.

Notable: what arrives can only be a value of Python's own types, however wrong; nothing is unpickled, and no code of one
side runs in the other. A value of a derived class is sent as what it derives from, so that its own ``__eq__`` stays
behind. Iterators are drawn to their end and arrive as iterators.
"""

import collections
import importlib
import json
import os
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

__all__ = ["Channel", "Closed", "NotPlain", "decoded", "encoded"]

_MOST_ITEMS = 100_000
"""That an iterator may give."""
_ITERATOR = "an iterator"
_JSON_EXACT = 1 << 63
"""Larger integers are sent in base 16, whose length Python does not limit."""


class NotPlain(Exception):  # noqa: N818 (it is no fault)
    """A value that cannot be sent; the text names its type."""


class Closed(Exception):  # noqa: N818
    """The other side ended, or broke the rules."""


def _name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def _list(value: Any, nearest: bool) -> list[Any]:
    return [encoded(one, nearest=nearest) for one in value]


def _pairs(value: Any, nearest: bool) -> list[Any]:
    return [[encoded(key, nearest=nearest), encoded(one, nearest=nearest)] for key, one in dict.items(value)]


def _defaulting(value: Any, nearest: bool) -> list[Any]:
    if not nearest:
        raise NotPlain("a defaultdict, whose factory cannot be sent")
    return _pairs(value, nearest)


def _drawn(value: Any, nearest: bool) -> list[Any]:
    items = list(islice(value, _MOST_ITEMS + 1))
    if len(items) > _MOST_ITEMS:
        raise NotPlain(f"an iterator over more than {_MOST_ITEMS} values")
    return _list(items, nearest)


def _list_back(payload: Any) -> list[Any]:
    return [decoded(one) for one in payload]


def _dict_back(payload: Any) -> dict[Any, Any]:
    return {decoded(key): decoded(value) for key, value in payload}


def _from_module(name: str) -> Any:
    module, _, kind = name.partition(".")
    return getattr(importlib.import_module(module), kind)


_JSON_BASES: tuple[tuple[type, Callable[[Any], Any]], ...] = (
    (int, int.__int__),
    (float, float.__float__),
    (str, str.__str__),
    (list, list.copy),
)
"""Types that JSON has, and how a value of a derived class becomes one of them without asking that class."""

_Form = tuple[Callable[[Any, bool], Any], Callable[[Any], Any]]
_FORMS: dict[str, _Form] = {
    "builtins.complex": (lambda value, _: [value.real, value.imag], lambda held: complex(*held)),
    "builtins.bytes": (lambda value, _: bytes.hex(value), lambda held: bytes.fromhex(held)),
    "builtins.bytearray": (lambda value, _: bytearray.hex(value), lambda held: bytearray.fromhex(held)),
    "builtins.tuple": (lambda value, near: _list(tuple.__iter__(value), near), lambda held: tuple(_list_back(held))),
    "builtins.set": (lambda value, near: _list(set.__iter__(value), near), lambda held: set(_list_back(held))),
    "builtins.frozenset": (
        lambda value, near: _list(frozenset.__iter__(value), near),
        lambda held: frozenset(_list_back(held)),
    ),
    "builtins.dict": (_pairs, _dict_back),
    "builtins.range": (lambda value, _: [value.start, value.stop, value.step], lambda held: range(*held)),
    "builtins.dict_keys": (_list, lambda held: dict.fromkeys(_list_back(held)).keys()),
    "builtins.dict_values": (_list, lambda held: dict(enumerate(_list_back(held))).values()),
    "builtins.dict_items": (_list, lambda held: dict(_list_back(held)).items()),
    _ITERATOR: (_drawn, lambda held: iter(_list_back(held))),
    "collections.Counter": (_pairs, lambda held: collections.Counter(_dict_back(held))),
    "collections.OrderedDict": (_pairs, lambda held: collections.OrderedDict(_dict_back(held))),
    "collections.defaultdict": (_defaulting, lambda held: collections.defaultdict(None, _dict_back(held))),
    "collections.deque": (
        lambda value, near: [value.maxlen, _list(collections.deque.__iter__(value), near)],
        lambda held: collections.deque(_list_back(held[1]), held[0]),
    ),
    "decimal.Decimal": (lambda value, _: str(value), lambda held: _from_module("decimal.Decimal")(held)),
    "fractions.Fraction": (
        lambda value, near: _list((value.numerator, value.denominator), near),
        lambda held: _from_module("fractions.Fraction")(*_list_back(held)),
    ),
    "datetime.datetime": (
        lambda value, _: value.isoformat(),
        lambda held: _from_module("datetime.datetime").fromisoformat(held),
    ),
    "datetime.date": (
        lambda value, _: value.isoformat(),
        lambda held: _from_module("datetime.date").fromisoformat(held),
    ),
    "datetime.time": (
        lambda value, _: value.isoformat(),
        lambda held: _from_module("datetime.time").fromisoformat(held),
    ),
    "datetime.timedelta": (
        lambda value, _: [value.days, value.seconds, value.microseconds],
        lambda held: _from_module("datetime.timedelta")(*held),
    ),
}
"""How the types that JSON does not have are taken apart, and put together again."""


def encoded(value: Any, *, nearest: bool) -> Any:
    """A value in what JSON has.

    Args:
        value: Any.
        nearest: Send a value of a derived class as the type that it derives from, and draw iterators; without it only
            what arrives as exactly what it was is sent.

    Raises:
        NotPlain: It is, or holds, something else than a value.
        RecursionError: It holds itself.
    """
    kind = type(value)
    if value is None or kind in (bool, str, float):
        return value
    if kind is int:
        return value if -_JSON_EXACT < value < _JSON_EXACT else {"builtins.int": hex(value)}
    if kind is list:
        return _list(value, nearest)
    if _name(kind) in _FORMS:
        return {_name(kind): _FORMS[_name(kind)][0](value, nearest)}
    if not nearest:
        raise NotPlain(f"a value of the type {kind.__qualname__}")
    for base, plain in _JSON_BASES:
        if isinstance(value, base):
            return encoded(plain(value), nearest=True)
    for one in kind.__mro__:
        if _name(one) in _FORMS:
            return {_name(one): _FORMS[_name(one)][0](value, nearest)}
    if isinstance(value, Iterator):
        return {_ITERATOR: _drawn(value, nearest)}
    raise NotPlain(f"a value of the type {kind.__qualname__}")


def decoded(held: Any) -> Any:
    """The value that :func:`encoded` took apart; from the other side, so that anything may come.

    Raises:
        Closed: It is nothing that was encoded.
    """
    if not isinstance(held, dict):
        return [decoded(one) for one in held] if isinstance(held, list) else held
    try:
        ((name, payload),) = held.items()
        return int(payload, 16) if name == "builtins.int" else _FORMS[name][1](payload)
    except (TypeError, ValueError, KeyError, ArithmeticError, AttributeError) as error:
        raise Closed(f"a message that says nothing ({type(error).__name__})") from None


class Channel:
    """Messages over two pipes: four bytes of length, then JSON."""

    def __init__(self, incoming: int, outgoing: int, most_bytes: int) -> None:
        self._incoming = incoming
        self._outgoing = outgoing
        self._most_bytes = most_bytes

    def send(self, message: Any) -> None:
        """Sends what JSON has.

        Raises:
            Closed: The other side is gone.
            NotPlain: It is too long.
        """
        data = json.dumps(message, separators=(",", ":")).encode()
        if len(data) > self._most_bytes:
            raise NotPlain(f"a value of more than {self._most_bytes} bytes")
        data = len(data).to_bytes(4, "big") + data
        try:
            while data:
                data = data[os.write(self._outgoing, data) :]
        except OSError as error:
            raise Closed(error.strerror) from None

    def receive(self) -> Any:
        """The next message.

        Raises:
            Closed: The other side is gone, or sent something else.
        """
        length = int.from_bytes(self._read(4), "big")
        if length > self._most_bytes:
            raise Closed("a message that is too long")
        try:
            return json.loads(self._read(length))
        except (ValueError, RecursionError) as error:
            raise Closed(f"a message that is no JSON ({type(error).__name__})") from None

    def _read(self, length: int) -> bytes:
        data = bytearray()
        while len(data) < length:
            piece = os.read(self._incoming, length - len(data))
            if not piece:
                raise Closed("the answer's process ended")
            data += piece
        return bytes(data)
