"""Matrix products for small batches, limited by the time to read the matrix; weights in float32, int8 or 4 bits.

Up to `DOT_BATCH_MAX` vectors are multiplied row by row (dot products); larger batches in tiles of sixteen vectors and a
few rows. Weights of 8 and 4 bits are multiplied as integers: each vector is rounded to 16 bits with a scale of its own.
That is 256 times finer than the 8 bits that most programs use, and takes half the instructions of floats.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from underhood.kernels.elementwise import value
from underhood.kernels.jit import inline_kernel, overload, parallel_kernel, prange, run_parallel, types
from underhood.kernels.simd import (
    GROUP,
    LANES,
    LINE,
    ROWS,
    ROWS_FOR_FOUR_VECTORS,
    dots,
    float_tile,
    integer_tile,
    prefetch,
    widen_half_bytes,
)

DOT_BATCH_MAX = 8
"""Largest batch that is computed as dot products."""

ROW_MULTIPLE = 64
"""Quantised rows are padded with zeros to a multiple of this length."""

INT_BLOCK = 512
"""Integer products whose sum always fits into 32 bits: 127 · 32767 · 512 < 2³¹."""

_FULL_RANGE_ROW_MAX = 8_192
"""Longest row whose dot products fit into 32 bits with activations of the full 16 bits."""

_INT16_MAX = 32_767
_TINY = int(np.float32(1e-30).view(np.int32))
"""Bits of the smallest magnitude; a vector whose largest number is smaller counts as zero."""

NONE = np.empty((0, 0), dtype=np.float32)
_NO_BIAS = np.empty(0, dtype=np.float32)


class Weights(NamedTuple):
    """A weight matrix (O, I); all arrays are contiguous.

    Attributes:
        codes: float32 (O, I); int8 (O, I), scaled per row; or uint8 (O, I / 2) with two 4-bit codes per byte, in groups
            of 64 whose bytes hold the first 32 codes in their lower halves, ``w = (code − 8) · scale + offset``.
        scale: float32 (O, 1), or the bits of bfloat16 (O, groups); empty for float32.
        offset: the bits of bfloat16 (O, groups) for 4 bits, else empty.
    """

    codes: np.ndarray
    scale: np.ndarray = NONE
    offset: np.ndarray = NONE


def multiply(weights: Weights, x_NI: np.ndarray, bias_O: np.ndarray | None, y_NO: np.ndarray) -> None:
    """``y = x Wᵀ + b`` in float32.

    x may be shorter than the rows of quantised weights, which are padded.

    Raises:
        ValueError: shapes do not match, or x or y is not contiguous.
    """
    (count, inputs), (outputs, size) = x_NI.shape, weights.codes.shape
    floats = weights.codes.dtype == np.float32
    fits = inputs == size if floats else inputs <= size * (2 if weights.codes.dtype == np.uint8 else 1)
    if not (fits and y_NO.shape == (count, outputs) and x_NI.flags.c_contiguous and y_NO.flags.c_contiguous):
        raise ValueError(f"cannot multiply {x_NI.shape} with codes {weights.codes.shape} into {y_NO.shape}")
    if count <= DOT_BATCH_MAX or outputs < ROWS:
        by = floats_by_rows if floats else _codes_by_rows
    else:
        by = floats_by_tiles if floats else _codes_by_tiles
    run_parallel(by, *weights, x_NI, _NO_BIAS if bias_O is None else bias_O, y_NO)


@parallel_kernel
def floats_by_rows(parts: int, codes: Any, scale: Any, _: Any, x_NI: Any, bias_O: Any, y_NO: Any) -> None:
    """`multiply` for few vectors or few rows, with floats."""
    (count, outputs), inputs = y_NO.shape, codes.shape[1]
    whole = inputs - inputs % LANES
    for chunk in prange(parts):
        first, end = outputs * chunk // parts, outputs * (chunk + 1) // parts
        _rows(first, end, codes, scale, x_NI, whole, y_NO)
        for o in range(first, end):
            for n in range(count):
                y = y_NO[n, o]
                for i in range(whole, inputs):
                    y += codes[o, i] * x_NI[n, i]
                y_NO[n, o] = y + bias_O[o] if bias_O.shape[0] else y


@inline_kernel
def _rows(first: int, end: int, codes: Any, scale: Any, x_NX: Any, length: int, y_NO: Any) -> None:
    """Dot products of the rows from `first` to `end`, several at a time, with all vectors, four at a time."""
    sums = np.empty(4 * ROWS, dtype=np.float32)
    y, size, count = sums.ctypes.data, x_NX.shape[1] * x_NX.itemsize, x_NX.shape[0]
    stride, scale_stride = codes.shape[1] * codes.itemsize, scale.shape[1] * scale.itemsize
    enough = end - first >= ROWS
    for start in range(first, end, ROWS if enough else 1):
        o = min(start, end - ROWS) if enough else start  # the last few rows together with some before them
        row, scales = codes.ctypes.data + o * stride, scale.ctypes.data + o * scale_stride
        fours = count - count % 4 if enough else 0
        for n in range(0, fours, 4):
            x = x_NX.ctypes.data + n * size
            for r in range(0, ROWS, ROWS_FOR_FOUR_VECTORS):
                at, of = row + r * stride, scales + r * scale_stride
                dots(codes, at, stride, of, scale_stride, x, size, length, y, ROWS_FOR_FOUR_VECTORS, 4)
                for v in range(4):
                    for k in range(ROWS_FOR_FOUR_VECTORS):
                        y_NO[n + v, o + r + k] = sums[v * ROWS_FOR_FOUR_VECTORS + k]
        for n in range(fours, count):
            x = x_NX.ctypes.data + n * size
            if enough:
                dots(codes, row, stride, scales, scale_stride, x, size, length, y, ROWS, 1)
                for r in range(ROWS):
                    y_NO[n, o + r] = sums[r]
            else:
                dots(codes, row, stride, scales, scale_stride, x, size, length, y, 1, 1)
                y_NO[n, o] = sums[0]


@parallel_kernel
def floats_by_tiles(parts: int, codes: Any, _: Any, __: Any, x_NI: Any, bias_O: Any, y_NO: Any) -> None:
    """`multiply` for more vectors, with floats."""
    (count, outputs), inputs = y_NO.shape, codes.shape[1]
    tiles, blocks = -(-count // LANES), -(-outputs // ROWS)
    x_TIC = _columns(x_NI)
    for chunk in prange(parts):
        y_RC = _floats(ROWS, LANES)
        for block in range(blocks * chunk // parts, blocks * (chunk + 1) // parts):
            # The last block overlaps the one before if it has fewer rows.
            o = min(block * ROWS, outputs - ROWS)
            rows = codes.ctypes.data + o * inputs * 4
            for t in range(tiles):
                float_tile(rows, inputs * 4, x_TIC[t].ctypes.data, inputs, y_RC.ctypes.data)
                _put(y_RC, bias_O, o, y_NO[t * LANES : (t + 1) * LANES])


@inline_kernel
def _columns(x_NI: Any) -> Any:
    """Vectors as columns, in tiles (T, I, LANES)."""
    count, inputs = x_NI.shape
    x_TIC = np.zeros((-(-count // LANES), inputs, LANES), dtype=np.float32)
    for t in range(x_TIC.shape[0]):
        _turn(x_NI[t * LANES : (t + 1) * LANES], x_TIC[t])
    return x_TIC


@inline_kernel
def _turn(x_NI: Any, x_IC: Any) -> None:
    for i in range(x_NI.shape[1]):
        for c in range(x_NI.shape[0]):
            x_IC[i, c] = x_NI[c, i]


@inline_kernel
def _floats(rows: int, columns: int) -> Any:
    return np.zeros((rows, columns), dtype=np.float32)


@inline_kernel
def _put(y_RC: Any, bias_O: Any, o: int, y_NO: Any) -> None:
    """Stores a tile with its bias. Each number is written once, because two threads may share the last rows."""
    for n in range(y_NO.shape[0]):
        if bias_O.shape[0]:
            for r in range(ROWS):
                y_NO[n, o + r] = y_RC[r, n] + bias_O[o + r]
        else:
            for r in range(ROWS):
                y_NO[n, o + r] = y_RC[r, n]


@parallel_kernel
def _codes_by_rows(parts: int, codes: Any, scale: Any, offset: Any, x_NI: Any, bias_O: Any, y_NO: Any) -> None:
    (count, outputs), inputs = y_NO.shape, padded(codes)
    rounded_NI, factor_N, sums_NG = _rounded(x_NI, inputs, most(codes), GROUP)
    for chunk in prange(parts):
        first, end = outputs * chunk // parts, outputs * (chunk + 1) // parts
        _rows(first, end, codes, scale, rounded_NI, inputs, y_NO)
        for o in range(first, end):
            for n in range(count):
                y = finished(codes, scale, offset, o, y_NO[n, o] * factor_N[n], sums_NG[n])
                y_NO[n, o] = y + bias_O[o] if bias_O.shape[0] else y


@inline_kernel
def _rounded(x_NI: Any, inputs: int, most: int, each: int) -> Any:
    """Activations as integers up to `most` (N, padded inputs), their scales (N,), and sums of x per block."""
    (count, given), bits_NI = x_NI.shape, x_NI.view(np.int32)
    rounded_NI, factor_N = np.zeros((count, inputs), dtype=np.int16), np.empty(count, dtype=np.float32)
    sums_NB = np.zeros((count, -(-inputs // each)), dtype=np.float32)
    for n in range(count):
        # Without signs, floats are ordered as their bits are, and NaN is the largest.
        largest = np.int32(0)
        for i in range(given):
            largest = max(largest, np.int32(bits_NI[n, i] & np.int32(0x7FFFFFFF)))
        factor = np.float32(1.0) if largest < _TINY else np.int32(largest).view(np.float32) / np.float32(most)
        factor_N[n] = factor
        for i in range(given):
            rounded_NI[n, i] = np.int16(np.int32(np.rint(x_NI[n, i] / factor)))
        for b in range(sums_NB.shape[1]):
            total = np.float32(0.0)
            for i in range(b * each, min((b + 1) * each, given)):
                total += x_NI[n, i]
            sums_NB[n, b] = total
    return rounded_NI, factor_N, sums_NB


@inline_kernel
def _pairs(rounded_NI: Any, factor_N: Any, sums_NB: Any) -> Any:
    """Pairs of neighbours as columns, in tiles (T, I / 2, LANES); the sums divided by the factors."""
    (count, inputs), blocks = rounded_NI.shape, sums_NB.shape[1]
    tiles = -(-count // LANES)
    x_NJ, x_TJC = rounded_NI.view(np.int32), np.zeros((tiles, inputs // 2, LANES), dtype=np.int32)
    sums_TBC = np.zeros((tiles, blocks, LANES), dtype=np.float32)
    for t in range(tiles):
        _turn(x_NJ[t * LANES : (t + 1) * LANES], x_TJC[t])
        for b in range(blocks):
            for c in range(min(LANES, count - t * LANES)):
                sums_TBC[t, b, c] = sums_NB[t * LANES + c, b] / factor_N[t * LANES + c]
    return x_TJC, sums_TBC


@parallel_kernel
def _codes_by_tiles(parts: int, codes: Any, scale: Any, offset: Any, x_NI: Any, bias_O: Any, y_NO: Any) -> None:
    (count, outputs), inputs = y_NO.shape, padded(codes)
    size = block_of(codes)
    tiles, rows_of, blocks = -(-count // LANES), -(-outputs // ROWS), -(-inputs // size)
    rounded_NI, factor_N, sums_NB = _rounded(x_NI, inputs, _INT16_MAX, size)
    x_TJC, sums_TBC = _pairs(rounded_NI, factor_N, sums_NB)
    for chunk in prange(parts):
        y_RC, panel_RI = _floats(ROWS, LANES), np.empty((ROWS, inputs), dtype=np.int16)
        scale_RB, base_RB = _floats(ROWS, blocks), _floats(ROWS, blocks)
        for rows in range(rows_of * chunk // parts, rows_of * (chunk + 1) // parts):
            o = min(rows * ROWS, outputs - ROWS)
            for r in range(ROWS):
                for line in range(0, codes.shape[1], LINE):
                    prefetch(codes.ctypes.data + (o + ROWS + r) * codes.shape[1] + line)
                widen(codes, scale, offset, o + r, panel_RI[r], scale_RB[r], base_RB[r])
            for t in range(tiles):
                integer_tile(
                    panel_RI.ctypes.data,
                    scale_RB.ctypes.data,
                    base_RB.ctypes.data,
                    sums_TBC[t].ctypes.data,
                    x_TJC[t].ctypes.data,
                    inputs,
                    size,
                    y_RC.ctypes.data,
                )
                for r in range(ROWS):
                    for c in range(min(LANES, count - t * LANES)):
                        y_RC[r, c] *= factor_N[t * LANES + c]
                _put(y_RC, bias_O, o, y_NO[t * LANES : (t + 1) * LANES])


def padded(codes: Any) -> Any:
    """Length of the padded rows."""
    raise NotImplementedError("only for compiled code")


def most(codes: Any) -> Any:
    """The largest integer for activations, so that the sum along a row fits into 32 bits."""
    raise NotImplementedError("only for compiled code")


def block_of(codes: Any) -> Any:
    """Number of weights whose products a tile adds up as integers."""
    raise NotImplementedError("only for compiled code")


def finished(codes: Any, scale: Any, offset: Any, o: int, y: Any, sums_G: Any) -> Any:
    """A row's dot product from its integer sum: scales and offsets applied."""
    raise NotImplementedError("only for compiled code")


