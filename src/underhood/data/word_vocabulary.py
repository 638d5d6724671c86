"""Words of a text and their vocabulary: counts, subsampling of frequent words, phrases, and a Huffman tree of them all.

What word2vec (Mikolov et al. 2013) reads is not tokens but words, in sentences that its windows do not leave.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from underhood.data.huffman import codewords, lengths

Sentences = Sequence[Sequence[str]]

_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*|\d+")
_SENTENCE_END = re.compile(r"[.!?](?=\s)|\n\n")


def sentences_of(text: str) -> list[list[str]]:
    """The sentences of a text as lower-case words; digits count as words, punctuation does not."""
    split = (_WORD.findall(sentence.casefold()) for sentence in _SENTENCE_END.split(text))
    return [words for words in split if words]


@dataclass(frozen=True)
class WordVocabulary:
    """The words of a text, the most frequent first; equally frequent ones by their letters, so the order is always one.

    Attributes:
        words: all words that are frequent enough.
        counts_V: how often each occurs.
    """

    words: tuple[str, ...]
    counts_V: NDArray[np.int64]

    @classmethod
    def of(cls, sentences: Iterable[Sequence[str]], *, min_count: int = 5) -> WordVocabulary:
        """The words that occur at least `min_count` times."""
        counts = Counter(word for sentence in sentences for word in sentence)
        chosen = sorted((-count, word) for word, count in counts.items() if count >= min_count)
        return cls(tuple(word for _, word in chosen), np.array([-count for count, _ in chosen], dtype=np.int64))

    def __len__(self) -> int:
        return len(self.words)

    @cached_property
    def ids(self) -> dict[str, int]:
        return {word: id for id, word in enumerate(self.words)}

    def encode(self, sentences: Iterable[Sequence[str]]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """All ids in a row, without words that are not in the vocabulary; where each sentence begins, and the end."""
        ids, known, starts = self.ids, [], [0]
        for sentence in sentences:
            known += [ids[word] for word in sentence if word in ids]
            starts.append(len(known))
        return np.array(known, dtype=np.int32), np.array(starts, dtype=np.int64)

    def keep_probabilities(self, sample: float) -> NDArray[np.float64]:
        """Probability that an occurrence of each word is read: ``min(1, sqrt(t / f) + t / f)`` for its frequency f.

        The paper says ``1 − sqrt(t / f)`` is dropped; this is the rule of word2vec's code, which its successors kept.

        Args:
            sample: the threshold t, 1e-3 to 1e-5; 0 keeps everything.
        """
        if not sample:
            return np.ones(len(self))
        ratio_V = sample * self.counts_V.sum() / self.counts_V
        return np.minimum(1.0, np.sqrt(ratio_V) + ratio_V)

    def huffman_paths(self) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.uint8]]:
        """Each word's way down the Huffman tree of the counts: where it starts, and in a row the inner nodes and turns.

        V words have V − 1 inner nodes.
        """
        nodes: dict[str, int] = {}
        starts, points, turns = [0], [], []
        for code in codewords(lengths(self.counts_V.tolist())):
            points += [nodes.setdefault(code[:depth], len(nodes)) for depth in range(len(code))]
            turns += [int(turn) for turn in code]
            starts.append(len(points))
        return np.array(starts, dtype=np.int64), np.array(points, dtype=np.int32), np.array(turns, dtype=np.uint8)


def join_phrases(
    sentences: Sentences, *, min_count: int = 5, threshold: float = 10.0, delimiter: str = "_"
) -> list[list[str]]:
    """Pairs of words that occur together far more often than each alone would make them, as one word (`new_york`).

    The score is ``(count(ab) − min_count) · V / (count(a) · count(b))`` with V distinct words (Mikolov et al. 2013b,
    equation 6, scaled as their code does). Repeat it to join longer phrases.

    Args:
        threshold: the score above which a pair is joined.
    """
    single = Counter(word for sentence in sentences for word in sentence)
    pairs = Counter(pair for sentence in sentences for pair in itertools.pairwise(sentence))
    total = len(single)
    joined = {
        (a, b)
        for (a, b), count in pairs.items()
        if count > min_count and (count - min_count) * total / (single[a] * single[b]) > threshold
    }
    phrases: list[list[str]] = []
    for sentence in sentences:
        words: list[str] = []
        n = 0
        while n < len(sentence):
            if n + 1 < len(sentence) and (sentence[n], sentence[n + 1]) in joined:
                words.append(f"{sentence[n]}{delimiter}{sentence[n + 1]}")
                n += 2
            else:
                words.append(sentence[n])
                n += 1
        phrases.append(words)
    return phrases
