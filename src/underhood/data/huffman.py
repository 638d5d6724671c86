"""Huffman coding (1952): the optimal prefix code with whole bits per symbol.

The two rarest symbols differ in their last bit only. So they may be taken for one symbol, and so on until only one is
left; every merge puts one more bit in front of all that was merged.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Sequence

Pick = Callable[[list[tuple[float, int]]], tuple[tuple[float, int], tuple[float, int]]]


def lengths(weights: Sequence[float], pick: Pick | None = None) -> list[int]:
    """How many bits each symbol gets. Weights are counts or probabilities; equal ones: the lower number merges first.

    Args:
        pick: takes the next two to merge out of the heap of (weight, node), the two lightest if not given.

    Raises:
        ValueError: fewer than two symbols, or a negative weight.
    """
    if len(weights) < 2 or min(weights) < 0:
        raise ValueError("a code needs two symbols or more, none of negative weight")
    heap = [(weight, node) for node, weight in enumerate(weights)]
    heapq.heapify(heap)
    above: dict[int, int] = {}
    node = len(weights)
    while len(heap) > 1:
        (light, a), (heavy, b) = pick(heap) if pick else (heapq.heappop(heap), heapq.heappop(heap))
        above[a] = above[b] = node
        heapq.heappush(heap, (light + heavy, node))
        node += 1
    depth = {node - 1: 0}
    for inner in range(node - 2, -1, -1):  # parents have higher numbers than what they were merged from
        depth[inner] = depth[above[inner]] + 1
    return [depth[symbol] for symbol in range(len(weights))]


def codewords(lengths_V: Sequence[int]) -> list[str]:
    """Strings of 0 and 1 of these lengths, none the beginning of another: in order of length, each the next number.

    Raises:
        ValueError: no such code exists, for Kraft's sum of 2^−length is above 1.
    """
    order = sorted(range(len(lengths_V)), key=lambda symbol: (lengths_V[symbol], symbol))
    words = [""] * len(lengths_V)
    number, before = 0, 0
    for symbol in order:
        length = lengths_V[symbol]
        number <<= length - before
        if number >> length:
            raise ValueError("no prefix code has these lengths: Kraft's sum is above 1")
        words[symbol] = format(number, f"0{length}b")
        number, before = number + 1, length
    return words


def encode(symbols: Iterable[int], words: Sequence[str]) -> str:
    """The text as one string of bits."""
    return "".join(words[symbol] for symbol in symbols)


def decode(bits: str, words: Sequence[str]) -> list[int]:
    """The symbols again; no gaps are needed, since no word begins another.

    Raises:
        ValueError: the bits end within a word, or spell none.
    """
    known = {word: symbol for symbol, word in enumerate(words)}
    longest = max(map(len, words))
    decoded, begin, end = [], 0, 1
    while begin < len(bits):
        symbol = known.get(bits[begin:end])
        if symbol is not None:
            decoded.append(symbol)
            begin = end
        elif end - begin >= longest or end > len(bits):
            raise ValueError(f"bit {begin} begins no word of this code")
        end += 1
    return decoded
