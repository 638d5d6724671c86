"""Shannon's 27-symbol alphabet: text as 26 letters and the space."""

from __future__ import annotations

import re
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from underhood.data.clean import clean
from underhood.data.documents import Corpus
from underhood.data.pydocs import pydocs_corpus
from underhood.data.split import split_documents

ALPHABET = " abcdefghijklmnopqrstuvwxyz"
"""The 27 symbols in the order of their ids; the space is 0."""


def plain(text: str) -> str:
    """Lower case, with every run of other characters as one space; none at the ends.

    Apostrophes leave no gap (*don't* becomes *dont*), for else single letters would pose as words.
    """
    return re.sub("[^a-z]+", " ", re.sub("['’]", "", text.lower())).strip()


def symbols(text: str) -> NDArray[np.int64]:
    """The ids of a plain text."""
    codes = np.frombuffer(text.encode("ascii"), dtype=np.uint8).astype(np.int64)
    return np.where(codes == 32, 0, codes - 96)


def spelled(ids: NDArray[np.int64]) -> str:
    """The text of the ids: the inverse of `symbols`."""
    return "".join(ALPHABET[number] for number in ids.tolist())


def block_counts(ids: NDArray[np.int64], n: int) -> NDArray[np.int64]:
    """How often each block of n symbols occurs, counting from every symbol on: 27ⁿ counts in alphabetical order."""
    blocks = np.lib.stride_tricks.sliding_window_view(ids, n) @ (27 ** np.arange(n - 1, -1, -1))
    return np.bincount(blocks, minlength=27**n)


@lru_cache(maxsize=4)
def plain_english(only_topics: bool = False, seed: int = 0) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The default corpus as plain texts, duplicates removed: those to learn from and those held out, by document.

    Args:
        only_topics: the language reference alone (0.3 million symbols), without the library's docstrings (1.5 million).
        seed: another one holds out other documents.
    """
    held_out = 0.2 if only_topics else 0.1
    train, other = split_documents(_cleaned(only_topics), held_out=held_out, seed=seed)
    return _plain(train), _plain(other)


@lru_cache(maxsize=2)
def _cleaned(only_topics: bool) -> Corpus:
    whole = pydocs_corpus()
    if only_topics:
        whole = whole.with_documents((page for page in whole.documents if page.kind == "topic"), name="topics")
    return clean(whole)[0]


def _plain(corpus: Corpus) -> tuple[str, ...]:
    return tuple(text for document in corpus.documents if (text := plain(document.text)))
