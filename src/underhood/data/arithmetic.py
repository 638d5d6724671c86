"""Arithmetic coding: a message as about −log2 of its probability in bits.

A message is an interval of [0, 1). Each symbol narrows it to the part that its probability earns, so the interval of
the whole message is as wide as the message is likely, and naming a point in it takes about −log2 of that many bits
(Rissanen 1976; MacKay 2003, section 6.2). Unlike a Huffman code, a symbol may cost a hundredth of a bit.

Everything is integers. `range` is the interval's width in 32 bits and `low` its beginning. After each symbol both are
shifted until `range` fills its 32 bits again, and what `low` pushes out on the left is written. Two things can go
wrong, and each has its cure:

- *Carry.* `low` may grow past what was written. The one is added to the bytes that are out already, through any bytes
  of 255 (Martin 1979).
- *Underflow.* An interval that spans a border stays across it however narrow it gets, and its first bits stay
  unknown. Here `range` is kept by itself and never shrinks with them: 2³¹ or more is left before every symbol, so that
  with frequencies that sum to 2²⁴ or less none is ever rounded to nothing.
"""

from __future__ import annotations

BITS = 32
TOP = 1 << BITS
TOTAL_BITS = 24
TOTAL_LIMIT = 1 << TOTAL_BITS
"""The largest sum of frequencies: the rarest symbol then still has 127 of at least 2³¹ units."""


class TruncatedError(ValueError):
    """More was read than was ever written: the code is cut off or damaged."""


class ArithmeticEncoder:
    """Arithmetic encoder: ``encode`` for every symbol, then ``finish`` once."""

    def __init__(self) -> None:
        self._low, self._range = 0, TOP - 1
        self._bits = 0  # how many bits `low` holds above its 32, waiting to be whole bytes
        self._out = bytearray()

    def encode(self, start: int, end: int, total: int) -> None:
        """Narrows the interval to [start, end) of `total`.

        Args:
            start: sum of the frequencies of all symbols before this one.
            end: `start` plus its own, which is at least 1.
            total: sum of all frequencies, at most `TOTAL_LIMIT`.
        """
        assert 0 <= start < end <= total <= TOTAL_LIMIT
        width = self._range
        below = width * start // total
        width = width * end // total - below
        shift = BITS - width.bit_length()
        self._low = self._low + below << shift
        self._range = width << shift
        self._bits += shift
        if self._bits >= 32:
            self._write()

    def finish(self) -> bytes:
        """The whole code: of all numbers in the last interval, the one that needs the fewest bytes."""
        size, end = BITS + self._bits, self._low + self._range
        kept = 0
        while -(-self._low >> (fine := max(0, size - 8 * kept))) << fine >= end:  # `low` rounded up to `kept` bytes
            kept += 1
        point = -(-self._low >> fine) << max(0, 8 * kept - size)
        self._carry(point >> 8 * kept)
        self._out += (point & ((1 << 8 * kept) - 1)).to_bytes(kept, "big")
        return bytes(self._out)

    def _write(self) -> None:
        whole = self._bits >> 3
        rest = BITS + self._bits - 8 * whole
        out = self._low >> rest
        self._carry(out >> 8 * whole)
        self._out += (out & ((1 << 8 * whole) - 1)).to_bytes(whole, "big")
        self._low &= (1 << rest) - 1
        self._bits -= 8 * whole

    def _carry(self, carry: int) -> None:
        if not carry:
            return
        at = len(self._out) - 1
        while self._out[at] == 255:
            self._out[at] = 0
            at -= 1
        self._out[at] += 1


class ArithmeticDecoder:
    """Arithmetic decoder: ``decode`` per symbol, given the encoder's frequencies in the same order."""

    def __init__(self, code: bytes) -> None:
        self._code, self._at = code, 4
        self._offset = int.from_bytes(code[:4].ljust(4, b"\0"), "big")  # from the interval's beginning
        self._range = TOP - 1
        self._buffer, self._held = 0, 0

    def target(self, total: int) -> int:
        """The number below `total` that the next symbol's [start, end) holds."""
        return ((self._offset + 1) * total - 1) // self._range

    def decode(self, start: int, end: int, total: int) -> None:
        """Narrows the interval as `ArithmeticEncoder.encode` did.

        Raises:
            TruncatedError: the code ended before.
        """
        width = self._range
        below = width * start // total
        width = width * end // total - below
        self._offset -= below
        if not 0 <= self._offset < width:
            raise TruncatedError("the code leaves its interval")
        shift = BITS - width.bit_length()
        if shift > self._held:
            self._read()
        self._held -= shift
        self._offset = self._offset << shift | self._buffer >> self._held
        self._buffer &= (1 << self._held) - 1
        self._range = width << shift

    def _read(self) -> None:
        taken = self._code[self._at : self._at + 8]
        # The writer leaves at most 8 bytes of zeros unwritten, and one reads at most 8 ahead.
        if self._at > len(self._code) + 16:
            raise TruncatedError("the code is cut off")
        self._buffer = self._buffer << 64 | int.from_bytes(taken.ljust(8, b"\0"), "big")
        self._held += 64
        self._at += 8
