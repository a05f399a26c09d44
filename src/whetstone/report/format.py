"""How numbers and texts are written for people: one place, so that the page, Markdown and the terminal agree."""

import re
import unicodedata
from collections.abc import Callable

__all__ = [
    "UNMEASURED",
    "Write",
    "bare_difference",
    "bare_p",
    "bare_score",
    "byte_size",
    "count",
    "decimal",
    "decimal_difference",
    "difference",
    "duration",
    "fine_duration",
    "level",
    "one_line",
    "p_value",
    "plain",
    "points",
    "printable",
    "rate",
    "score",
    "sentence",
    "share",
    "significant",
    "tick",
]

UNMEASURED = "not measured"
"""Stands where a number would stand; never a zero, never a dash."""

Write = Callable[[float], str]
"""Turns a number into the text that is shown for it."""


def share(value: float) -> str:
    """A part of a whole: 0.634 is ``63.4%``."""
    return f"{100 * value:.1f}%"


def points(value: float) -> str:
    """A difference of two shares in percentage points: 0.222 is ``+22.2 points``."""
    return f"{_signed(100 * value)} points"


def score(unit: str) -> Write:
    """The writer of a metric's mean; scores from 0 to 1 are written from 0 to 100, as they are published."""
    if unit in ("share", "score"):
        return share if unit == "share" else lambda value: f"{100 * value:.1f}"
    return lambda value: f"{value:.{_decimals(unit)}f} {unit}"


def bare_score(unit: str) -> Write:
    """As :func:`score` without the unit, for the ends of an interval that stand beside their mean."""
    return lambda value: f"{_scale(unit) * value:.{_decimals(unit)}f}"


def difference(unit: str) -> Write:
    """The writer of a difference of two means."""
    return points if unit in ("share", "score") else lambda value: f"{_signed(value, _decimals(unit))} {unit}"


def bare_difference(unit: str) -> Write:
    """As :func:`difference` without the unit."""
    return lambda value: _signed(_scale(unit) * value, _decimals(unit))


def tick(value: float) -> str:
    """A label on an axis of differences in points: 0.2 is ``+20``."""
    return f"{100 * value:+.3g}".replace("-", "\N{MINUS SIGN}") if value else "0"


def level(value: float) -> str:
    """A confidence: 0.95 is ``95%``."""
    return f"{100 * value:g}%"


def p_value(value: float) -> str:
    """A p value with four decimals, where it has them."""
    return "< 0.0001" if value < 0.0001 else f"= {value:.4f}"


def bare_p(value: float) -> str:
    """As :func:`p_value`, for a column of them."""
    return p_value(value).removeprefix("= ")


def plain(value: float) -> str:
    """A setting as people type it: 0.7, 1, 12345."""
    return f"{value:.10g}"


def significant(value: float) -> str:
    """Three digits of a number that may be large or small: ``0.0002``, ``1.37``, ``2e-06``."""
    return f"{value:.3g}"


def count(value: float) -> str:
    """A whole number in groups of three digits: 12345 is ``12,345``."""
    return f"{int(value):,}"


def rate(value: float) -> str:
    """Tokens a second, to three digits or more."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def decimal(value: float) -> str:
    """A loss, to four decimals."""
    return f"{value:.4f}"


def decimal_difference(value: float) -> str:
    """A difference of two losses, to four decimals: 0.03124 is ``+0.0312``."""
    return _signed(value, decimals=4)


def duration(seconds: float) -> str:
    """A time with the unit that fits: ``84 ms``, ``3.2 s``, ``4 min 05 s``, ``2 h 10 min``."""
    if seconds < 0.9995:
        return f"{1000 * seconds:.0f} ms"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest_s = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest_s:02d} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes:02d} min"


def fine_duration(seconds: float) -> str:
    """A short time to four digits, where two of them are set against each other: ``84.3 ms``, ``1.084 s``."""
    return f"{1000 * seconds:.4g} ms" if seconds < 0.99995 else f"{seconds:.4g} s"


def byte_size(size_bytes: float) -> str:
    """A memory size in binary units: ``512 MiB``, ``1.5 GiB``."""
    if size_bytes < 1024**2:
        return f"{size_bytes / 1024:.0f} KiB"
    return f"{size_bytes / 1024**2:.0f} MiB" if size_bytes < 1024**3 else f"{size_bytes / 1024**3:.1f} GiB"


def sentence(text: str) -> str:
    """A sentence with numbers in it: true minus signs, and no line break inside ``p = 0.0123`` or ``5.0 points``."""
    signed = re.sub(r"(?<![\w.])-(?=\d)", "\N{MINUS SIGN}", text)
    return re.sub(r" (?=[=<] )|(?<=[=<]) | (?=points\b)", "\N{NO-BREAK SPACE}", signed)


def one_line(text: str) -> str:
    """A text of a model or a data set on one line, safe to print."""
    return printable(" ".join(text.split()))


def printable(text: str) -> str:
    """Replaces characters that steer a terminal or turn the direction of writing; they could hide what was answered."""
    return "".join("\N{REPLACEMENT CHARACTER}" if _steers(character) else character for character in text)


def _steers(character: str) -> bool:
    if character in "\n\t":
        return False
    category = unicodedata.category(character)
    return category in ("Cc", "Cs") or unicodedata.bidirectional(character) in _DIRECTION_CONTROLS


_DIRECTION_CONTROLS = frozenset(("LRE", "LRO", "RLE", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"))


def _scale(unit: str) -> float:
    return 100.0 if unit in ("share", "score") else 1.0


def _decimals(unit: str) -> int:
    return 3 if "/" in unit else 1


def _signed(value: float, decimals: int = 1) -> str:
    """With a sign, unless it is zero once rounded."""
    text = f"{value:+.{decimals}f}"
    return text[1:] if float(text) == 0 else text.replace("-", "\N{MINUS SIGN}")
