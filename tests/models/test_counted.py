"""Add-k and Witten-Bell against nltk."""

from __future__ import annotations

import numpy as np
import pytest
from nltk.lm import Lidstone, WittenBellInterpolated
from nltk.util import everygrams, ngrams

from underhood.models.counted import add_k, count, numbers, witten_bell

SIZE = 6
TEXT = np.random.default_rng(0).choice(SIZE, 400, p=(0.4, 0.25, 0.2, 0.1, 0.04, 0.01))
OTHER = np.random.default_rng(1).choice(SIZE, 80)


def test_add_k_matches_nltk():
    peer = Lidstone(0.3, 3)
    peer.fit([list(ngrams(map(str, TEXT), 3))], vocabulary_text=[str(n) for n in range(SIZE)])
    ours = add_k(count(TEXT, 3, SIZE), OTHER, 0.3)
    size = len(peer.vocab)  # nltk counts the unknown word as a word of its own
    for p, gram in zip(ours, ngrams(map(str, OTHER), 3), strict=True):
        seen = peer.counts[gram[:2]]
        assert p == pytest.approx((seen[gram[2]] + 0.3) / (seen.N() + 0.3 * SIZE))
        assert peer.score(gram[2], gram[:2]) == pytest.approx((seen[gram[2]] + 0.3) / (seen.N() + 0.3 * size))


def test_witten_bell_matches_nltk():
    text = [str(n) for n in TEXT]
    peer = WittenBellInterpolated(3)
    peer.fit([list(everygrams(text, max_len=3))], vocabulary_text=text)
    counted = [count(TEXT, n, SIZE) for n in (1, 2, 3)]
    ours = witten_bell(counted, OTHER)
    # nltk's recursion ends in plain relative counts; ours goes on to 1 / V. Undo that last step before comparing.
    total, kinds = len(TEXT), len(set(text))
    for p, gram in zip(ours, ngrams(map(str, OTHER), 3), strict=True):
        last = (peer.counts[gram[2]] + kinds / SIZE) / (total + kinds)
        for history in (gram[1:2], gram[:2]):
            seen = peer.counts[history]
            if seen.N():
                last = (seen[gram[2]] + len(seen) * last) / (seen.N() + len(seen))
        assert p == pytest.approx(last)
        if peer.counts[gram[:2]].N() and peer.counts[gram[1:2]].N():
            mine = peer.score(gram[2], gram[:2])
            two, first = peer.counts[gram[:2]], peer.counts[gram[1:2]]
            share = len(two) / (two.N() + len(two)) * len(first) / (first.N() + len(first))
            plain = peer.counts[gram[2]] / total
            assert mine == pytest.approx(p + share * (plain - (peer.counts[gram[2]] + kinds / SIZE) / (total + kinds)))


def test_witten_bell_sums_to_one_after_any_history():
    counted = [count(TEXT, n, SIZE) for n in (1, 2, 3)]
    for history in ((0, 5), (5, 5), (2, 1)):
        p = [witten_bell(counted, np.array([*history, word]))[-1] for word in range(SIZE)]
        assert sum(p) == pytest.approx(1)


def test_numbers_refuse_what_would_overflow():
    with pytest.raises(ValueError, match="62 bits"):
        numbers(TEXT, 30, SIZE)
