"""An n-gram over bytes that learns from what it predicts: it starts knowing nothing and needs no file.

After each byte, the counts of every context that ended there grow by one, so whoever repeats the bytes repeats the
model. The prediction blends the contexts of 0 to K bytes as Witten & Bell (1991, method C) do: a context gives its
shorter one a weight of T, the number of different bytes seen after it, beside the C bytes seen in all::

    p(w | h) = (c(h w) + T(h) p(w | h')) / (C(h) + T(h)),   from 1 / 256 upwards

An arithmetic coder wants cumulative frequencies, F(w) = p(0) + … + p(w − 1), and exactly the same ones in both
directions. F blends as p does, so only one value per context is worked out, in integers: nothing is rounded by a
processor's own rules, and F never falls, because integer division never turns an order around.
"""

from __future__ import annotations

from bisect import bisect_left

from underhood.data.arithmetic import TOTAL_LIMIT

SPREAD = TOTAL_LIMIT - 256
"""Frequencies are shared out by the model; the 256 left give every byte one, however unlikely."""


_Context = tuple[bytearray, list[int], list[int]]
"""What followed one context: the bytes in order, how often each, and (alone in its list) how often in all."""


class ByteNGram:
    """Predicts the next byte from the `order` bytes before it, and learns it.

    ::

        for byte in data:
            start, end = model.interval(byte)  # of TOTAL_LIMIT
            model.learn(byte)

    Args:
        order: K, the longest context in bytes; 0 counts bytes alone.
        contexts: how many contexts it may remember; then it goes on counting in those it has. A million take about
            400 MB.
    """

    def __init__(self, order: int = 5, *, contexts: int = 1_000_000):
        if not 0 <= order <= 255:
            raise ValueError(f"order must be from 0 to 255, got {order}")
        self.order, self._room = order, contexts
        self._known: dict[bytes, _Context] = {}
        self._before = b""
        self._seen: list[_Context] = []  # contexts of the coming byte that have been met before, the shortest first

    def interval(self, byte: int) -> tuple[int, int]:
        """Start and end of the byte's frequencies in 0 to `TOTAL_LIMIT`; the end is beyond the start."""
        start, end = byte << 24, byte + 1 << 24  # in 1 / 256
        for symbols, counts, (total,) in self._seen:
            kinds = len(counts)
            at = bisect_left(symbols, byte)
            before = sum(counts[:at])
            through = before + counts[at] if at < kinds and symbols[at] == byte else before
            total += kinds
            start = ((before << 32) + kinds * start) // total
            end = ((through << 32) + kinds * end) // total
        return byte + (start * SPREAD >> 32), byte + 1 + (end * SPREAD >> 32)

    def find(self, target: int) -> tuple[int, int, int]:
        """The byte whose interval holds a number below `TOTAL_LIMIT`, with its start and end."""
        low, high, probe = 0, 256, 128  # it is one of low … high − 1
        if self._seen:
            symbols, counts, _ = self._seen[-1]
            probe = symbols[counts.index(max(counts))]  # most often right at once
        while True:
            start, end = self.interval(probe)
            if target < start:
                high = probe
            elif target >= end:
                low = probe + 1
            else:
                return probe, start, end
            probe = (low + high) >> 1

    def learn(self, byte: int) -> None:
        """Counts a byte in every context that ends before it, and steps on."""
        for symbols, counts, total in self._seen:
            at = bisect_left(symbols, byte)
            if at < len(counts) and symbols[at] == byte:
                counts[at] += 1
            else:
                symbols.insert(at, byte)
                counts.insert(at, 1)
            total[0] += 1
        before, known = self._before, self._known
        size = len(before)
        for longer in range(len(self._seen), size + 1):
            if len(known) == self._room:
                break
            known[before[size - longer :]] = (bytearray((byte,)), [1], [1])
        self._before = before = (before + bytes((byte,)))[-self.order :] if self.order else b""
        size = len(before)
        seen = self._seen = []
        for longer in range(size + 1):
            context = known.get(before[size - longer :])
            if context is None:
                break  # where a context is unknown, so are all longer ones
            seen.append(context)
