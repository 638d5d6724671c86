"""Byte-pair encoding on integers: learning merges and applying them.

A text is a sequence of bytes. Learning repeats one step: find the pair of neighbouring symbols that occurs most often
and give it a symbol of its own (Sennrich, Haddow and Birch 2016, "Neural Machine Translation of Rare Words with
Subword Units", algorithm 1; Gage 1994 invented it to compress files). Starting from bytes instead of characters
(Radford et al. 2019, section 2.2) leaves nothing that cannot be spelled: there is no unknown token.

The algorithm 1 of the paper recounts every pair after every merge. `learn_merges` gives the same merges and touches
only the words that hold the merged pair:

- equal words are stored once with their frequency;
- ``count[pair]`` is kept up to date, and ``holders[pair]`` says which words may hold the pair;
- a heap finds the largest count. Its entries may be out of date: counts that fell are noticed when they surface.

A word here is one piece of `split.split`, so merges never cross its edges.
"""

from __future__ import annotations

import heapq
import itertools
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence

Pair = tuple[int, int]


def learn_merges(
    words: Mapping[tuple[int, ...], int],
    merges: int,
    *,
    first_symbol: int = 256,
    min_frequency: int = 2,
    progress: Callable[[int, int], None] | None = None,
) -> list[Pair]:
    """The `merges` most useful merges in the order in which they were learnt; merge i makes ``first_symbol + i``.

    Ties are broken by the smaller left symbol, then by the smaller right one, so the result depends on the word
    counts alone, not on the order in which words were met. (Hugging Face's trainer breaks ties the same way.)

    Args:
        words: each distinct word as a tuple of symbols below `first_symbol`, with its frequency.
        merges: how many to learn; fewer come back when no pair is left that occurs `min_frequency` times.
        first_symbol: the symbol that the first merge makes.
        min_frequency: pairs that occur less often are not worth a symbol.
        progress: called now and then with the merges done and the merges wanted.
    """
    spellings = [list(word) for word in words]
    frequency = list(words.values())
    count: dict[Pair, int] = defaultdict(int)
    holders: dict[Pair, set[int]] = defaultdict(set)
    for index, symbols in enumerate(spellings):
        for pair in itertools.pairwise(symbols):
            count[pair] += frequency[index]
            holders[pair].add(index)
    heap = [(-number, pair) for pair, number in count.items()]
    heapq.heapify(heap)

    learnt: list[Pair] = []
    while heap and len(learnt) < merges:
        negative, best = heapq.heappop(heap)
        if -negative != count[best]:
            if count[best] > 0:
                heapq.heappush(heap, (-count[best], best))
            continue
        if -negative < min_frequency:
            break
        new = first_symbol + len(learnt)
        learnt.append(best)
        changed: dict[Pair, int] = defaultdict(int)
        for index in holders.pop(best):
            before = spellings[index]
            after = merge_pair(before, best, new)
            if len(after) == len(before):
                continue  # an earlier merge had already taken this word's last such pair apart
            spellings[index] = after
            for pair in itertools.pairwise(before):
                changed[pair] -= frequency[index]
            for pair in itertools.pairwise(after):
                changed[pair] += frequency[index]
                if new in pair:
                    holders[pair].add(index)
        for pair, difference in changed.items():
            count[pair] += difference
            if difference > 0:
                heapq.heappush(heap, (-count[pair], pair))
        if progress is not None and (len(learnt) % 64 == 0 or len(learnt) == merges):
            progress(len(learnt), merges)
    return learnt


def merge_pair(symbols: list[int], pair: Pair, new: int) -> list[int]:
    """`symbols` with every occurrence of `pair`, from the left and without overlaps, replaced by `new`."""
    left, right = pair
    merged: list[int] = []
    at, last = 0, len(symbols) - 1
    while at <= last:
        if symbols[at] == left and at < last and symbols[at + 1] == right:
            merged.append(new)
            at += 2
        else:
            merged.append(symbols[at])
            at += 1
    return merged


def apply_merges(symbols: Sequence[int], ranks: Mapping[Pair, tuple[int, int]]) -> list[int]:
    """Encodes one word: as long as any neighbours have a merge, apply the earliest learnt one.

    A heap of the pairs that can merge and a linked list of the symbols that are left make it n log n, which matters
    where a "word" is a megabyte of one letter. Of equal pairs the leftmost merges first.

    Args:
        symbols: the word's bytes as symbols.
        ranks: for each pair that merges: when it was learnt (lower is earlier), and the symbol that it makes.
    """
    left_symbols: list[int | None] = list(symbols)  # None where a symbol has gone into the one before it
    before, after = list(range(-1, len(symbols) - 1)), [*range(1, len(symbols)), -1]
    heap: list[tuple[int, int, int, int]] = []

    def consider(first: int, second: int) -> None:
        if first < 0 or second < 0:
            return
        left, right = left_symbols[first], left_symbols[second]
        assert left is not None
        assert right is not None
        known = ranks.get((left, right))
        if known is not None:
            heapq.heappush(heap, (known[0], first, left, right))

    for index in range(len(symbols) - 1):
        consider(index, index + 1)
    while heap:
        _, first, left, right = heapq.heappop(heap)
        second = after[first]
        if second < 0 or left_symbols[first] != left or left_symbols[second] != right:
            continue  # one of the two has merged otherwise since
        left_symbols[first], left_symbols[second] = ranks[left, right][1], None
        after[first] = after[second]
        if after[second] >= 0:
            before[after[second]] = first
        consider(before[first], first)
        consider(first, after[first])
    return [symbol for symbol in left_symbols if symbol is not None]
