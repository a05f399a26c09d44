"""JSON as the standard has it, read value by value.

Python's decoder lets pass what JSON or UTF-8 does not hold: ``NaN``, halves of surrogate pairs. Such a value comes out
as a :class:`RowError`, in its place, since what follows it can still be read; a text that is not JSON is a ValueError.
"""

import json
import re
from typing import Any, TextIO

__all__ = ["Json", "RowError", "Walker", "checked_json", "kind", "undecoded"]

_CHUNK_CHARS = 1 << 18
_SPACE = re.compile(r"[ \t\n\r]*")
_SURROGATE_ESCAPE = re.compile(r"\\u[dD][89a-fA-F]")
_AFTER_VALUE = frozenset(" \t\n\r,:]}")


class RowError(ValueError):
    """A row that cannot be used: what was expected, what was found, and the mend; the place is the caller's to add."""


def kind(value: Any) -> str:
    """What a JSON value is, in words."""
    if isinstance(value, bool):
        return "true or false"
    names = {type(None): "null", str: "text", int: "a number", float: "a number", list: "a list", dict: "an object"}
    return names.get(type(value), type(value).__name__)


def undecoded(text: str) -> RowError | None:
    """The fault of a text whose bytes were not UTF-8 and were let through by ``surrogateescape``."""
    if text.isascii():
        return None
    try:
        text.encode()
    except UnicodeEncodeError as error:
        byte = ord(text[error.start]) - 0xDC00
        return RowError(f"expected UTF-8, found byte 0x{byte:02x} at character {error.start + 1}; save it as UTF-8")
    return None


def checked_json(text: str) -> Any:
    """A whole JSON text, or the :class:`RowError` that says why it cannot be used."""
    try:
        value, _ = Json().decode(text, whole=True)
    except json.JSONDecodeError as error:
        return RowError(f"expected JSON, found a fault at column {error.colno} ({error.msg}); mend it")
    except RecursionError:
        return RowError("expected JSON, found lists or objects nested too deep; flatten them")
    return value


class Json:
    """A decoder that keeps track of what a value must not hold."""

    def __init__(self) -> None:
        self._odd = ""
        self._decoder = json.JSONDecoder(parse_int=self._integer, parse_constant=self._constant)

    def decode(self, text: str, start: int = 0, *, whole: bool = False) -> tuple[Any, int]:
        """The value at ``start``, a :class:`RowError` where it must not be used, and where it ends.

        Args:
            text: What holds the value.
            start: Where it begins.
            whole: The text is this value and white space, nothing else.

        Raises:
            json.JSONDecodeError: There is no JSON value.
            RecursionError: It is nested too deep.
        """
        self._odd = ""
        if whole:
            value, end = self._decoder.decode(text), len(text)
        else:
            value, end = self._decoder.raw_decode(text, start)
        if self._odd:
            return RowError(f"expected JSON, found {self._odd}; give a number of ordinary size or a text"), end
        if _SURROGATE_ESCAPE.search(text, start, end) and not _encodes(value):
            return RowError("expected text, found half of a surrogate pair (\\ud800 to \\udfff); mend the escape"), end
        return value, end

    def _integer(self, digits: str) -> int:
        try:
            return int(digits)
        except ValueError:
            self._odd = f"a number of {len(digits)} digits"
            return 0

    def _constant(self, name: str) -> None:
        self._odd = name


def _encodes(value: Any) -> bool:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except (UnicodeEncodeError, RecursionError):
        return False
    return True


class Walker:
    """Walks a JSON text value by value, holding no more of it than the value at hand needs.

    Attributes:
        line: The line that the walk has come to.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._buffer = ""
        self._position = 0
        self._json = Json()
        self.line = 1

    def peek(self) -> str:
        """Moves to the next character that is not white space, and gives it; "" at the end."""
        while True:
            space = _SPACE.match(self._buffer, self._position)
            self._advance(space.end() if space else self._position)
            if self._position < len(self._buffer) or not self._fill():
                return self._buffer[self._position : self._position + 1]

    def take(self, char: str) -> None:
        """Moves behind the next character.

        Raises:
            ValueError: It is another one.
        """
        found = self.peek()
        if found != char:
            raise ValueError(f"'{found}' where '{char}' should be" if found else f"the end where '{char}' should be")
        self._advance(self._position + 1)

    def value(self) -> Any:
        """Moves behind the next value, and gives it; a :class:`RowError` where it must not be used.

        Raises:
            json.JSONDecodeError: It is not JSON.
            RecursionError: It is nested too deep.
        """
        self.peek()
        while True:
            try:
                value, end = self._json.decode(self._buffer, self._position)
            except ValueError:
                if not self._fill():
                    raise
            else:
                # A number that touches the end of the buffer may go on behind it.
                if self._buffer[end : end + 1] in _AFTER_VALUE or not self._fill():
                    break
        text = self._buffer[self._position : end]
        self._advance(end)
        return undecoded(text) or value

    def _advance(self, position: int) -> None:
        self.line += self._buffer.count("\n", self._position, position)
        self._position = position

    def _fill(self) -> bool:
        """Reads on, by as much as is held already, so that a long value is tried only a few times.

        Returns:
            Whether there was more; where not, nothing has moved.
        """
        chunk = self._stream.read(max(_CHUNK_CHARS, len(self._buffer) - self._position))
        if chunk:
            self._buffer, self._position = self._buffer[self._position :] + chunk, 0
        return bool(chunk)
