"""Unigram segmentation: the most probable way to cut a text into pieces, by the Viterbi algorithm.

Kudo 2018, "Subword Regularization: Improving Neural Network Translation Models with Multiple Subword Candidates",
section 3.2: each piece has a probability, a cut's probability is the product of its pieces' (equation 6), and the best
cut is found with the Viterbi algorithm in one pass over the text. Where BPE applies merges in the order in which they
were learnt, whatever comes of it, this weighs whole cuts against each other.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping

UNKNOWN_PENALTY = 10.0  # below the least probable piece, as in SentencePiece

_FLOAT = struct.Struct("<f")


class UnigramSegmenter:
    """Cuts normalised text into the most probable pieces.

    Sums are rounded to single precision after every step, as in SentencePiece: among a thousand near-equal cuts of a
    long text the rounding decides, and the model was trained on what it decided.

    Args:
        scores: log-probability of each piece.
        always: pieces that are preferred to every other cut (user-defined ones).
    """

    def __init__(self, scores: Mapping[str, float], always: frozenset[str] = frozenset()):
        highest = max((score for piece, score in scores.items() if piece not in always), default=0.0)
        lowest = min((score for piece, score in scores.items() if piece not in always), default=0.0)
        self._unknown = single(lowest - UNKNOWN_PENALTY)
        # The reward grows with the length, so that no number of likely short pieces can outweigh it.
        self._scores = {
            piece: single(len(piece.encode()) * highest) - 0.1 if piece in always else score
            for piece, score in scores.items()
        }
        self._prefixes = {piece[:end] for piece in self._scores for end in range(1, len(piece) + 1)}

    def __call__(self, text: str) -> list[str]:
        """The pieces of the best cut; a character that begins no known piece is a piece of its own."""
        scores, prefixes, unknown = self._scores, self._prefixes, self._unknown
        best: list[float | None] = [None] * (len(text) + 1)  # of all cuts of text[:end], the best one's score …
        begin = [0] * (len(text) + 1)  # … and where its last piece begins
        best[0] = 0.0
        for start in range(len(text)):
            so_far = best[start]
            assert so_far is not None
            alone = False
            for end in range(start + 1, len(text) + 1):
                piece = text[start:end]
                if piece not in prefixes:
                    break
                score = scores.get(piece)
                if score is None:
                    continue
                alone = alone or end == start + 1
                total, known = single(so_far + score), best[end]
                if known is None or total > known:
                    best[end], begin[end] = total, start
            if not alone:
                total, known = single(so_far + unknown), best[start + 1]
                if known is None or total > known:
                    best[start + 1], begin[start + 1] = total, start
        pieces: list[str] = []
        end = len(text)
        while end > 0:
            pieces.append(text[begin[end] : end])
            end = begin[end]
        return pieces[::-1]


def single(value: float) -> float:
    """The nearest number of single precision."""
    return _FLOAT.unpack(_FLOAT.pack(value))[0]
