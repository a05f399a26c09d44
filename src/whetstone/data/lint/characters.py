"""Texts that were decoded wrongly, or that hold characters which nobody sees."""

import re
from collections.abc import Iterator, Sequence

from ftfy.badness import is_bad

from whetstone.data.example import Example
from whetstone.data.finding import Finding
from whetstone.data.lint.shown import counted, each_text, shown

__all__ = ["control_characters", "mojibake"]

# C0 but tab, newline and carriage return; DEL and C1; lone surrogates; U+FFFD, which stands for undecodable bytes; word
# joiner and byte-order mark; bidirectional embeddings, overrides and isolates (Unicode Standard Annex 9), which make a
# text read otherwise than it is. U+200B to U+200F are left out: Thai and Khmer end words with the first, Persian and
# emoji need the joiners, Hebrew and Arabic the marks.
CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffd\u2060\ufeff\u202a-\u202e\u2066-\u2069]")
CONTEXT_CHARACTERS = 20


def mojibake(examples: Sequence[Example]) -> Finding | None:
    """Texts that were decoded with the wrong encoding, by the heuristic of ftfy (Speer, 2019)."""
    bad = _first_of_each((example, text) for example, text in each_text(examples) if _is_mojibake(text))
    if not bad:
        return None
    return Finding(
        code="mojibake",
        severity="warning",
        count=len(bad),
        total=len(examples),
        message=f"{counted(len(bad), len(examples))} look as if they had been decoded with the wrong encoding.",
        mend="Read the original again as UTF-8, or repair the texts with ftfy.fix_text.",
        examples=shown((example, _around_non_ascii(text)) for example, text in bad),
    )


def control_characters(examples: Sequence[Example]) -> Finding | None:
    """Texts with control characters, replacement characters or invisible formatting."""
    bad = _first_of_each(
        (example, _around(text, found.start()))
        for example, text in each_text(examples)
        if (found := CONTROL.search(text))
    )
    if not bad:
        return None
    return Finding(
        code="control-character",
        severity="warning",
        count=len(bad),
        total=len(examples),
        message=f"{counted(len(bad), len(examples))} hold control, replacement or invisible characters.",
        mend="Remove these characters: they cost tokens, and the model learns to write them.",
        examples=shown(bad),
    )


def _is_mojibake(text: str) -> bool:
    # Wrongly decoded text is never ASCII, and the heuristic is slow.
    return not text.isascii() and is_bad(text)


def _around_non_ascii(text: str) -> str:
    return _around(text, next(index for index, char in enumerate(text) if not char.isascii()))


def _around(text: str, index: int) -> str:
    """The part of a text where the fault is, with what is invisible written as escapes."""
    start = max(index - CONTEXT_CHARACTERS, 0)
    part = text[start : index + 2 * CONTEXT_CHARACTERS]
    return ("…" if start else "") + CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), part)


def _first_of_each(found: Iterator[tuple[Example, str]]) -> list[tuple[Example, str]]:
    """One text for each example; those of one example follow each other."""
    first: list[tuple[Example, str]] = []
    for example, text in found:
        if not first or first[-1][0] is not example:
            first.append((example, text))
    return first
