"""Faults in turns and answers: empty, out of order, copied, contradicting, one-sided, of odd length, too few."""

import math
from collections import Counter
from collections.abc import Sequence
from itertools import chain

import numpy as np

from whetstone.data.example import Example
from whetstone.data.finding import EXAMPLES_SHOWN, Finding, excerpt
from whetstone.data.lint.questions import prompt_digests
from whetstone.data.lint.shown import counted, percent, ratio, shown
from whetstone.data.split import Splits

__all__ = [
    "category_imbalance",
    "contradictory_references",
    "empty_turns",
    "identity_pairs",
    "label_imbalance",
    "length_outliers",
    "role_order",
    "small_test",
]

MANY_COPIES = 0.5
LABELS = 50
"""More distinct answers than this are not labels."""
USES_OF_A_LABEL = 20
"""Nor are they where an answer is used fewer times than this on average."""
LABEL_RATIO = 10
LABEL_SHARE = 0.9
CATEGORY_RATIO = 20
DEVIATIONS = 6.0
"""How many robust standard deviations of log length make an outlier; in 754 learner sentences (JFLEG) the farthest, of
six characters, is 5.0 away."""
LEAST_FACTOR = 8.0
"""An outlier is also at least so many times as long, or as short, as the median."""
RARE_SHARE = 0.02
RARE_COUNT = 3
TEST_EXAMPLES = 100
TEST_GROUPS = 30


def empty_turns(examples: Sequence[Example]) -> Finding | None:
    """Examples with a blank turn or a blank reference."""
    bad = [example for example in examples if _blank_turn(example)]
    if not bad:
        return None
    return Finding(
        code="empty-turn",
        severity="error",
        count=len(bad),
        total=len(examples),
        message=f"{counted(len(bad), len(examples))} have an empty turn or an empty answer.",
        mend="Fill these turns or remove the rows; an empty answer teaches the model to say nothing.",
        examples=shown((example, f"{_blank_turn(example)} is empty") for example in bad),
    )


def role_order(examples: Sequence[Example]) -> Finding | None:
    """Examples whose turns are not an optional system turn and then user and assistant in alternation, user last."""
    bad = [example for example in examples if example.messages and not _alternates(example)]
    if not bad:
        return None
    return Finding(
        code="role-order",
        severity="error",
        count=len(bad),
        total=len(examples),
        message=f"{counted(len(bad), len(examples))} have turns out of "
        "order: after an optional system turn, user and assistant must alternate, from user to user.",
        mend="Merge neighbouring turns of one role, or remove the rows; chat templates reject such conversations.",
        examples=shown((example, ", ".join(message.role for message in example.messages)) for example in bad),
    )


def identity_pairs(splits: Splits) -> Finding | None:
    """Examples whose source is itself a right answer, so that copying it scores."""
    parts = (splits.train, splits.validation, splits.test)
    asked = [example for example in chain(*parts) if example.messages]
    same = [example for example in asked if _is_identity(example)]
    if not same:
        return None
    test = sum(example.messages != () and _is_identity(example) for example in splits.test)
    return Finding(
        code="identity-pair",
        severity="warning" if len(same) > MANY_COPIES * len(asked) else "note",
        count=len(same),
        total=len(asked),
        message=f"{counted(len(same), len(asked))} have their source among the "
        f"right answers; copying it is right for {percent(test, len(splits.test))} of the test examples.",
        mend="Keep them if leaving a text as it is belongs to the task, and judge against copy-input.",
        examples=shown((example, example.source) for example in same),
    )


def contradictory_references(examples: Sequence[Example]) -> Finding | None:
    """Prompts that several examples ask, with no answer that all of them accept."""
    asked = [example for example in examples if example.messages]
    keys = prompt_digests(asked)
    prompts, counts = np.unique(keys, return_counts=True)
    repeated = prompts[counts > 1]
    together: dict[int, list[Example]] = {}
    for index in np.flatnonzero(np.isin(keys, repeated)).tolist():
        together.setdefault(int(keys[index]), []).append(asked[index])
    bad = [same for same in together.values() if not set.intersection(*map(_answers, same))]
    if not bad:
        return None
    return Finding(
        code="contradictory-references",
        severity="warning",
        count=len(bad),
        total=len(prompts),
        message=f"{counted(len(bad), len(prompts), 'prompts')} are asked by several "
        "examples that have no answer in common.",
        mend="Put alternative answers in one row as its references, and remove the answers that are wrong.",
        examples=tuple(
            f"{same[0].id} and {same[1].id}: {excerpt(same[0].messages[-1].content)}" for same in bad[:EXAMPLES_SHOWN]
        ),
    )


def label_imbalance(train: Sequence[Example]) -> Finding | None:
    """Answers that are labels, one of which is nearly always, or hardly ever, right."""
    used: Counter[str] = Counter()
    for example in train:
        used[example.references[0].strip()] += 1
        if len(used) > LABELS:
            return None
    if len(train) < USES_OF_A_LABEL * max(len(used), 1):
        return None
    (most, most_uses), (least, least_uses) = used.most_common()[0], used.most_common()[-1]
    if most_uses <= LABEL_SHARE * len(train) and most_uses <= LABEL_RATIO * least_uses:
        return None
    rarest = f"; '{excerpt(least, 30)}' is the answer of {least_uses:,}" if len(used) > 1 else ""
    return Finding(
        code="label-imbalance",
        severity="warning",
        count=most_uses,
        total=len(train),
        message=f"'{excerpt(most, 30)}' is the answer of {ratio(most_uses, len(train))} training examples "
        f"({percent(most_uses, len(train))}){rarest}: always saying it is right that often.",
        mend="Add examples of the rare answers or take out some of the frequent one, and judge each answer on its own.",
        examples=tuple(f"{excerpt(answer, 30)}: {uses:,}" for answer, uses in used.most_common(EXAMPLES_SHOWN)),
    )


