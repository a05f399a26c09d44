"""Examples that are there twice: within a part exactly, within training and across the parts nearly."""

from collections.abc import Sequence

import numpy as np

from whetstone.data.example import Example
from whetstone.data.finding import EXAMPLES_SHOWN, Finding, excerpt
from whetstone.data.lint.leaks import Overlap
from whetstone.data.lint.near import COMMON_THROUGHOUT, Near, NearSearch
from whetstone.data.lint.questions import compared_text, digests, example_digests, is_blank
from whetstone.data.lint.shown import counted, percent, ratio, shown
from whetstone.data.split import Splits

__all__ = ["exact_duplicates", "near_duplicates"]

CONTEXT_CHARACTERS = 15
MANY_NEAR_DUPLICATES = 0.1
"""From this share of the training texts on, near duplicates are a warning and not a note."""


def exact_duplicates(splits: Splits) -> Finding | None:
    """Examples that repeat another of their part: the same messages and the same references."""
    count = total = 0
    said: list[str] = []
    repeated: list[Example] = []
    for name, part in splits.parts().items():
        keys = example_digests(part)
        first = np.unique(keys, return_index=True)[1]
        later = np.ones(len(part), dtype=bool)
        later[first] = False
        extra = len(part) - len(first)
        count, total = count + extra, total + len(part)
        if extra:
            said.append(f"{ratio(extra, len(part))} in {name} ({percent(extra, len(part))})")
            repeated += [part[i] for i in np.flatnonzero(later)[:EXAMPLES_SHOWN]]
    if not count:
        return None
    return Finding(
        code="exact-duplicate",
        severity="warning",
        count=count,
        total=total,
        message=f"Examples repeat an earlier one word for word: {', '.join(said)}.",
        mend="Keep one of each: a repeated training example counts double, a repeated test example is no new evidence.",
        examples=shown((example, compared_text(example)) for example in repeated),
    )


def near_duplicates(overlap: Overlap, threshold: float) -> list[Finding]:
    """Different sources that are nearly the same: held out and trained on, within training, and by the dozen."""
    examples = overlap.splits.train + overlap.held_out
    sources = np.concatenate((overlap.trained_questions.whole, overlap.held_out_questions.whole))
    first = np.sort(np.unique(sources, return_index=True)[1]).tolist()
    kept = [index for index in first if not is_blank(examples[index])]
    named = [examples[index] for index in kept]
    pool = sum(index < len(overlap.splits.train) for index in kept)
    groups = np.full(len(named), -1)
    groups[:pool] = digests(example.group for example in named[:pool]).view(np.int64)
    search = NearSearch(len(named), lambda text: compared_text(named[text]))
    near = search.pairs(threshold, groups, pool) if pool else []
    findings = [
        _near_across(named, [pair for pair in near if pair.text >= pool], len(named) - pool, threshold),
        _near_within(named, [pair for pair in near if pair.text < pool], pool, threshold),
        _common_throughout(named, search.common_throughout()),
    ]
    return [finding for finding in findings if finding]


def _near_across(named: Sequence[Example], near: Sequence[Near], total: int, threshold: float) -> Finding | None:
    if not near:
        return None
    return Finding(
        code="near-duplicate-across-splits",
        severity="warning",
        count=len(near),
        total=total,
        message=f"{counted(len(near), total, 'held-out sources that are not in training')} "
        f"are nearly the same as one that is (Jaccard similarity {threshold:g} or more).",
        mend="Give both the same value in the field that data.group names, so that they land in the same part.",
        examples=_near_examples(named, near),
    )


def _near_within(named: Sequence[Example], near: Sequence[Near], total: int, threshold: float) -> Finding | None:
    if not near:
        return None
    return Finding(
        code="near-duplicate",
        severity="warning" if len(near) >= MANY_NEAR_DUPLICATES * total else "note",
        count=len(near),
        total=total,
        message=f"{counted(len(near), total, 'distinct training sources')} are nearly the same "
        f"as one of another group (Jaccard similarity {threshold:g} or more).",
        mend="Keep the best of each, or give them one group so that none of them can be held out.",
        examples=_near_examples(named, near),
    )


def _common_throughout(named: Sequence[Example], texts: Sequence[int]) -> Finding | None:
    """What the search for pairs cannot see, because it leaves out what many texts share."""
    if not texts:
        return None
    return Finding(
        code="near-duplicate",
        severity="note",
        count=len(texts),
        total=len(named),
        message=f"{counted(len(texts), len(named), 'distinct sources')} consist almost wholly ({COMMON_THROUGHOUT:.0%} "
        "or more) of text that more than a tenth of all sources share: one template, or one text over and over.",
        mend="Keep a few of a text that is there over and over; where the template is the task, nothing is wrong.",
        examples=shown((named[text], compared_text(named[text])) for text in texts),
    )


def _near_examples(named: Sequence[Example], near: Sequence[Near]) -> tuple[str, ...]:
    # The two of a pair often each have the other for a partner; one line shows both.
    once = {frozenset((pair.text, pair.partner)): pair for pair in near}.values()
    best = sorted(once, key=lambda pair: -pair.similarity)[:EXAMPLES_SHOWN]
    return tuple(_near_example(named[pair.text], named[pair.partner], pair.similarity) for pair in best)


def _near_example(first: Example, second: Example, similarity: float) -> str:
    """Both texts from shortly before they differ: their beginnings are the same more often than not."""
    a, b = compared_text(first), compared_text(second)
    differs = next((i for i, (left, right) in enumerate(zip(a, b, strict=False)) if left != right), min(len(a), len(b)))
    start = max(differs - CONTEXT_CHARACTERS, 0)
    left = "…" if start else ""
    return (
        f"{first.id}: {left}{excerpt(a[start:], 40)} ~ {second.id}: {left}{excerpt(b[start:], 40)} ({similarity:.2f})"
    )
