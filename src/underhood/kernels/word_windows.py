"""Stochastic gradient descent of word2vec, one window of words after another (Mikolov et al. 2013).

Skip-gram predicts the word in the middle from each word around it, CBOW from all of them at once. The prediction is
either a choice between the word and a few random ones (negative sampling), or the turns to it down a Huffman tree
(hierarchical softmax). Each prediction costs a few dot products, so nothing is batched: what takes time is that the
vectors are scattered in memory.

Threads may run this on the same vectors at once without locks (Niu et al. 2011, "Hogwild").
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from underhood.kernels.elementwise import exp
from underhood.kernels.jit import inline_kernel, kernel


@inline_kernel
def _next(state: Any) -> Any:
    """The next state of a 64-bit xorshift generator; its upper bits are the random ones after multiplication."""
    state ^= state >> np.uint64(12)
    state ^= state << np.uint64(25)
    return state ^ (state >> np.uint64(27))


@inline_kernel
def _bits(state: Any) -> Any:
    """32 random bits of a state, as uint64."""
    return (state * np.uint64(0x2545F4914F6CDD1D)) >> np.uint64(32)


@inline_kernel
def _below(state: Any, limit: Any) -> Any:
    """A random integer from 0 to `limit` − 1."""
    return np.int64((_bits(state) * np.uint64(limit)) >> np.uint64(32))


@kernel
def train_windows(
    ids_N: Any,
    starts_S: Any,
    keep_V: Any,
    window: int,
    cbow: bool,
    divided: bool,
    lr: Any,
    negatives: int,
    chance_V: Any,
    alias_V: Any,
    path_starts_V: Any,
    points: Any,
    turns: Any,
    in_VD: Any,
    out_VD: Any,
    seed: Any,
) -> tuple[float, int]:
    """Trains on some sentences, in place; returns the sum of the losses in nats, and of how many predictions.

    Args:
        ids_N, starts_S: words of all sentences in a row, and where each begins; the last of `starts_S` is the end.
        keep_V: how many of 2³² occurrences of a word are read (`WordVocabulary.keep_probabilities`).
        window: the most words to each side; each middle word draws its own reach from 1 to this.
        cbow: predicts from the mean of the words around, else from each.
        divided: CBOW's gradient goes to each of the n words divided by n, as that of a mean is; word2vec.c and
            gensim give it to each undivided.
        negatives: random words per prediction; 0 for hierarchical softmax.
        chance_V, alias_V: table of `alias_table` that random words are drawn from.
        path_starts_V, points, turns: see `WordVocabulary.huffman_paths`; empty with negative sampling.
        in_VD, out_VD: vectors of the words, and those that predict (of words or of inner nodes).
        seed: a 64-bit number other than 0.
    """
    width = in_VD.shape[1]
    state, loss, count = seed, 0.0, 0
    longest = 0
    for s in range(len(starts_S) - 1):
        longest = max(longest, starts_S[s + 1] - starts_S[s])
    read = np.empty(longest, dtype=np.int32)
    mean_D, error_D = np.empty(width, dtype=np.float32), np.empty(width, dtype=np.float32)
    targets, scores = np.empty(negatives + 1, dtype=np.int32), np.empty(negatives + 1, dtype=np.float32)
    for s in range(len(starts_S) - 1):
        length = 0
        for n in range(starts_S[s], starts_S[s + 1]):
            state = _next(state)
            if _bits(state) < keep_V[ids_N[n]]:
                read[length] = ids_N[n]
                length += 1
        for i in range(length):
            state = _next(state)
            reach = 1 + _below(state, window)
            first, end = max(0, i - reach), min(length, i + reach + 1)
            around = end - first - 1
            if around < 1:
                continue
            if cbow:
                mean_D[:] = np.float32(0.0)
                for j in range(first, end):
                    if j != i:
                        row = in_VD[read[j]]
                        for d in range(width):
                            mean_D[d] += row[d]
                share = np.float32(1.0) / np.float32(around)
                for d in range(width):
                    mean_D[d] *= share
                if negatives:
                    state = _draw(read[i], chance_V, alias_V, targets, state)
                    loss += _choose(mean_D, targets, lr, out_VD, scores, error_D)
                else:
                    ends = path_starts_V[read[i]], path_starts_V[read[i] + 1]
                    loss += _descend(mean_D, ends, points, turns, lr, out_VD, error_D)
                count += 1
                if divided:
                    for d in range(width):
                        error_D[d] *= share
                for j in range(first, end):
                    if j != i:
                        row = in_VD[read[j]]
                        for d in range(width):
                            row[d] += error_D[d]
            else:
                for j in range(first, end):
                    if j == i:
                        continue
                    row = in_VD[read[j]]
                    if negatives:
                        state = _draw(read[i], chance_V, alias_V, targets, state)
                        loss += _choose(row, targets, lr, out_VD, scores, error_D)
                    else:
                        ends = path_starts_V[read[i]], path_starts_V[read[i] + 1]
                        loss += _descend(row, ends, points, turns, lr, out_VD, error_D)
                    count += 1
                    for d in range(width):
                        row[d] += error_D[d]
    return loss, count


@inline_kernel
def _draw(word: Any, chance_V: Any, alias_V: Any, targets: Any, state: Any) -> Any:
    """The word and random others; where one is drawn that is the word itself, −1."""
    targets[0] = word
    size = len(chance_V)
    for k in range(1, len(targets)):
        state = _next(state)
        drawn = _below(state, size)
        state = _next(state)
        if _bits(state) >= chance_V[drawn]:
            drawn = alias_V[drawn]
        targets[k] = drawn if drawn != word else -1
    return state


@inline_kernel
def _choose(x_D: Any, targets: Any, lr: Any, out_VD: Any, scores: Any, error_D: Any) -> float:
    """A step of negative sampling: ``−log σ(x · u₀) − Σ log σ(−x · uₖ)``; `error_D` becomes what x has to move by."""
    width = len(x_D)
    for k in range(len(targets)):
        total = np.float32(0.0)
        if targets[k] >= 0:
            row = out_VD[targets[k]]
            for d in range(width):
                total += x_D[d] * row[d]
        scores[k] = total if k else -total
    for k in range(len(targets)):
        scores[k] = exp(-scores[k])
    error_D[:] = np.float32(0.0)
    loss, likelihood = 0.0, 1.0
    for k in range(len(targets)):
        if targets[k] < 0:
            continue
        wrong = np.float32(1.0) / (np.float32(1.0) + scores[k])
        likelihood *= scores[k] * wrong  # one minus `wrong`, which would round to 0
        if likelihood < 1e-200:
            loss -= math.log(likelihood)
            likelihood = 1.0
        step = -lr * wrong if k else lr * wrong
        row = out_VD[targets[k]]
        for d in range(width):
            error_D[d] += step * row[d]
            row[d] += step * x_D[d]
    return loss - math.log(likelihood)


@inline_kernel
def _descend(x_D: Any, ends: Any, points: Any, turns: Any, lr: Any, out_VD: Any, error_D: Any) -> float:
    """A step of hierarchical softmax: the word's turns at the inner nodes above it, each a logistic regression."""
    width, (first, end) = len(x_D), ends
    error_D[:] = np.float32(0.0)
    loss, likelihood = 0.0, 1.0
    for n in range(first, end):
        row = out_VD[points[n]]
        total = np.float32(0.0)
        for d in range(width):
            total += x_D[d] * row[d]
        right = exp(-total if turns[n] else total)  # turn 0 has the probability σ(x · u)
        wrong = np.float32(1.0) / (np.float32(1.0) + right)
        likelihood *= right * wrong
        if likelihood < 1e-200:
            loss -= math.log(likelihood)
            likelihood = 1.0
        step = -lr * wrong if turns[n] else lr * wrong
        for d in range(width):
            error_D[d] += step * row[d]
            row[d] += step * x_D[d]
    return loss - math.log(likelihood)


def alias_table(weights_V: Any) -> tuple[np.ndarray, np.ndarray]:
    """A table to draw from any distribution with two random numbers (Walker 1977, Vose 1991).

    Returns:
        For each entry, of 2³² draws how many are its own (uint64), and whose the others are (int32).
    """
    weights_V = np.asarray(weights_V, dtype=np.float64)
    size = len(weights_V)
    scaled = (weights_V / weights_V.sum() * size).tolist()
    chance_V, alias_V = np.full(size, 2**32, dtype=np.uint64), np.arange(size, dtype=np.int32)
    small = [n for n in range(size) if scaled[n] < 1]
    large = [n for n in range(size) if scaled[n] >= 1]
    while small and large:
        low, high = small.pop(), large[-1]
        chance_V[low], alias_V[low] = round(scaled[low] * 2**32), high
        scaled[high] -= 1 - scaled[low]
        if scaled[high] < 1:
            small.append(large.pop())
    return chance_V, alias_V
