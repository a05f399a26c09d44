"""Word-level differences between two texts, and how alike they are."""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

__all__ = ["Piece", "similarity", "word_difference"]


@dataclass(frozen=True, slots=True)
class Piece:
    """A run of words that is common to both texts, only in the old one, or only in the new one."""

    kind: Literal["same", "removed", "added"]
    text: str


def word_difference(old: str, new: str) -> list[Piece]:
    """The pieces that turn ``old`` into ``new``, in reading order."""
    before, after = old.split(), new.split()
    pieces: list[Piece] = []
    for tag, i, j, k, m in difflib.SequenceMatcher(None, before, after, autojunk=False).get_opcodes():
        if tag == "equal":
            pieces.append(Piece("same", " ".join(before[i:j])))
            continue
        if i < j:
            pieces.append(Piece("removed", " ".join(before[i:j])))
        if k < m:
            pieces.append(Piece("added", " ".join(after[k:m])))
    return pieces


def similarity(text: str, references: Sequence[str]) -> float:
    """The largest share of matching words (Ratcliff and Obershelp, 0 to 1) with any reference."""
    return max(
        difflib.SequenceMatcher(None, text.split(), reference.split(), autojunk=False).ratio()
        for reference in references
    )
