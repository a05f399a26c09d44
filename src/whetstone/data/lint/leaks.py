"""What is held out and trained on all the same: questions, and questions with their answers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from whetstone.data.example import Example, normalised
from whetstone.data.finding import Finding, Severity, excerpt
from whetstone.data.lint.questions import Questions, compared_text, is_blank
from whetstone.data.lint.shown import counted, ratio, shown
from whetstone.data.split import Splits

__all__ = ["Overlap", "held_out_pairs", "held_out_sources"]

SHORT_CHARACTERS = 20
"""Shorter questions, such as a greeting, are asked by people who never read each other."""
FEW_SHORT = 0.05
"""Up to this share of the held-out examples, short questions that leak are a warning and not an error."""
SPLIT_BY_GROUP = (
    "Split by group: give rows of one source the same value in the field that data.group names, and let data.split "
    "divide them."
)


@dataclass(frozen=True)
class Overlap:
    """What training sees and what is held out, ready to be compared.

    Attributes:
        splits: The three parts.
        replay: General examples mixed into training; they are searched for held-out sources, and for nothing else.
    """

    splits: Splits
    replay: Sequence[Example] = ()

    @cached_property
    def held_out(self) -> tuple[Example, ...]:
        """Validation, then test."""
        return self.splits.validation + self.splits.test

    @cached_property
    def trained_questions(self) -> Questions:
        """What each training example asks."""
        return Questions.of(self.splits.train)

    @cached_property
    def held_out_questions(self) -> Questions:
        """What each held-out example asks."""
        return Questions.of(self.held_out)

    @cached_property
    def leaked_to_training(self) -> NDArray[np.bool_]:
        """Which held-out examples have their source among the training examples."""
        return np.isin(self.held_out_questions.whole, self.trained_questions.whole) & self._held_out_texts

    @cached_property
    def leaked_to_replay(self) -> NDArray[np.bool_]:
        """Which held-out examples have their source among the replayed examples.

        Replayed examples stand as they are asked, and what of their turn is the source was never said; so a held-out
        question that nothing came before is looked for as its source and as its whole turn.
        """
        held_out, replayed = self.held_out_questions, Questions.of(self.replay)
        alone = np.equal(held_out.whole, held_out.source)
        found = np.isin(held_out.whole, replayed.whole) | (alone & held_out.asked_in(replayed))
        return found & self._held_out_texts

    @cached_property
    def pairs_in_training(self) -> NDArray[np.bool_]:
        """Which held-out examples have their question and an answer in training, whatever came before the question."""
        trained, held_out = self.trained_questions, self.held_out_questions
        known: set[tuple[int, str]] = set()
        for index in np.flatnonzero(trained.asked_in(held_out)):
            known |= _pairs(trained, int(index), self.splits.train[index])
        found = held_out.asked_in(trained) & self._held_out_texts
        for index in np.flatnonzero(found):
            found[index] = not known.isdisjoint(_pairs(held_out, int(index), self.held_out[index]))
        return found

    @cached_property
    def _held_out_texts(self) -> NDArray[np.bool_]:
        """Blank sources are the same text, but no leak."""
        return np.array([not is_blank(example) for example in self.held_out], dtype=bool)


def held_out_sources(overlap: Overlap) -> Finding | None:
    """Held-out examples whose source the model is trained on."""
    leaked = overlap.leaked_to_training | overlap.leaked_to_replay
    if not leaked.any():
        return None
    only_replayed = int(np.count_nonzero(leaked & ~overlap.leaked_to_training))
    where = f" ({only_replayed:,} of them only among the replayed examples)" if only_replayed else ""
    severity, remark = _severity(overlap, leaked, lambda index: compared_text(overlap.held_out[index]))
    return Finding(
        code="held-out-source-in-training",
        severity=severity,
        count=int(leaked.sum()),
        total=len(leaked),
        message=_message(overlap.splits, leaked, f"have their source in training{where}") + remark,
        mend=SPLIT_BY_GROUP if overlap.leaked_to_training.any() else "Take these examples out of data.replay.source.",
        examples=shown(
            (example, compared_text(example)) for example, leak in zip(overlap.held_out, leaked, strict=True) if leak
        ),
    )


def held_out_pairs(overlap: Overlap) -> Finding | None:
    """Held-out examples that the model is trained on, question and answer."""
    leaked = overlap.pairs_in_training
    if not leaked.any():
        return None

    def question(index: int) -> str:
        """All that is the same: the whole conversation where that leaked, else the last question."""
        example = overlap.held_out[index]
        return compared_text(example) if overlap.leaked_to_training[index] else example.source

    severity, remark = _severity(overlap, leaked, question)
    return Finding(
        code="held-out-pair-in-training",
        severity=severity,
        count=int(leaked.sum()),
        total=len(leaked),
        message=_message(overlap.splits, leaked, "are in training with the same source and answer") + remark,
        mend=SPLIT_BY_GROUP,
        examples=shown(
            (overlap.held_out[index], f"{excerpt(question(index), 40)} -> {overlap.held_out[index].references[0]}")
            for index in np.flatnonzero(leaked).tolist()
        ),
    )


def _severity(overlap: Overlap, leaked: NDArray[np.bool_], question: Callable[[int], str]) -> tuple[Severity, str]:
    """How bad a leak is, and what the message says of it when it is not that bad."""
    if leaked.sum() > FEW_SHORT * len(overlap.held_out):
        return "error", ""
    if any(len(normalised(question(index))) >= SHORT_CHARACTERS for index in np.flatnonzero(leaked).tolist()):
        return "error", ""
    return "warning", f" All of them are short, with fewer than {SHORT_CHARACTERS} characters, as greetings are."


def _message(splits: Splits, chosen: NDArray[np.bool_], fault: str) -> str:
    """Says ``744 of 750 held-out examples (99.2 %) <fault>: validation 370 of 375, test 374 of 375``."""
    ends = len(splits.validation)
    parts = ", ".join(
        f"{name} {ratio(int(part.sum()), len(part))}"
        for name, part in (("validation", chosen[:ends]), ("test", chosen[ends:]))
        if len(part)
    )
    return f"{counted(int(chosen.sum()), len(chosen), 'held-out examples')} {fault}: {parts}."


def _pairs(questions: Questions, index: int, example: Example) -> set[tuple[int, str]]:
    asked = {int(questions.source[index]), int(questions.turn[index])}
    return {(question, reference.strip()) for question in asked for reference in example.references}
