"""Texts that are nearly the same: MinHash signatures, locality-sensitive hashing, then the exact similarity.

What is notable:

- The similarity is the Jaccard similarity of the sets of character 5-grams of the normalised texts. A 5-gram that more
  than a tenth of the texts contain says nothing (an instruction that opens every prompt, ``" the "``) and is left out:
  otherwise all prompts of one template would be near duplicates. What that hides is told on its own: the texts that
  consist of such 5-grams almost wholly.
- A signature keeps the lowest byte of each of its 128 slots (b-bit minwise hashing, Li and König, WWW 2010), so a text
  costs 128 bytes. Two slots agree with probability ``s`` (``s + (1 - s) / 256`` with the lowest byte alone).
- The signature is cut into bands of ``r`` slots; two texts are candidates when they agree on one whole band of ``b``,
  which happens with probability ``1 - (1 - s**r)**b`` (Leskovec, Rajaraman and Ullman, Mining of Massive Datasets,
  section 3.4). No bucket is ever searched in full: each text meets at most eight others in each.
- Every reported pair is checked with the exact similarity: there are no false positives.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from rensa import RMinHash

from whetstone.data.example import normalised

__all__ = ["COMMON_THROUGHOUT", "Near", "NearSearch", "candidate_probability", "slots_per_band"]

SHINGLE_CHARACTERS = 5
SLOTS = 128
SEED = 1
COMMON_SHARE = 0.1
COMMON_SAMPLE = 1000
"""How many texts are looked at for common 5-grams; with fewer than a tenth of this no 5-gram is called common."""
COMMON_CHARACTERS = 2_000_000
"""How many characters are looked at for them in all, the same number from the beginning of each text."""
COMMON_THROUGHOUT = 0.8
"""From this share of common ones among its 5-grams on, a text consists of them almost wholly."""
PARTNERS_TRIED = 8
CHECKS_FOR_EACH_TEXT = 3
"""Exact comparisons that a text may fail before it counts as having no near duplicate."""
BATCH_CHARACTERS = 500_000
BATCH_TEXTS = 50_000


@dataclass(frozen=True, slots=True)
class Near:
    """A text, another that is nearly the same, and their exact Jaccard similarity."""

    text: int
    partner: int
    similarity: float


def candidate_probability(similarity: float, slots: int) -> float:
    """The share of pairs of a similarity that agree on at least one band of ``slots`` slots."""
    return 1 - (1 - similarity**slots) ** (SLOTS // slots)


def slots_per_band(threshold: float) -> int:
    """The widest band, at most eight slots, that still finds 97 % of the pairs 0.05 above the threshold."""
    wanted = min(threshold + 0.05, 1.0)
    return next(slots for slots in range(8, 0, -1) if slots == 1 or candidate_probability(wanted, slots) >= 0.97)


class NearSearch:
    """Looks for a near duplicate of each text.

    Args:
        count: How many texts there are.
        text_at: Gives a text by its number; called a few times for each, so that no copy of all texts is held.
    """

    def __init__(self, count: int, text_at: Callable[[int], str]) -> None:
        self._count = count
        self._text_at = text_at
        self._common = self._common_shingles()

    def similarity(self, first: int, second: int) -> float:
        """The exact Jaccard similarity of two texts; 0 where nothing but common 5-grams is left of them."""
        a, b = self._rare_shingles(first), self._rare_shingles(second)
        shared = len(np.intersect1d(a, b, assume_unique=True))
        return shared / (len(a) + len(b) - shared) if shared else 0.0

    def pairs(self, threshold: float, groups: NDArray[np.int64], pool: int) -> list[Near]:
        """For each text one near duplicate among the first ``pool`` texts that is of another group, if one is found.

        Args:
            threshold: The least Jaccard similarity.
            groups: The group of each text.
            pool: How many texts may be a partner; those after them are only looked up.

        Returns:
            At most one pair for each text, ordered by text.
        """
        signatures = self._read[0]
        slots = slots_per_band(threshold)
        # Two standard deviations of the estimate below the threshold drop 2 % of the pairs that are just at it.
        least = threshold - 2 * math.sqrt(threshold * (1 - threshold) / SLOTS)
        found: dict[int, Near] = {}
        waiting = np.ones(self._count, dtype=bool)
        refused = np.full(self._count, -1)
        failures = np.zeros(self._count, dtype=np.uint8)
        for start in range(0, SLOTS - slots + 1, slots):
            buckets = _Buckets(signatures[:, start : start + slots], pool)
            for text, partner in _candidates(signatures, buckets, groups, waiting, least):
                if text in found or refused[text] == partner:
                    continue
                similarity = self.similarity(text, partner)
                if similarity < threshold:
                    refused[text] = partner
                    failures[text] += 1
                    waiting[text] = failures[text] < CHECKS_FOR_EACH_TEXT
                    continue
                found[text] = Near(text, partner, similarity)
                waiting[text] = False
                if text < pool and partner not in found:
                    found[partner] = Near(partner, text, similarity)
                    waiting[partner] = False
        return [found[text] for text in sorted(found)]

    def common_throughout(self) -> list[int]:
        """The texts that consist almost wholly of common 5-grams, by number."""
        return self._read[1]

    def _rare_shingles(self, text: int) -> NDArray[np.uint64]:
        shingles = _shingles(normalised(self._text_at(text)))
        return shingles[~_is_among(shingles, self._common)]

    def _common_shingles(self) -> NDArray[np.uint64]:
        """The hashes of the common 5-grams, sorted."""
        if self._count < COMMON_SAMPLE / 10:
            return np.empty(0, dtype=np.uint64)
        # Drawn, not every k-th: rows that were made from templates in turn would make a stride see some of them only.
        size = min(self._count, COMMON_SAMPLE)
        sample = np.random.default_rng(SEED).choice(self._count, size, replace=False).tolist()
        most = COMMON_CHARACTERS // size
        seen = np.concatenate([_shingles(normalised(self._text_at(text)[:most])) for text in sample])
        shingles, texts = np.unique(seen, return_counts=True)
        return shingles[texts > COMMON_SHARE * size]

    @cached_property
    def _read(self) -> tuple[NDArray[np.uint8], list[int]]:
        """The lowest byte of each slot of each text (texts, SLOTS), and which texts are common throughout."""
        # The top 16 bits of a hash are looked up in a table. A rare 5-gram that shares them with a common one is left
        # out too, in every text alike, which moves the estimate by less than its noise.
        common = np.zeros(1 << 16, dtype=bool)
        common[self._common >> np.uint64(48)] = True
        signatures = np.empty((self._count, SLOTS), dtype=np.uint8)
        throughout: list[int] = []
        row = 0
        for batch in self._batches():
            hashes, ends = _shingle_hashes(batch)
            kept = ~common[hashes >> np.uint64(48)]
            offsets = np.concatenate(([0], np.cumsum(kept)[ends - 1])).astype(np.uint64)
            matrix = RMinHash.digest_matrix_from_flat_token_hashes(hashes[kept], offsets, SLOTS, SEED)
            signatures[row : row + len(batch)] = np.array(matrix.to_rows(), dtype=np.uint32) & 0xFF
            starts = np.concatenate(([0], ends[:-1]))
            rare = np.add.reduceat(kept, starts, dtype=np.int64)
            likely = np.flatnonzero(rare <= (1 - COMMON_THROUGHOUT) * (ends - starts)).tolist()
            throughout += [row + text for text in likely if self._is_common_throughout(batch[text])]
            row += len(batch)
        return signatures, throughout

    def _is_common_throughout(self, text: str) -> bool:
        # Each 5-gram counts once: in long prose the common ones come again and again, and the text is still its own.
        return bool(_is_among(_shingles(text), self._common).mean() >= COMMON_THROUGHOUT)

    def _batches(self) -> Iterator[list[str]]:
        batch: list[str] = []
        characters = 0
        for text in range(self._count):
            batch.append(normalised(self._text_at(text)))
            characters += len(batch[-1])
            if characters > BATCH_CHARACTERS:
                yield batch
                batch, characters = [], 0
        if batch:
            yield batch


class _Buckets:
    """The texts that agree on one band: sorted by band, and within a bucket by number, so the pool comes first."""

    def __init__(self, band: NDArray[np.uint8], pool: int) -> None:
        keys = np.zeros((len(band), 8), dtype=np.uint8)
        keys[:, : band.shape[1]] = band
        flat = keys.view(np.uint64)[:, 0]
        self.order = np.argsort(flat, kind="stable")
        ordered = flat[self.order]
        first = np.concatenate(([True], ordered[1:] != ordered[:-1]))[: len(ordered)]
        bucket = np.cumsum(first) - 1
        self.start = np.flatnonzero(first)[bucket]
        self.partners = np.bincount(bucket, weights=self.order < pool).astype(np.int64)[bucket]

    def positions(self, waiting: NDArray[np.bool_]) -> NDArray[np.int64]:
        """Where in the order a text still waits that has somebody to meet."""
        alone = (self.partners == 1) & (self.start == np.arange(len(self.order)))
        return np.flatnonzero(waiting[self.order] & (self.partners > 0) & ~alone)


def _candidates(
    signatures: NDArray[np.uint8],
    buckets: _Buckets,
    groups: NDArray[np.int64],
    waiting: NDArray[np.bool_],
    least: float,
) -> Iterator[tuple[int, int]]:
    """For each waiting text the most similar of a few others in its bucket, if the estimate reaches ``least``."""
    positions = buckets.positions(waiting)
    for begin in range(0, len(positions), BATCH_TEXTS):
        here = positions[begin : begin + BATCH_TEXTS]
        texts, start, partners = buckets.order[here], buckets.start[here], buckets.partners[here]
        best = np.full(len(here), -1)
        agreement = np.full(len(here), math.ceil(least * SLOTS) - 1)
        own = signatures[texts]
        for step in range(1, min(PARTNERS_TRIED, int(partners.max())) + 1):
            others = buckets.order[start + (here - start + step) % partners]
            agreeing = np.count_nonzero(own == signatures[others], axis=1)
            better = (agreeing > agreement) & (groups[others] != groups[texts])
            best[better] = others[better]
            agreement[better] = agreeing[better]
        hits = np.flatnonzero(best >= 0)
        yield from zip(texts[hits].tolist(), best[hits].tolist(), strict=True)


def _shingles(text: str) -> NDArray[np.uint64]:
    """The hashes of the distinct 5-grams of a normalised text, sorted; a shorter text is its own single one."""
    return np.unique(_shingle_hashes([text])[0])


def _is_among(hashes: NDArray[np.uint64], known: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Which hashes are among the known ones, which are sorted."""
    if not len(known):
        return np.zeros(len(hashes), dtype=bool)
    return np.equal(known[np.minimum(np.searchsorted(known, hashes), len(known) - 1)], hashes)


