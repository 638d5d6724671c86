"""Corpus cleaning: Unicode normalization, removal of empty documents, exact and near deduplication (MinHash).

Training on duplicates wastes time and lets a model recite; a held-out document whose twin was trained on measures
nothing. Near-duplicates are found by MinHash (Broder 1997, "On the resemblance and containment of documents"): the
share of equal minima of random hash functions estimates the Jaccard similarity of two sets of shingles. Banding makes
it fast: documents are compared only when some 4 consecutive minima of 32 × 4 agree, which a pair of similarity 0.8
misses once in 10⁷ and a pair of similarity 0.2 meets once in 20. Every pair found is then checked exactly.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
import zlib
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from underhood.data.containment import contained
from underhood.data.documents import Corpus, Document

SHINGLE_WORDS = 5
BANDS, ROWS_PER_BAND = 32, 4
PERMUTATIONS = BANDS * ROWS_PER_BAND
NEAR_DUPLICATE = 0.8
CONTAINED = 0.6
SHORTEST_COMPARED = 16
"""Words; shorter texts ("Return the sine of x.") resemble each other by nature and are only compared exactly."""

_CONTROL = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\ufeff]")  # tab and line ends stay
_LINE_END = re.compile("\r\n|[\r\x0b\x0c\x85\u2028\u2029]")
_BLANK_LINES = re.compile(r"\n{4,}")
_WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class Dropped:
    """A document that was left out: why, and for duplicates which document stayed in its place."""

    name: str
    reason: str
    kept: str | None = None
    similarity: float | None = None


@dataclass(frozen=True)
class CleanReport:
    """What cleaning did. Reasons: ``empty``, ``duplicate``, ``near-duplicate``, ``contained``."""

    documents_in: int
    documents_kept: int
    bytes_in: int
    bytes_kept: int
    changed: int
    dropped: tuple[Dropped, ...]

    @property
    def reasons(self) -> dict[str, int]:
        """How many documents were dropped for each reason."""
        return dict(Counter(item.reason for item in self.dropped))

    def __str__(self) -> str:
        why = ", ".join(f"{count} {reason}" for reason, count in sorted(self.reasons.items())) or "nothing"
        return (
            f"kept {self.documents_kept:,} of {self.documents_in:,} documents "
            f"({self.bytes_kept:,} of {self.bytes_in:,} bytes); dropped {why}; normalised {self.changed:,}"
        )


def normalise(text: str) -> str:
    """One way to write a text, so that equal texts are equal bytes and no token is spent on invisible differences.

    Unicode NFC (é is one character, however it was typed); every line end becomes a newline (form feeds and Unicode
    separators too); control characters and byte-order marks vanish, tabs stay; spaces at line ends vanish; more than
    two blank lines in a row become two; blank lines at both ends vanish. Idempotent.
    """
    text = _LINE_END.sub("\n", text)
    text = _CONTROL.sub("", text)
    if not unicodedata.is_normalized("NFC", text):
        text = unicodedata.normalize("NFC", text)
    # Not a regular expression: blanks before something else would be tried from each of them, in quadratic time.
    text = "\n".join(line.rstrip() for line in text.split("\n"))
    return _BLANK_LINES.sub("\n\n\n", text).strip("\n")


def clean(
    corpus: Corpus, *, near_duplicate: float | None = NEAR_DUPLICATE, containment: float | None = CONTAINED
) -> tuple[Corpus, CleanReport]:
    """Normalises every document and drops empty ones and duplicates; of each group of duplicates the first stays.

    Args:
        near_duplicate: exact Jaccard similarity of 5-word shingles from which two documents count as the same; None
            drops exact duplicates only.
        containment: share of a document's paragraphs that longer ones hold already, from which it is left out; None
            leaves such documents in.
    """
    dropped: list[Dropped] = []
    kept: list[Document] = []
    by_hash: dict[bytes, str] = {}
    changed = 0
    for document in corpus.documents:
        text = normalise(document.text)
        changed += text != document.text.strip("\n")
        if not text.strip():
            dropped.append(Dropped(document.name, "empty"))
            continue
        digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
        if digest in by_hash:
            dropped.append(Dropped(document.name, "duplicate", by_hash[digest], 1.0))
            continue
        by_hash[digest] = document.name
        kept.append(Document(text, document.name, document.kind))
    if near_duplicate is not None:
        twins = near_duplicates([document.text for document in kept], near_duplicate)
        for number, (original, similarity) in twins.items():
            dropped.append(Dropped(kept[number].name, "near-duplicate", kept[original].name, similarity))
        kept = [document for number, document in enumerate(kept) if number not in twins]
    if containment is not None:
        inside = contained([document.text for document in kept], containment)
        for number, (holder, share) in inside.items():
            dropped.append(Dropped(kept[number].name, "contained", kept[holder].name, share))
        kept = [document for number, document in enumerate(kept) if number not in inside]
    result = corpus.with_documents(kept)
    report = CleanReport(len(corpus), len(kept), corpus.bytes, result.bytes, changed, tuple(dropped))
    return result, report


def near_duplicates(texts: Sequence[str], threshold: float = NEAR_DUPLICATE) -> dict[int, tuple[int, float]]:
    """Texts that repeat an earlier one: number → (number of the earlier text, exact Jaccard similarity).

    Greedy in order of arrival: a text is compared with those kept so far that share a band with it.
    """
    words = _WordHashes()
    numbers = [number for number, text in enumerate(texts) if len(_WORD.findall(text)) >= SHORTEST_COMPARED]
    if not numbers:
        return {}
    signatures_NP = np.stack([signature(words.shingles(texts[number])) for number in numbers])
    bands = _band_keys(signatures_NP)
    seen: list[defaultdict[int, list[int]]] = [defaultdict(list) for _ in range(BANDS)]
    duplicates: dict[int, tuple[int, float]] = {}
    for position, number in enumerate(numbers):
        keys = bands[position]
        candidates = sorted({other for band, key in enumerate(keys) for other in seen[band].get(key, ())})
        twin = _first_twin(
            texts, words, number, [(numbers[c], c) for c in candidates], signatures_NP, position, threshold
        )
        if twin is not None:
            duplicates[number] = twin
            continue
        for band, key in enumerate(keys):
            seen[band][key].append(position)
    return duplicates


def _first_twin(
    texts: Sequence[str],
    words: "_WordHashes",
    number: int,
    candidates: list[tuple[int, int]],
    signatures_NP: np.ndarray,
    position: int,
    threshold: float,
) -> tuple[int, float] | None:
    """The earliest candidate that is truly similar. A cheap look at the estimate (4 standard errors of slack) first."""
    if not candidates:
        return None
    slack = 4 * (threshold * (1 - threshold) / PERMUTATIONS) ** 0.5
    shingles = None
    for other, row in candidates:
        if float(np.mean(signatures_NP[row] == signatures_NP[position])) < threshold - slack:
            continue
        shingles = words.shingles(texts[number]) if shingles is None else shingles
        similarity = jaccard(shingles, words.shingles(texts[other]))
        if similarity >= threshold:
            return other, similarity
    return None


class _WordHashes:
    """A stable 64-bit number per word, and from five in a row a number per shingle."""

    def __init__(self):
        self._known: dict[str, int] = {}

    def shingles(self, text: str) -> np.ndarray:
        """The set of 5-word shingles of a text (lower case, punctuation aside) as sorted distinct uint64."""
        words = _WORD.findall(text.lower())
        known = self._known
        for word in words:
            if word not in known:
                data = word.encode("utf-8", "surrogatepass")
                known[word] = zlib.crc32(data) << 32 | zlib.crc32(data, 0x9E3779B9)
        codes = np.fromiter((known[word] for word in words), dtype=np.uint64, count=len(words))
        count = max(1, len(words) - SHINGLE_WORDS + 1)
        mixed = np.zeros(count, dtype=np.uint64)
        for offset in range(min(SHINGLE_WORDS, len(words))):
            mixed = _scramble(mixed + codes[offset : offset + count])
        return np.unique(mixed)


def _scramble(x: np.ndarray) -> np.ndarray:
    """SplitMix64's finaliser (Steele, Lea, Flood 2014): every input bit reaches every output bit."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9) + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


