"""Is the answer caught in a loop?"""

from whetstone.data.answer import normalise
from whetstone.data.example import Example
from whetstone.evaluate.metrics.metric import Metric
from whetstone.evaluate.sample import Sample

__all__ = ["REPETITION", "ends_in_loop"]

_TIMES = 3
_CHARACTERS = 40
"""Shorter repetitions have their uses: rows of dots, refrains, the bars of a table."""


def ends_in_loop(text: str) -> bool:
    """Whether a text ends in one piece said three times in a row or more, 40 characters or more together.

    The piece may be a letter, a word, a line or a paragraph, and the last time may be cut off after the three. It is
    compared in characters, white space apart, so that it is found in languages without spaces too.

    The end of ``length`` characters has the period ``p`` when it equals itself, moved by ``p``. Read backwards it is a
    beginning, whose shortest period the failure function of Knuth, Morris and Pratt (1977) gives: all ends are tried in
    one pass over the text.
    """
    answer = normalise(text)
    # The space between two pieces belongs to a piece, so the last one may lack it.
    return _begins_with_loop(answer[::-1]) or _begins_with_loop(f"{answer} "[::-1])


def _begins_with_loop(text: str) -> bool:
    border = [0] * (len(text) + 1)
    matched = 0
    for length in range(2, len(text) + 1):
        character = text[length - 1]
        while matched and text[matched] != character:
            matched = border[matched]
        matched += text[matched] == character
        border[length] = matched
        if length >= _CHARACTERS and _TIMES * (length - matched) <= length:
            return True
    return False


def _repetition(_: Example, sample: Sample) -> float:
    return float(ends_in_loop(sample.text))


REPETITION = Metric(
    name="repetition",
    title="Repetition",
    unit="share",
    direction="lower",
    definition=(
        "The answer ends in one piece of text said three times in a row or more, 40 characters or more together, white "
        "space apart."
    ),
    score=_repetition,
    source="After the repetition of Holtzman et al., ICLR 2020 (two words, three times), in characters.",
)