def _shingle_hashes(texts: list[str]) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """A 64-bit hash of every 5-gram of normalised texts, in order, and where each text's hashes end."""
    padded = [text.ljust(SHINGLE_CHARACTERS, "\0") for text in texts]
    lengths = np.fromiter(map(len, padded), dtype=np.int64, count=len(padded))
    codes = np.frombuffer("".join(padded).encode("utf-32-le", "surrogatepass"), dtype="<u4").astype(np.uint64)
    overlap = SHINGLE_CHARACTERS - 1
    hashes = np.zeros(len(codes) - overlap, dtype=np.uint64)
    for offset in range(SHINGLE_CHARACTERS):
        hashes *= np.uint64(0x9E3779B97F4A7C15)
        hashes += codes[offset : offset + len(hashes)]
    # The finaliser of MurmurHash3 (Appleby): every input bit reaches every output bit, as MinHash assumes.
    hashes ^= hashes >> np.uint64(33)
    hashes *= np.uint64(0xFF51AFD7ED558CCD)
    hashes ^= hashes >> np.uint64(33)
    hashes *= np.uint64(0xC4CEB9FE1A85EC53)
    hashes ^= hashes >> np.uint64(33)
    inside = np.ones(len(hashes), dtype=bool)
    across = (np.cumsum(lengths)[:-1, None] - np.arange(1, overlap + 1)).ravel()
    inside[across] = False
    return hashes[inside], np.cumsum(lengths - overlap)