def widen(codes: Any, scale: Any, offset: Any, o: int, row_I: Any, scale_B: Any, base_B: Any) -> Any:
    """A row as 16-bit integers, with scale and offset of each block."""
    raise NotImplementedError("only for compiled code")


@overload(padded, strict=False)
def _padded(codes: Any) -> Any:
    return (lambda codes: 2 * codes.shape[1]) if codes.dtype == types.uint8 else (lambda codes: codes.shape[1])


@overload(most, strict=False)
def _most(codes: Any) -> Any:
    if codes.dtype == types.uint8:  # whose sums end with the group
        return lambda codes: _INT16_MAX
    return lambda codes: _INT16_MAX * _FULL_RANGE_ROW_MAX // max(_FULL_RANGE_ROW_MAX, codes.shape[1])


@overload(block_of, strict=False)
def _block(codes: Any) -> Any:
    return (lambda codes: GROUP) if codes.dtype == types.uint8 else (lambda codes: INT_BLOCK)


@overload(finished, strict=False)
def _finished(codes: Any, scale: Any, offset: Any, o: int, y: Any, sums_G: Any) -> Any:
    return _finished_4 if codes.dtype == types.uint8 else _finished_8


def _finished_8(codes: Any, scale: Any, offset: Any, o: int, y: Any, sums_G: Any) -> Any:
    return y * scale[o, 0]


def _finished_4(codes: Any, scale: Any, offset: Any, o: int, y: Any, sums_G: Any) -> Any:
    for g in range(scale.shape[1]):
        y += (value(offset[o, g]) - np.float32(8.0) * value(scale[o, g])) * sums_G[g]
    return y


@overload(widen, strict=False)
def _widen(codes: Any, scale: Any, offset: Any, o: int, row_I: Any, scale_B: Any, base_B: Any) -> Any:
    return _widen_4 if codes.dtype == types.uint8 else _widen_8


def _widen_8(codes: Any, scale: Any, offset: Any, o: int, row_I: Any, scale_B: Any, base_B: Any) -> Any:
    for i in range(row_I.shape[0]):
        row_I[i] = np.int16(codes[o, i])
    scale_B[:] = scale[o, 0]


def _widen_4(codes: Any, scale: Any, offset: Any, o: int, row_I: Any, scale_B: Any, base_B: Any) -> Any:
    widen_half_bytes(codes.ctypes.data + o * codes.shape[1], row_I.shape[0], row_I.ctypes.data)
    for g in range(scale_B.shape[0]):
        scale_B[g] = value(scale[o, g])
        base_B[g] = value(offset[o, g]) - np.float32(8.0) * scale_B[g]
