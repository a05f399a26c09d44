"""The seeded generator of learner sentences with their corrections, and the split by frame and vocabulary group.

The test cells share no theme with the training cells, and a third of them no frame either, so that what is measured
on them is correcting, not recalling. Everything depends on the seeds alone.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from random import Random
from typing import NamedTuple

from whetstone.data.grammar.errors import Learner, corrupt
from whetstone.data.grammar.frames import FRAMES, Frame
from whetstone.data.grammar.sentence import ErrorKind, render
from whetstone.data.grammar.vocabulary import THEMES, Theme
from whetstone.errors import UserError

__all__ = ["Cell", "Cells", "CleanSentence", "Correction", "clean_sentences", "corrections", "split_cells"]

FRAME_OF: dict[str, Frame] = {frame.name: frame for frame in FRAMES}
THEME_OF: dict[str, Theme] = {theme.name: theme for theme in THEMES}
TEST_FRAMES_PER_DIFFICULTY = 2
TEST_THEMES = 3
VALIDATION_CELLS = 12
# Of every 25 learner sentences 3 (12 %) have no error and 5 have two, whatever the sample.
ERROR_COUNTS = (0,) * 3 + (1,) * 17 + (2,) * 5
# A cell that yields nothing new in so many draws counts as exhausted.
MAX_DRAWS = 300


class Cell(NamedTuple):
    """A frame and a theme, by name: the unit of the split."""

    frame: str
    theme: str


@dataclass(frozen=True, slots=True)
class Cells:
    """The split of all cells.

    Attributes:
        train: Training frames with training themes.
        validation: A few of the cells that are neither for training nor for testing.
        test: Held-out themes, with all held-out frames and some of the others.
        mixed: The remaining cells, with either the frame or the theme held out.
    """

    train: tuple[Cell, ...]
    validation: tuple[Cell, ...]
    test: tuple[Cell, ...]
    mixed: tuple[Cell, ...]


@dataclass(frozen=True, slots=True)
class Correction:
    """A learner sentence and its right corrections.

    Attributes:
        source: What the learner wrote.
        references: One to four right corrections, the clean sentence first; the source itself where it is right.
        frame: The frame of its cell.
        theme: The theme of its cell.
        errors: What was planted: nothing, one error or two.
    """

    source: str
    references: tuple[str, ...]
    frame: str
    theme: str
    errors: tuple[ErrorKind, ...]


@dataclass(frozen=True, slots=True)
class CleanSentence:
    """A right sentence with its cell."""

    text: str
    frame: str
    theme: str


def split_cells(seed: int) -> Cells:
    """Holds out three themes, and two frames of each difficulty.

    Nothing in training uses a held-out theme. Half of the cells of a held-out theme are for testing: all with a
    held-out frame, and some with a frame that training knows from other themes. The other half is left for a base
    model to read, which has to have seen a word to be able to spell it.

    Args:
        seed: Decides which.

    Returns:
        The split; every cell is in exactly one part.
    """
    rng = Random(f"split:{seed}")
    frames = {
        name
        for difficulty in (1, 2, 3)
        for name in rng.sample([f.name for f in FRAMES if f.difficulty == difficulty], TEST_FRAMES_PER_DIFFICULTY)
    }
    themes = rng.sample(list(THEME_OF), TEST_THEMES)
    known = [frame for frame in FRAME_OF if frame not in frames]
    tested = {theme: {*frames, *rng.sample(known, len(FRAME_OF) // 2 - len(frames))} for theme in themes}
    cells = [Cell(frame, theme) for frame in FRAME_OF for theme in THEME_OF]
    test = tuple(cell for cell in cells if cell.frame in tested.get(cell.theme, ()))
    train = tuple(cell for cell in cells if cell.frame not in frames and cell.theme not in tested)
    rest = [cell for cell in cells if cell not in {*test, *train}]
    validation = set(rng.sample(rest, VALIDATION_CELLS))
    return Cells(
        train=train,
        validation=tuple(cell for cell in rest if cell in validation),
        test=test,
        mixed=tuple(cell for cell in rest if cell not in validation),
    )


def clean_sentences(cells: Sequence[Cell], count: int, seed: int) -> list[CleanSentence]:
    """Right sentences, the cells in turn; a sentence may come twice.

    Args:
        cells: Where they come from.
        count: How many.
        seed: Decides which.

    Returns:
        The sentences.
    """
    rng = Random(f"clean:{seed}")
    sentences = []
    for frame, theme in islice(cycle(cells), count):
        tokens = FRAME_OF[frame].build(THEME_OF[theme], rng)
        sentences.append(CleanSentence(render([token.text for token in tokens]), frame, theme))
    return sentences


def corrections(cells: Sequence[Cell], count: int, seed: int) -> list[Correction]:
    """Learner sentences with their corrections, no source twice, the cells in turn.

    Args:
        cells: Where they come from.
        count: How many.
        seed: Decides which.

    Returns:
        The learner sentences.

    Raises:
        UserError: The cells cannot yield that many distinct ones.
    """
    rng = Random(f"corrections:{seed}")
    error_counts = _error_counts(rng)
    seen: set[str] = set()
    found: list[Correction] = []
    fruitful = list(cells)
    while len(found) < count:
        if not fruitful:
            raise UserError(
                f"the {len(cells)} grammar cells yield only {len(found)} distinct learner sentences, not {count}: "
                "ask for fewer or give more cells"
            )
        for cell in rng.sample(fruitful, min(len(fruitful), count - len(found))):
            learner = _new_learner(cell, next(error_counts), rng, seen)
            if learner is None:
                fruitful.remove(cell)
                continue
            seen.add(learner.source)
            found.append(Correction(learner.source, learner.references, cell.frame, cell.theme, learner.errors))
    return found


def _error_counts(rng: Random) -> Iterator[int]:
    while True:
        yield from rng.sample(ERROR_COUNTS, len(ERROR_COUNTS))


def _new_learner(cell: Cell, errors: int, rng: Random, seen: set[str]) -> Learner | None:
    frame, theme = FRAME_OF[cell.frame], THEME_OF[cell.theme]
    for _ in range(MAX_DRAWS):
        learner = corrupt(frame.build(theme, rng), rng, errors)
        if learner is not None and learner.source not in seen:
            return learner
    return None
