"""Huffman's code against every code there is (few symbols), Kraft's equality, and its own way back."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from underhood.data.huffman import codewords, decode, encode, lengths

WEIGHTS = st.lists(st.integers(0, 1000), min_size=2, max_size=40)


@given(st.lists(st.integers(0, 30), min_size=2, max_size=5))
def test_huffman_matches_the_best_of_all_codes(weights: list[int]):
    longest = len(weights) - 1
    every = itertools.product(range(1, longest + 1), repeat=len(weights))
    best = min(
        sum(w * n for w, n in zip(weights, code, strict=True))
        for code in every
        if sum(Fraction(1, 2**n) for n in code) <= 1
    )
    assert sum(w * n for w, n in zip(weights, lengths(weights), strict=True)) == best


@given(WEIGHTS, st.data())
def test_huffman_code_is_complete_and_restores_every_text(weights: list[int], data: st.DataObject):
    words = codewords(lengths(weights))
    assert sum(Fraction(1, 2 ** len(word)) for word in words) == 1
    assert not any(a.startswith(b) for a, b in itertools.permutations(words, 2))
    text = data.draw(st.lists(st.integers(0, len(weights) - 1), max_size=50))
    assert decode(encode(text, words), words) == text


@given(st.lists(st.floats(1e-6, 1), min_size=2, max_size=60))
def test_huffman_is_within_a_bit_of_the_entropy(weights: list[float]):
    total = sum(weights)
    h = -sum(w / total * math.log2(w / total) for w in weights)
    mean = sum(w / total * n for w, n in zip(weights, lengths(weights), strict=True))
    assert h - 1e-9 <= mean < h + 1


@pytest.mark.parametrize("weights", [[], [1], [1, -1]])
def test_huffman_refuses_what_has_no_code(weights: list[float]):
    with pytest.raises(ValueError, match="two symbols or more"):
        lengths(weights)


def test_codewords_refuse_too_many_short_words():
    with pytest.raises(ValueError, match="Kraft"):
        codewords([1, 1, 2])


@pytest.mark.parametrize("bits", ["1", "10", "0111"])
def test_decoding_refuses_a_text_that_was_cut(bits: str):
    with pytest.raises(ValueError, match="begins no word"):
        decode(bits, ["0", "1100", "1101"])