_GENERATOR = np.random.default_rng(1997)
_MULTIPLIER_P = _GENERATOR.integers(0, 1 << 63, PERMUTATIONS, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
_ADDEND_P = _GENERATOR.integers(0, 1 << 63, PERMUTATIONS, dtype=np.uint64)


def signature(shingles: np.ndarray) -> np.ndarray:
    """The minimum of each of 128 hash functions over a set of shingles (uint64), as uint32 (P,).

    The hash functions are multiply-shift, ``(a·x + b mod 2⁶⁴) >> 32`` with odd a (Dietzfelbinger and others 1997), of
    shingles that are scrambled already.
    """
    smallest_P = np.full(PERMUTATIONS, np.iinfo(np.uint32).max, dtype=np.uint32)
    for first in range(0, len(shingles), 4096):
        chunk_N = shingles[first : first + 4096]
        hashed_PN = (_MULTIPLIER_P[:, None] * chunk_N + _ADDEND_P[:, None]) >> np.uint64(32)
        smallest_P = np.minimum(smallest_P, hashed_PN.min(axis=1).astype(np.uint32))
    return smallest_P


def jaccard(left: np.ndarray, right: np.ndarray) -> float:
    """|A ∩ B| / |A ∪ B| of two arrays of distinct values; 1 for two empty sets."""
    common = len(np.intersect1d(left, right, assume_unique=True))
    union = len(left) + len(right) - common
    return common / union if union else 1.0


def _band_keys(signatures_NP: np.ndarray) -> list[list[int]]:
    """One number per document and band, equal when all four minima of the band are equal."""
    bands_NBR = signatures_NP.reshape(len(signatures_NP), BANDS, ROWS_PER_BAND).astype(np.uint64)
    keys_NB = np.zeros(bands_NBR.shape[:2], dtype=np.uint64)
    for row in range(ROWS_PER_BAND):
        keys_NB = _scramble(keys_NB + bands_NBR[:, :, row])
    return keys_NB.tolist()
