"""Huffman 1952: the best code of whole bits, and how far it stays above the entropy."""

from __future__ import annotations

from itertools import product

import numpy as np
from numpy.typing import NDArray

from underhood.core.figures import Grid, Plot, Series
from underhood.core.milestone import Ablation, Claim, Exactly, Milestone, Minutes, Paper, Seeds, at_least, at_most
from underhood.core.trial import Trial
from underhood.data.huffman import Pick, codewords, decode, encode, lengths
from underhood.data.letters import ALPHABET, block_counts, plain_english, symbols
from underhood.evals.information import cross_entropy, entropy

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
POSSIBLE = np.array([code for code in product(range(1, 5), repeat=5) if sum(2.0**-length for length in code) <= 1])
"""Every set of lengths up to four that five symbols can have (Kraft); longer ones are never needed."""

MILESTONE = Milestone(
    stem="p1952_huffman",
    topics=("huffman",),
    title="Huffman's code: within a bit of the entropy",
    year=1952,
    question="How short can a text be written, if every letter gets bits of its own?",
    asks=(
        "how does a Huffman code work?",
        "what is a prefix code?",
        "why can't a file be compressed below its entropy?",
    ),
    papers=(
        Paper(
            authors="D. A. Huffman",
            year=1952,
            title="A method for the construction of minimum-redundancy codes",
            link="https://doi.org/10.1109/JRPROC.1952.273898",
        ),
        Paper(
            authors="T. M. Cover, J. A. Thomas",
            year=2005,
            title="Elements of information theory, chapter 5",
            link="https://doi.org/10.1002/047174882X",
        ),
    ),
    idea=r"""
Frequent letters should get few bits, rare ones more. For a reader to know where each letter ends, no letter's bits may
begin another's. Then the lengths $\ell_x$ obey Kraft's inequality: every string of $\ell$ bits uses up the share
$2^{-\ell}$ of all that can follow, and there is only one whole to share,

$$\sum_x 2^{-\ell_x} \le 1$$

So $2^{-\ell_x}$ act like probabilities $q_x$, the mean length is a cross-entropy, and it cannot be below the entropy
$H$. It would be equal to it if every $\ell_x$ were $-\log_2 p_x$, but bits come whole. Rounding up costs less than one.

Huffman, a student who was to write a term paper on it, found the best code of all by starting from the end. The two
rarest symbols should have the longest strings, alike but for the last bit. So merge them into one symbol whose
probability is their sum, and ask the same question again, until a single symbol is left:

$$H \le L < H + 1$$

The lost fraction of a bit is lost once per *coded* symbol. Code blocks of $n$ letters as one symbol, and each letter
loses at most $1/n$. The table of blocks grows as $27^n$, and most of it is never seen; that is the same wall that
n-gram models run into.
""",
    claims=(
        Claim(
            key="letters",
            statement="A Huffman code for letters takes at most 0.05 bits more than their entropy",
            judge=at_most(0.05),
            unit="bits per letter",
        ),
        Claim(
            key="within_one",
            statement="Over 1,000 random sources the code takes H or more and less than H + 1 (least distance)",
            judge=at_least(0.0),
            middle="min",
            unit="bits",
        ),
        Claim(
            key="optimal",
            statement="No code that exists is shorter: all are tried, for sources of five symbols (largest excess)",
            judge=Exactly(0.0, within=1e-12),
            middle="max",
            unit="bits",
        ),
        Claim(
            key="kraft",
            statement="Kraft's sum of the code is 1: not a single string of bits is wasted",
            judge=Exactly(1.0),
        ),
        Claim(
            key="restored",
            statement="The text comes back from its bits, letter by letter (wrong letters)",
            judge=Exactly(0),
        ),
        Claim(
            key="blocks",
            statement="Coded in blocks of three, a letter costs at most 0.02 bits above the blocks' entropy",
            judge=at_most(0.02),
            unit="bits per letter",
        ),
        Claim(
            key="other_text",
            statement="On text it was not made for, the code costs at most 0.05 bits above the cross-entropy",
            judge=at_most(0.05),
            unit="bits per letter",
        ),
    ),
    ablations=(
        Ablation(
            "rarest",
            "the two commonest symbols are merged in place of the rarest",
            ("letters", "within_one", "optimal", "blocks", "other_text"),
        ),
        Ablation(
            "prefix", "a letter's bits are its rank in binary: short, but no gaps between them", ("kraft", "restored")
        ),
    ),
    minutes=Minutes(read=6, smoke=0.1, report=0.2),
    seeds=Seeds(smoke=3, report=10),
    code=("underhood.data.huffman:lengths", "underhood.data.huffman:codewords"),
    hard="""
What blocks gain over single letters comes from knowing the letters before, which a block takes along: the code's own
waste is small from the start, a few hundredths of a bit. The lengths are those of Huffman's tree; which strings have
them is free, so the code takes the smallest numbers in order (a canonical code), and a table of lengths is all that a
decoder needs. The code is judged by its exact mean length; a text is coded and read back to check that.
""",
    then="Whole bits are wasteful when a symbol is nearly certain. Arithmetic coding needs none: lm-compressor.",
)


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
        found = decode(bits, words)
    except ValueError:
        return len(text)
    return sum(a != b for a, b in zip(found, text, strict=False)) + abs(len(found) - len(text))


def mean_length(p: Floats | Ints, code: list[int]) -> float:
    return float(np.average(code, weights=p))


def cost(counts: Ints, n: int, pick: Pick | None) -> tuple[float, float]:
    """Bits per letter of a code for blocks of n letters, and the entropy that it cannot go below."""
    seen = counts[counts > 0]
    return mean_length(seen, lengths(seen.tolist(), pick)) / n, entropy(seen) / n


def slack(p: Floats, pick: Pick | None) -> float:
    """How far the mean length lies inside H to H + 1; negative outside."""
    over = mean_length(p, lengths(p.tolist(), pick)) - entropy(p)
    return min(over, 1 - over)


def excess(p: Floats, pick: Pick | None) -> float:
    """The mean length above that of the best of all codes."""
    return mean_length(p, lengths(p.tolist(), pick)) - float((POSSIBLE @ p).min())


def show(trial: Trial, counts: Ints, words: list[str], costs: list[tuple[float, float]]) -> None:
    p = counts / counts.sum()
    trial.figure(
        Grid(
            title="A code for letters",
            head=("letter", "share", "surprise, bits", "its bits"),
            rows=tuple(
                (ALPHABET[i].replace(" ", "space"), f"{p[i]:.4f}", round(-float(np.log2(p[i])), 2), words[i])
                for i in np.argsort(-p)
            ),
        )
    )
    trial.figure(
        Plot(
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
    )
