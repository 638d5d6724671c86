"""The next letter of a token model, against every way of reading the text written out."""

from __future__ import annotations

import numpy as np
import torch

from underhood.data.letters import ALPHABET
from underhood.evals.letters import TokenGuesser, ngram_guesser

PIECES = [b"", b"a", b"b", b" ", b"ab", b"ba", b"aba", b"b a"]  # 0 is a special token


class Pieces:
    """A tokenizer of a few pieces that always takes the longest one."""

    vocab_size = len(PIECES)
    special = {"<end>": 0}  # noqa: RUF012

    def encode(self, text: str) -> list[int]:
        ids = []
        while text:
            ids.append(
                max(
                    (i for i, p in enumerate(PIECES) if p and text.startswith(p.decode())), key=lambda i: len(PIECES[i])
                )
            )
            text = text[len(PIECES[ids[-1]]) :]
        return ids

    def decode_bytes(self, ids) -> bytes:
        return b"".join(PIECES[id] for id in ids)

    def decode(self, ids) -> str:
        return self.decode_bytes(ids).decode()

    def encode_batch(self, texts):
        return [self.encode(text) for text in texts]


class Memoryless:
    """A model that draws every token from the same distribution, whatever came before."""

    vocab_size, context_length = len(PIECES), None

    def __init__(self, p):
        self.p = torch.tensor(p)

    def __call__(self, tokens, *, cache=None, positions=None):
        return self.p.log().expand(*tokens.shape, -1)


def prompt(text: str) -> list[int]:
    return [0, *Pieces().encode(text)]


def test_token_guesser_adds_up_every_token_that_could_carry_on():
    p = np.random.default_rng(0).dirichlet(np.ones(len(PIECES)))
    p[0] = 1e-9
    p /= p.sum()
    actual = TokenGuesser(Memoryless(p), Pieces(), prompt)("a")
    # "a" may be itself, with any token after it, or the beginning of "ab" or "aba".
    expected = np.zeros(27)
    for after, chance in zip(PIECES[1:], p[1:], strict=True):
        expected[ALPHABET.index(chr(after[0]))] += p[1] * chance
    expected[ALPHABET.index("b")] += p[4] + p[6]
    np.testing.assert_allclose(actual, expected / expected.sum(), rtol=1e-5)


def test_token_guesser_matches_all_readings_where_one_token_is_one_letter():
    p = np.zeros(len(PIECES)) + 1e-12
    p[1:4] = 0.5, 0.3, 0.2
    guesser = TokenGuesser(Memoryless(p / p.sum()), Pieces(), prompt)
    for text in ("aa", "bb", " a", "b b"):  # where the longest pieces are single letters
        actual = guesser(text)
        np.testing.assert_allclose(actual[[1, 2, 0]], [0.5, 0.3, 0.2], atol=1e-5)


def test_ngram_guesser_knows_what_it_read():
    guesser = ngram_guesser(["the cat sat on the mat " * 50], order=5)
    assert ALPHABET[int(guesser("on th").argmax())] == "e"
    assert abs(guesser("zzzz").sum() - 1) < 1e-5
