"""SentencePiece BPE: merges on characters, ordered by a score per piece instead of a merge list.

Any neighbours whose join is in the vocabulary may merge; the join with the highest score goes first, the leftmost of
equals. A heap of candidates and a linked list of the remaining symbols make it n log n for n characters (Kudo and
Richardson 2018, section 3.1), which matters because no word boundaries keep the stretches short.
"""

from __future__ import annotations

import functools
import heapq
import re
from collections.abc import Mapping

from underhood.text.normalize import SPACE, PrefixMatcher


class ScoredMerger:
    """Cuts normalised text by merging.

    Args:
        scores: score of each piece that a merge may make, higher first.
        kept: pieces that are cut out whole and never merge with anything.
        unused: pieces that serve as steps to longer ones but are taken apart again when they are left over.
    """

    def __init__(self, scores: Mapping[str, float], kept: PrefixMatcher, unused: frozenset[str] = frozenset()):
        self._scores, self._kept, self._unused = scores, kept, unused
        # Where no piece has a space behind a letter, merges stay inside words, and words repeat.
        self._words = not kept and not any(SPACE in piece.lstrip(SPACE) for piece in scores)
        self._merge_word = functools.lru_cache(maxsize=1 << 16)(self._merge)

    def __call__(self, text: str) -> list[str]:
        """The pieces of the text; characters that nothing merged stay alone."""
        if not self._words:
            return list(self._merge(text))
        cut = re.findall(f"{SPACE}*[^{SPACE}]+|{SPACE}+", text)
        # A very long "word" would fill the cache with itself.
        return [piece for word in cut for piece in (self._merge_word if len(word) < 64 else self._merge)(word)]

    def _merge(self, text: str) -> tuple[str, ...]:
        symbols: list[str] = []
        frozen: list[bool] = []
        at = 0
        while at < len(text):
            length = self._kept.longest(text, at) if self._kept else 0
            symbols.append(text[at : at + (length or 1)])
            frozen.append(bool(length))
            at += length or 1
        left = list(range(-1, len(symbols) - 1))
        right = [*range(1, len(symbols)), -1]
        parts: dict[str, tuple[str, str]] = {}
        heap: list[tuple[float, int, int, int]] = []

        def consider(first: int, second: int) -> None:
            if first < 0 or second < 0 or frozen[first] or frozen[second]:
                return
            joined = symbols[first] + symbols[second]
            score = self._scores.get(joined)
            if score is not None:
                heapq.heappush(heap, (-score, first, second, len(joined)))
                if joined in self._unused:
                    parts[joined] = symbols[first], symbols[second]

        for index in range(len(symbols) - 1):
            consider(index, index + 1)
        while heap:
            _, first, second, length = heapq.heappop(heap)
            if not symbols[first] or not symbols[second] or len(symbols[first]) + len(symbols[second]) != length:
                continue  # one of the two has merged otherwise since
            symbols[first] += symbols[second]
            symbols[second] = ""
            right[first] = right[second]
            if right[second] >= 0:
                left[right[second]] = first
            consider(left[first], first)
            consider(first, right[first])

        def apart(piece: str) -> list[str]:
            if piece not in self._unused or piece not in parts:
                return [piece]
            return [leaf for half in parts[piece] for leaf in apart(half)]

        return tuple(leaf for symbol in symbols if symbol for leaf in apart(symbol))
