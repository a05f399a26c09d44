"""F0.5 of the edits that ERRANT finds: of what the answer changed, how much should have been, and what was missed.

ERRANT aligns source and correction with the parses of spaCy's English model; both are an optional extra.
"""

import importlib.util
from collections.abc import Sequence
from functools import cache, lru_cache
from typing import Any, Protocol

from whetstone.data.example import Example
from whetstone.errors import UserError
from whetstone.evaluate.metrics.metric import Metric
from whetstone.evaluate.sample import Sample

__all__ = ["ERRANT_F05", "errant_is_installed", "require_errant"]

_PACKAGES = ("errant", "en_core_web_sm")
_NOT_CORRECTED = "UNK"
"""ERRANT's type of edits that mark an error without a correction; its own scorer leaves them out."""

_Edits = frozenset[tuple[int, int, str]]


class _Edit(Protocol):
    o_start: int
    o_end: int
    c_str: str
    type: str


class _Annotator(Protocol):
    def parse(self, text: str) -> Any: ...

    def annotate(self, orig: Any, cor: Any) -> Sequence[_Edit]: ...


def errant_is_installed() -> bool:
    """Whether ERRANT and its English model can be imported here."""
    return all(importlib.util.find_spec(package) for package in _PACKAGES)


def require_errant() -> None:
    """Says what to install where something is missing.

    Raises:
        UserError: ERRANT or its English model is not installed.
    """
    if not errant_is_installed():
        raise UserError(
            "metric 'errant_f05' needs ERRANT and spaCy's English model: pip install 'whetstone[errant]' and "
            "python -m spacy download en_core_web_sm"
        )


def _errant_f05(example: Example, sample: Sample) -> float | None:
    if not example.references:
        return None
    source = _parsed(example.source)
    made = _edits(source, sample.text)
    return max(_f05(made, _edits(source, reference)) for reference in example.references)


def _f05(made: _Edits, wanted: _Edits) -> float:
    right = len(made & wanted)
    # As ERRANT has it: who changes nothing makes no wrong change, and where nothing is wanted nothing is missed.
    precision = right / len(made) if made - wanted else 1.0
    recall = right / len(wanted) if wanted - made else 1.0
    return 1.25 * precision * recall / (0.25 * precision + recall) if precision + recall else 0.0


def _edits(source: Any, corrected: str) -> _Edits:
    found = _annotator().annotate(source, _parsed(corrected))
    return frozenset((edit.o_start, edit.o_end, edit.c_str) for edit in found if edit.type != _NOT_CORRECTED)


@lru_cache(maxsize=256)
def _parsed(text: str) -> Any:
    return _annotator().parse(text)


@cache
def _annotator() -> _Annotator:
    require_errant()
    import errant

    annotator: _Annotator = errant.load("en")
    return annotator


ERRANT_F05 = Metric(
    name="errant_f05",
    title="ERRANT F0.5",
    unit="score",
    direction="higher",
    definition=(
        "F0.5 of the answer's edits of the input (span and correction) against those of the best reference, for each "
        "answer; texts are parted into words by white space, and only English is read."
    ),
    score=_errant_f05,
    source="Bryant, Felice and Briscoe, ACL 2017; ERRANT's own total sums the edits of a test set instead.",
)
