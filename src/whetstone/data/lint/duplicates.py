"""Examples that are there twice: within a part, across the parts, exactly or nearly.

Texts are compared by 64-bit digests (BLAKE2b), never held a second time: 8 bytes a text. Among a million texts two
different ones share a digest with probability 3e-8 (the birthday bound, n**2 / 2**65).
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from whetstone.data.example import Example, normalised
from whetstone.data.finding import EXAMPLES_SHOWN, Finding, excerpt
from whetstone.data.lint.near import Near, NearSearch
from whetstone.data.lint.shown import counted, percent, ratio, shown
from whetstone.data.split import Splits

__all__ = [
    "Overlap",
    "compared_text",
    "digests",
    "exact_duplicates",
    "held_out_pairs",
    "held_out_sources",
    "near_duplicates",
]

CONTEXT_CHARACTERS = 15
MANY_NEAR_DUPLICATES = 0.1
"""From this share of the training texts on, near duplicates are a warning and not a note."""
SPLIT_BY_GROUP = (
    "Split by group: give rows of one source the same value in the field that data.group names, and let data.split "
    "divide them."
)


def compared_text(example: Example) -> str:
    """What makes two examples the same question: the source, or with several user turns the conversation so far."""
    if sum(message.role == "user" for message in example.messages) > 1:
        return "\n".join(message.content for message in example.messages)
    return example.source


def digests(texts: Iterable[str]) -> NDArray[np.uint64]:
    """The 64-bit digest of each text."""
    hashed = (hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest() for text in texts)
    return np.fromiter((int.from_bytes(digest, "little") for digest in hashed), dtype=np.uint64)


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
    def trained_sources(self) -> NDArray[np.uint64]:
        """Digest of each training source."""
        return _source_digests(self.splits.train)

    @cached_property
    def held_out_sources(self) -> NDArray[np.uint64]:
        """Digest of each held-out source."""
        return _source_digests(self.held_out)

    @cached_property
    def leaked_to_training(self) -> NDArray[np.bool_]:
        """Which held-out examples have their source among the training examples."""
        return np.isin(self.held_out_sources, self.trained_sources) & self._held_out_texts

    @cached_property
    def leaked_to_replay(self) -> NDArray[np.bool_]:
        """Which held-out examples have their source among the replayed examples."""
        return np.isin(self.held_out_sources, _source_digests(self.replay)) & self._held_out_texts

    @property
    def _held_out_texts(self) -> NDArray[np.bool_]:
        """Blank sources are the same text, but no leak."""
        return np.array([not _is_blank(example) for example in self.held_out], dtype=bool)


def held_out_sources(overlap: Overlap) -> Finding | None:
    """Held-out examples whose source the model is trained on."""
    leaked = overlap.leaked_to_training | overlap.leaked_to_replay
    if not leaked.any():
        return None
    only_replayed = int(np.count_nonzero(leaked & ~overlap.leaked_to_training))
    where = f" ({only_replayed:,} of them only among the replayed examples)" if only_replayed else ""
    return Finding(
        code="held-out-source-in-training",
        severity="error",
        count=int(leaked.sum()),
        total=len(leaked),
        message=_held_out_message(overlap.splits, leaked, f"have their source in training{where}"),
        mend=SPLIT_BY_GROUP if overlap.leaked_to_training.any() else "Take these examples out of data.replay.source.",
        examples=shown(
            (example, compared_text(example)) for example, leak in zip(overlap.held_out, leaked, strict=True) if leak
        ),
    )


def held_out_pairs(overlap: Overlap) -> Finding | None:
    """Held-out examples that the model is trained on, source and answer."""
    if not overlap.leaked_to_training.any():
        return None
    sought = overlap.held_out_sources[overlap.leaked_to_training]
    in_both = np.flatnonzero(np.isin(overlap.trained_sources, sought))
    trained = {pair for index in in_both for pair in _pairs(overlap.splits.train[index])}
    leaked = np.array(
        [
            leak and not trained.isdisjoint(_pairs(example))
            for example, leak in zip(overlap.held_out, overlap.leaked_to_training, strict=True)
        ],
        dtype=bool,
    )
    if not leaked.any():
        return None
    return Finding(
        code="held-out-pair-in-training",
        severity="error",
        count=int(leaked.sum()),
        total=len(leaked),
        message=_held_out_message(overlap.splits, leaked, "are in training with the same source and answer"),
        mend=SPLIT_BY_GROUP,
        examples=shown(
            (example, f"{excerpt(compared_text(example), 40)} -> {example.references[0]}")
            for example, leak in zip(overlap.held_out, leaked, strict=True)
            if leak
        ),
    )


def exact_duplicates(splits: Splits) -> Finding | None:
    """Examples that repeat another of their part: the same messages and the same references."""
    count = total = 0
    said: list[str] = []
    repeated: list[Example] = []
    for name, part in splits.parts().items():
        keys = digests(
            "\x1e".join(
                [*(f"{message.role}\x1f{message.content}" for message in example.messages), *example.references]
            )
            for example in part
        )
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
    """Different sources that are nearly the same: held out and trained on, and within training."""
    examples = overlap.splits.train + overlap.held_out
    sources = np.concatenate((overlap.trained_sources, overlap.held_out_sources))
    first = np.sort(np.unique(sources, return_index=True)[1])
    named = [examples[index] for index in first if not _is_blank(examples[index])]
    pool = int(sum(index < len(overlap.splits.train) and not _is_blank(examples[index]) for index in first))
    groups = np.full(len(named), -1)
    groups[:pool] = digests(example.group for example in named[:pool]).view(np.int64)
    search = NearSearch(len(named), lambda text: compared_text(named[text]))
    near = search.pairs(threshold, groups, pool) if pool else []
    findings = [
        _near_across(named, [pair for pair in near if pair.text >= pool], len(named) - pool, threshold),
        _near_within(named, [pair for pair in near if pair.text < pool], pool, threshold),
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


def _held_out_message(splits: Splits, chosen: NDArray[np.bool_], fault: str) -> str:
    """Says ``744 of 750 held-out examples (99.2 %) <fault>: validation 370 of 375, test 374 of 375``."""
    ends = len(splits.validation)
    parts = ", ".join(
        f"{name} {ratio(int(part.sum()), len(part))}"
        for name, part in (("validation", chosen[:ends]), ("test", chosen[ends:]))
        if len(part)
    )
    return f"{counted(int(chosen.sum()), len(chosen), 'held-out examples')} {fault}: {parts}."


def _source_digests(examples: Sequence[Example]) -> NDArray[np.uint64]:
    return digests(normalised(compared_text(example)) for example in examples)


def _pairs(example: Example) -> set[int]:
    source = normalised(compared_text(example))
    return set(digests(f"{source}\x1f{reference.strip()}" for reference in example.references).tolist())


def _is_blank(example: Example) -> bool:
    text = compared_text(example)
    return not text or text.isspace()
