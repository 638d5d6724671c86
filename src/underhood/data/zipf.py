"""Synthetic word pairs with Zipf-distributed frequencies: the r-th word has a share in proportion to 1/r."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def zipf_pairs(
    words: int, shape: tuple[int, ...], generator: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """First words, second words (both of `shape`), and the true share of every pair (words, words).

    After each word come four others, with probabilities 0.4 to 0.1, frequent ones oftener.
    """
    share = 1 / np.arange(1, words + 1)
    share /= share.sum()
    follows = np.zeros((words, words))
    for row in follows:
        row[generator.choice(words, 4, replace=False, p=share)] = (0.4, 0.3, 0.2, 0.1)
    first = generator.choice(words, shape, p=share)
    second = (follows.cumsum(axis=1)[first] > generator.random((*shape, 1))).argmax(axis=-1)
    return first, second, follows * share[:, None]
