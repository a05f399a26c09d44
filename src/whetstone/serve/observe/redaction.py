"""Keeps secrets, and what people wrote, out of logs, whatever a library puts into a message or an exception."""

import re
from collections.abc import Iterator
from traceback import TracebackException

__all__ = ["MASK", "redact", "redacted_traceback"]

MASK = "***"

_SHORTEST_SECRET = len("bearer x")
_LONGEST_READ = 2**16
_LONGEST_KEPT = 2**14

_QUOTED_MOST = 80
"""A short quoted text may be a name, a path or a setting; a longer one may be a prompt or an answer."""

_NAMES = r"(?:proxy[-_])?authorization|(?:x[-_])?api[-_]?key|(?:set[-_])?cookie|password|secret|access[-_]token"
_SECRET = re.compile(
    # As a header ("Authorization: Basic eA=="), in a mapping ({'authorization': '...'}) and as ASGI has it
    # ((b'authorization', b'...')).
    rf"""\b({_NAMES})(['"]\s*[:,]\s*|\s*[:=]\s*)(?:b?'(?:[^'\\\n]|\\.)*'|b?"(?:[^"\\\n]|\\.)*"|[^\n]+)""",
    re.IGNORECASE,
)
_BEARER = re.compile(r"""\b(bearer)(\s+)[^\s'",;)\]}]+""", re.IGNORECASE)
_KEY = re.compile(r"(?<![A-Za-z0-9])(sk-|whet[-_])[A-Za-z0-9_-]{8,}")
_PYDANTIC_INPUT = re.compile(r"\binput_value=(?:.*?(?=, input_type=)|.*)", re.DOTALL)


def _quoted(quote: str) -> re.Pattern[str]:
    """Finds long texts behind a quote, up to the next one, as ``repr`` and JSON write them: a quote inside is escaped.

    An apostrophe amid a word neither begins nor ends one. A text that is never closed goes on to the end: it may have
    been cut. No text holds a quote that could begin another, so that the time is linear in the length.
    """
    inside = rf"[^{quote}\\]|\\.|(?<=\w){quote}(?=\w)"
    opening = rf"(?:(?<![\w\\])|(?<=[^\w\\][bru])|(?<=\A[bru])){quote}"
    return re.compile(rf"{opening}((?:{inside}){{{_QUOTED_MOST + 1},}})(?={quote}|\\?\Z)", re.DOTALL)


_QUOTED = tuple(_quoted(quote) for quote in ("'", '"', "`"))


def _without_quoted(text: str) -> str:
    """Masks what any kind of quote encloses: a stray quote before must not hide where another begins."""
    kept, end = [], 0
    for start, stop in sorted(match.span(1) for pattern in _QUOTED for match in pattern.finditer(text)):
        if start >= end:
            kept += [text[end:start], MASK]
        end = max(end, stop)
    return "".join([*kept, text[end:]])


def redact(text: str) -> str:
    """The text without keys, values of Authorization headers, and quoted texts of more than 80 characters.

    Args:
        text: A message, or the text of an exception.

    Returns:
        The text with ``***`` for what was taken out: what is beyond 65,536 characters, then what was to be masked, then
        all but the last 16,384 characters.
    """
    if len(text) < _SHORTEST_SECRET:
        return text
    # Masking takes half a microsecond a character, in the event loop.
    rest = MASK if len(text) > _LONGEST_READ else ""
    text = text[:_LONGEST_READ]
    text = _PYDANTIC_INPUT.sub(f"input_value={MASK}", text)
    text = _without_quoted(text)
    text = _SECRET.sub(rf"\1\2{MASK}", text)
    text = _BEARER.sub(rf"\1\2{MASK}", text)
    text = _KEY.sub(rf"\1{MASK}", text)
    # Only now, because a text whose opening quote is gone is not known as one.
    begun = MASK if len(text) > _LONGEST_KEPT else ""
    return f"{begun}{text[-_LONGEST_KEPT:]}{rest}"


def redacted_traceback(error: BaseException) -> str:
    """An exception as Python prints it, its causes first, and redacted."""
    chain: list[tuple[TracebackException, str]] = []
    failure: TracebackException | None = TracebackException.from_exception(error, compact=True)
    link = ""
    while failure is not None:
        chain.append((failure, link))
        if failure.__cause__ is not None:
            failure, link = failure.__cause__, "The above exception was the direct cause of the following exception:"
        else:
            failure = None if failure.__suppress_context__ else failure.__context__
            link = "During handling of the above exception, another exception occurred:"
    return "".join(line for failure, link in reversed(chain) for line in _told(failure, link)).rstrip("\n")


def _told(failure: TracebackException, link: str) -> Iterator[str]:
    if failure.stack:
        yield "Traceback (most recent call last):\n"
        # One by one, so that a quote of one line of code goes no further.
        yield from map(redact, failure.stack.format())
    yield redact("".join(failure.format_exception_only()))
    for one in failure.exceptions or ():
        yield "".join(f"  | {line}" for told in _told(one, "") for line in told.splitlines(keepends=True))
    if link:
        yield f"\n{link}\n\n"
