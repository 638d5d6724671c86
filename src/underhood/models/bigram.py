"""The smallest language model: which letter follows which, as a table of counts and as a network of one layer.

All tables are (27, 27) over `data.letters.ALPHABET`, rows are the letter before. The network's logits are its weights
W, a row for each letter: softmax regression on a one-hot letter. All pairs of a kind have the same loss, so the whole
text is one table of counts, and a step over all of it costs a matrix of 27 × 27.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from underhood.data.letters import symbols

Floats = NDArray[np.float64]


def pairs(words: list[str]) -> Floats:
    """How often each letter follows each, (27, 27); symbol 0 comes before, between and after words."""
    text = symbols(" " + " ".join(words) + " ")
    counts = np.zeros((27, 27))
    np.add.at(counts, (text[:-1], text[1:]), 1)
    return counts


def counted(seen: Floats, by_row: bool = True) -> Floats:
    """The maximum-likelihood table: each row of counts divided by its sum."""
    return seen / (seen.sum(axis=1, keepdims=True) if by_row else seen.sum())


def softmax(W: Floats) -> Floats:
    e = np.exp(W - W.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def loss(seen: Floats, q: Floats) -> float:
    """Mean of −log q over all pairs, in nats; infinite if a pair that occurs has no probability."""
    with np.errstate(divide="ignore"):
        logs = np.log(q)
    return float(-(seen[seen > 0] * logs[seen > 0]).sum() / seen.sum())


def descend(
    seen: Floats, start: Floats, *, steps: int, decay: float = 0.0, log: bool = True, rate: float = 50.0
) -> tuple[Floats, list[float]]:
    """Full-batch gradient descent on the loss + decay · mean(W²): the weights, and the loss before each step."""
    W, p_ab = start.copy(), seen / seen.sum()
    losses = []
    for _ in range(steps):
        q = softmax(W)
        losses.append(loss(seen, q))
        pull = p_ab if log else p_ab * q  # what maximising log q, or q itself, asks of each pair
        slope = pull.sum(axis=1, keepdims=True) * q - pull + 2 * decay * W / W.size
        W -= rate * slope
    return W, [*losses, loss(seen, softmax(W))]


def drawn(table: Floats, chance: Floats) -> NDArray[np.int64]:
    """Words letter by letter, (most, words), 0 from their end on; `chance` holds a number from 0 to 1 for each letter.

    Two tables given the same numbers draw the same words wherever they agree.
    """
    upto = table.cumsum(axis=1)
    words = np.zeros(chance.shape, dtype=np.int64)
    before = words[0]
    for t, numbers in enumerate(chance):
        words[t] = (numbers[:, None] > upto[before]).sum(axis=1).clip(max=len(table) - 1)
        if t:
            words[t, words[t - 1] == 0] = 0
        before = words[t]
    return words
