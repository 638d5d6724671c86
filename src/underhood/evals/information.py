"""Information measures in bits: entropy, cross-entropy, KL divergence, mutual information, small-sample bias.

Source: Shannon 1948, sections 6 and 7; Cover & Thomas 2005, chapter 2. Arguments are probabilities or counts of any
scale: each function divides by the sum first. 0 · log 0 is 0.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


def entropy(p: ArrayLike) -> float:
    """H = −Σ p log2 p: the mean surprise, and the bits per symbol that no lossless code goes below.

    Of counts it is the plug-in estimate, which is too low (`missing_bits`).
    """
    return cross_entropy(p, p)


def cross_entropy(p: ArrayLike, q: ArrayLike) -> float:
    """−Σ p log2 q: bits per symbol of p that a code made for q takes; infinite if q rules out what p has.

    Raises:
        ValueError: different shapes, something negative, or nothing at all.
    """
    p_V, q_V = _shares(p), _shares(q)
    if p_V.shape != q_V.shape:
        raise ValueError(f"the distributions have different shapes: {p_V.shape} and {q_V.shape}")
    has = p_V > 0
    with np.errstate(divide="ignore"):
        return float(-(p_V[has] * np.log2(q_V[has])).sum())


def divergence(p: ArrayLike, q: ArrayLike) -> float:
    """D(p ‖ q), Kullback and Leibler's: the bits per symbol that believing in q costs in a world of p; at least 0."""
    return cross_entropy(p, q) - entropy(p)


def mutual_information(joint_XY: ArrayLike) -> float:
    """I(X; Y) of a table of counts or probabilities: the bits that one of the two says about the other."""
    joint = _shares(joint_XY)
    return divergence(joint, joint.sum(axis=1, keepdims=True) * joint.sum(axis=0, keepdims=True))


def conditional_entropy(joint_XY: ArrayLike) -> float:
    """H(Y | X): what is left to ask about Y, on average, by one who knows X."""
    joint = _shares(joint_XY)
    rows = joint.sum(axis=1)
    return float(sum(share * entropy(row) for share, row in zip(rows, joint, strict=True) if share > 0))


def missing_bits(counts: ArrayLike) -> float:
    """By how much the plug-in entropy of a sample is too low on average: (K − 1) / (2 n ln 2), first order in 1/n.

    K is the number of different symbols in the sample: too few while rare ones are still to come (Miller 1955).
    """
    counts_K = np.asarray(counts, dtype=np.float64)
    return float((np.count_nonzero(counts_K) - 1) / (2 * counts_K.sum() * np.log(2)))


def _shares(p: ArrayLike) -> Floats:
    weights = np.asarray(p, dtype=np.float64)
    if not weights.size or weights.min() < 0 or not weights.sum() > 0:
        raise ValueError("a distribution is at least one number, none negative, not all zero")
    return weights / weights.sum()