def category_imbalance(splits: Splits) -> Finding | None:
    """Categories that training hardly shows, or not at all, while they are judged."""
    trained = Counter(example.category for example in splits.train)
    held_out = Counter(example.category for example in (*splits.validation, *splits.test))
    largest = max(trained.values(), default=0)
    rare = sorted(
        (category for category in trained | held_out if trained[category] * CATEGORY_RATIO < largest),
        key=lambda category: (trained[category], category),
    )
    if not rare:
        return None
    never = sum(not trained[category] for category in rare)
    unseen = f", {never:,} of them not at all" if never else ""
    return Finding(
        code="label-imbalance",
        severity="warning",
        count=len(rare),
        total=len(trained | held_out),
        message=f"{ratio(len(rare), len(trained | held_out))} categories are rare in training{unseen}: fewer than one "
        f"example for {CATEGORY_RATIO} of the largest category, which has {largest:,}.",
        mend="Add training examples of these categories, or leave them out of what is judged.",
        examples=tuple(
            f"{excerpt(category, 30)}: {trained[category]:,} in training, {held_out[category]:,} held out"
            for category in rare[:EXAMPLES_SHOWN]
        ),
    )


def length_outliers(examples: Sequence[Example]) -> Finding | None:
    """Sources or answers that are far longer or far shorter than the others.

    The distance is that of the logarithm of the length from its median, in robust standard deviations (1.4826 times
    the median absolute deviation: Rousseeuw and Croux, Alternatives to the median absolute deviation, JASA 1993).
    What is not rare is another kind of text and no outlier: one-word answers among sentences are left alone.
    """
    odd: dict[int, str] = {}
    for name, lengths in (
        ("source", [len(example.source) for example in examples]),
        ("answer", [len(example.references[0]) for example in examples]),
    ):
        for index in _outliers(lengths):
            said = f"{name} of {lengths[index]:,} characters, the median is {round(np.median(lengths)):,}"
            odd.setdefault(index, said)
    if not odd:
        return None
    return Finding(
        code="length-outlier",
        severity="warning",
        count=len(odd),
        total=len(examples),
        message=f"{counted(len(odd), len(examples))} are far longer or shorter than the others.",
        mend="Look at them: a whole document in one field, a cut text or a wrong column is the usual cause.",
        examples=shown((examples[index], said) for index, said in odd.items()),
    )


def small_test(test: Sequence[Example]) -> Finding | None:
    """A test split that is too small to tell much."""
    groups = len({example.group for example in test})
    if not test or (len(test) >= TEST_EXAMPLES and groups >= TEST_GROUPS):
        return None
    by_group = groups < min(len(test), TEST_GROUPS)
    few = groups if by_group else len(test)
    low, high = _interval(0.7, few)
    unit = f"examples from {groups:,} groups, and rows of one group say much the same" if by_group else "examples"
    return Finding(
        code="small-test",
        severity="warning",
        count=len(test),
        total=len(test),
        message=f"The test split has only {len(test):,} {unit}: if 70 % are right, the true share lies between "
        f"{100 * low:.0f} and {100 * high:.0f} % (95 % interval).",
        mend=f"Raise data.split.test, or add data: {TEST_EXAMPLES} examples in {TEST_GROUPS} groups are the least.",
    )


def _outliers(lengths: Sequence[int]) -> list[int]:
    """Where the long ones stand, then the short ones; of either none when there are many."""
    if not lengths:
        return []
    logs = np.log(np.maximum(lengths, 1))
    distance = logs - np.median(logs)
    limit = max(DEVIATIONS * 1.4826 * float(np.median(np.abs(distance))), math.log(LEAST_FACTOR))
    sides = (np.flatnonzero(distance > limit), np.flatnonzero(distance < -limit))
    return [int(index) for side in sides if len(side) <= max(RARE_COUNT, RARE_SHARE * len(lengths)) for index in side]


def _interval(share: float, count: int) -> tuple[float, float]:
    """The 95 % score interval of a share (Wilson, Probable Inference, JASA 1927)."""
    # Imported late: a second, that only a test part which is too small costs.
    from statsmodels.stats.proportion import proportion_confint

    low, high = proportion_confint(share * count, count, method="wilson")
    return float(low), float(high)


def _blank_turn(example: Example) -> str:
    """Names the first blank turn or answer; empty when there is none."""
    for number, message in enumerate(example.messages, start=1):
        if not message.content.strip():
            return f"turn {number} ({message.role})"
    return "" if all(reference.strip() for reference in example.references) else "the answer"


def _alternates(example: Example) -> bool:
    roles = [message.role for message in example.messages]
    turns = roles[1:] if roles[0] == "system" else roles
    wanted = ["user" if index % 2 == 0 else "assistant" for index in range(len(turns))]
    return turns == wanted and len(turns) % 2 == 1


def _is_identity(example: Example) -> bool:
    return example.source.strip() in {reference.strip() for reference in example.references}


def _answers(example: Example) -> set[str]:
    return {reference.strip() for reference in example.references}
