"""Huffman 1952: the best code of whole bits, and how far it stays above the entropy."""

from __future__ import annotations

from itertools import product

import numpy as np
from numpy.typing import NDArray

from underhood.core.figures import Series
from underhood.core.trial import Trial
from underhood.data.huffman import Pick, codewords, decode, encode, lengths
from underhood.data.letters import ALPHABET, block_counts, plain_english, symbols
from underhood.evals.information import cross_entropy, entropy

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
POSSIBLE = np.array([code for code in product(range(1, 5), repeat=5) if sum(2.0**-length for length in code) <= 1])
"""Every set of lengths up to four that five symbols can have (Kraft); longer ones are never needed."""


def run(trial: Trial) -> None:
    pick = commonest if trial.ablated("rarest") else None
    train, held_out = plain_english(only_topics=trial.scale == "smoke")
    text, other = symbols(" ".join(train)), symbols(" ".join(held_out))
    counts = block_counts(text, 1)
    code = lengths(counts.tolist(), pick)
    trial.measure("letters", mean_length(counts, code) - entropy(counts))
    words = ranks_in_binary(counts) if trial.ablated("prefix") else codewords(code)
    trial.measure("kraft", sum(2.0 ** -len(word) for word in words))
    some = text[: trial.by_scale(smoke=20_000, report=500_000)].tolist()
    bits = encode(some, words)
    trial.measure("restored", wrong_letters(bits, words, some))
    new = block_counts(other, 1)
    trial.measure("other_text", mean_length(new, code) - cross_entropy(new, counts))
    costs = [cost(block_counts(text, n), n, pick) for n in (1, 2, 3)]
    trial.measure("blocks", costs[2][0] - costs[2][1])
    for seed in trial.each_seed():
        rng = np.random.default_rng(seed)
        trial.measure("within_one", min(slack(p, pick) for p in rng.dirichlet(np.full(27, 0.5), size=1000)))
        trial.measure("optimal", max(excess(p, pick) for p in rng.dirichlet(np.ones(5), size=200)))
    if not trial.is_ablation:
        expected = sum(code[symbol] for symbol in some)
        trial.oracle("the coded text is as long as the table says", len(bits) == expected, f"{len(bits):,} bits")
        show(trial, counts, words, costs)


def commonest(heap: list[tuple[float, int]]) -> tuple[tuple[float, int], tuple[float, int]]:
    """Huffman's rule upside down."""
    heap.sort()
    return heap.pop(), heap.pop()


def ranks_in_binary(counts: Ints) -> list[str]:
    """0, 1, 10, 11, 100 … by frequency: shorter than any code, and nobody can read it."""
    words = [""] * len(counts)
    for rank, symbol in enumerate(np.argsort(-counts)):
        words[symbol] = format(rank, "b")
    return words


def wrong_letters(bits: str, words: list[str], text: list[int]) -> int:
    try:
        decoded = decode(bits, words)
    except ValueError:
        return len(text)
    return sum(a != b for a, b in zip(decoded, text, strict=False)) + abs(len(decoded) - len(text))


def mean_length(p: Floats | Ints, code: list[int]) -> float:
    return float(np.average(code, weights=p))


def cost(counts: Ints, n: int, pick: Pick | None) -> tuple[float, float]:
    """Bits per letter of a code for blocks of n letters, and the entropy that it cannot go below."""
    seen = counts[counts > 0]
    return mean_length(seen, lengths(seen.tolist(), pick)) / n, entropy(seen) / n


def slack(p: Floats, pick: Pick | None) -> float:
    """How far the mean length is inside H to H + 1; negative outside."""
    over = mean_length(p, lengths(p.tolist(), pick)) - entropy(p)
    return min(over, 1 - over)


def excess(p: Floats, pick: Pick | None) -> float:
    """The mean length above that of the best of all codes."""
    return mean_length(p, lengths(p.tolist(), pick)) - float((POSSIBLE @ p).min())


def show(trial: Trial, counts: Ints, words: list[str], costs: list[tuple[float, float]]) -> None:
    p = counts / counts.sum()
    trial.table(
        title="A code for letters",
        head=("letter", "share", "surprise, bits", "its bits"),
        rows=tuple(
            (ALPHABET[i].replace(" ", "space"), f"{p[i]:.4f}", round(-float(np.log2(p[i])), 2), words[i])
            for i in np.argsort(-p)
        ),
    )
    trial.plot(
        title="Longer blocks cost less per letter",
        x="letters per block",
        y="bits per letter",
        kind="bars",
        names=("1", "2", "3"),
        series=tuple(
            Series(name, (0, 1, 2), tuple(pair[i] for pair in costs))
            for i, name in enumerate(("Huffman code", "entropy of the blocks"))
        ),
    )
