"""Matrix products with block-quantised weights: GGUF's Q4_0, Q4_1 and Q8_0, bit for bit, in an order for SIMD.

Blocks of 32 weights of a row share a scale, and in Q4_1 an offset, both float16: ``w = d · q`` (Q8_0, q of 8 bits),
``d · (q − 8)`` (Q4_0, q from 0 to 15) or ``d · q + m`` (Q4_1). Packing only moves bits: the words of sixteen rows are
interleaved (see `kernels.block_simd`). Activations are rounded to 16 bits with one scale per vector, as in
`kernels.matmul`; everything after that is exact but for the sum over blocks in float32.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from underhood.kernels.block_simd import BLOCK, PANEL, panel_dots
from underhood.kernels.jit import inline_kernel, kernel, parallel_kernel, prange, run_parallel

TILE_VECTORS = 4
"""Vectors that share the unpacking of weights in a prompt."""

CHUNK_VECTORS = 64
"""Vectors of a prompt that stay in the processor's cache while all panels are multiplied with them."""

_INT16_MAX = 32_767
_TINY = int(np.float32(1e-30).view(np.int32))
"""Bits of the smallest magnitude; a vector whose largest number is smaller counts as zero."""

_NO_BIAS = np.empty(0, dtype=np.float32)


class BlockWeights(NamedTuple):
    """A weight matrix (O, I) in panels of `PANEL` rows and blocks of `BLOCK` columns; all arrays are contiguous.

    Attributes:
        codes_PBX: int8 (panels, blocks, 512), a pair of neighbours of each row after the other; or uint8 (panels,
            blocks, 256), four bytes of each row after the other, which hold code i below and code i + 16 above.
        scale_PBR: the bits of float16 (panels, blocks, PANEL), as uint16.
        offset_PBR: the same of the offsets; for codes without, an empty float32 array of as many dimensions.
        outputs: rows; the last panel is filled up with zeros.
    """

    codes_PBX: np.ndarray
    scale_PBR: np.ndarray
    offset_PBR: np.ndarray
    outputs: int


def multiply_blocks(
    weights: BlockWeights, x_NI: np.ndarray, bias_O: np.ndarray | None, y_NO: np.ndarray, first: int = 0
) -> None:
    """``y[:, first : first + O] = x Wᵀ + b`` in float32.

    Raises:
        ValueError: shapes do not match, or x or y is not contiguous.
    """
    (count, inputs), blocks = x_NI.shape, weights.scale_PBR.shape[1]
    fits = inputs == blocks * BLOCK and y_NO.shape[0] == count and 0 <= first <= y_NO.shape[1] - weights.outputs
    if not (fits and x_NI.flags.c_contiguous and y_NO.flags.c_contiguous):
        raise ValueError(f"cannot multiply {x_NI.shape} with {weights.outputs} rows of {blocks} blocks: {y_NO.shape}")
    order = pair_order(weights.codes_PBX.dtype == np.uint8)
    run_parallel(multiply_panels, *weights, x_NI, order, _NO_BIAS if bias_O is None else bias_O, y_NO, first)


@lru_cache(maxsize=2)
def pair_order(nibbles: bool) -> np.ndarray:
    """Which of a block's 32 inputs comes when, as the pairs of `panel_dots` want them.

    A register of 16-bit words holds four 4-bit codes per word, of two neighbouring bytes: shifted by 4 n bits, it gives
    the n-th of each word, and each two words of a row are a pair.
    """
    if not nibbles:
        return np.arange(BLOCK)
    first = np.array([0, 16, 1, 17])  # lower and upper half of a word's first byte, then of its second
    return np.concatenate([np.stack((first, first + 2), axis=1).ravel() + 4 * step for step in range(4)])


@kernel
def interleave(words_OBW: Any, first: int, units_PBURW: Any) -> None:
    """Rows of words as panels: from the word `first` of each block on, a unit of each row after the other."""
    panels, blocks, units, _, size = units_PBURW.shape
    for p in range(panels):
        rows = min(PANEL, words_OBW.shape[0] - p * PANEL)
        for b in range(blocks):
            for u in range(units):
                for r in range(rows):
                    for w in range(size):
                        units_PBURW[p, b, u, r, w] = words_OBW[p * PANEL + r, b, first + u * size + w]


@kernel
def widen_rows(codes_PBX: Any, scale_PBR: Any, offset_PBR: Any, ids_N: Any, factor: Any, x_NI: Any) -> None:
    """``x = factor · W[ids]``, from the arrays of `BlockWeights`."""
    nibbles, offsets = codes_PBX.shape[2] == PANEL * BLOCK // 2, offset_PBR.shape[0] > 0
    for n in range(len(ids_N)):
        p, r = ids_N[n] // PANEL, ids_N[n] % PANEL
        for b in range(scale_PBR.shape[1]):
            scale = _float16(scale_PBR[p, b, r])
            shift = np.float32(-8.0) if nibbles and not offsets else np.float32(0.0)
            offset = _float16(np.uint16(offset_PBR[p, b, r])) if offsets else np.float32(0.0)
            for i in range(BLOCK):
                if nibbles:
                    byte = codes_PBX[p, b, i % 16 // 4 * 4 * PANEL + 4 * r + i % 4]
                    code = np.float32(byte & 15 if i < 16 else byte >> 4)
                else:
                    code = np.float32(codes_PBX[p, b, i // 2 * 2 * PANEL + 2 * r + i % 2])
                x_NI[n, b * BLOCK + i] = ((code + shift) * scale + offset) * factor


@inline_kernel
def _float16(bits: Any) -> Any:
    """A finite float16 as float32: its exponent has a bias of 15, there it has 127."""
    magnitude = np.uint32((np.uint32(bits) & np.uint32(0x7FFF)) << np.uint32(13)).view(np.float32)
    number = magnitude * np.float32(2.0**112)
    return -number if bits & 0x8000 else number


@parallel_kernel
def multiply_panels(
    parts: int,
    codes: Any,
    scale: Any,
    offset: Any,
    outputs: int,
    x_NI: Any,
    order: Any,
    bias_O: Any,
    y_NO: Any,
    start: int,
) -> None:
    """`multiply_blocks`, with the order of `pair_order` and an empty bias for none; `start` is its `first`."""
    (count, inputs), (panels, blocks) = x_NI.shape, scale.shape[:2]
    rounded_NI, factor_N = np.empty((count, inputs), dtype=np.int16), np.empty(count, dtype=np.float32)
    sums_NB = np.empty((count, blocks), dtype=np.float32)
    if count > CHUNK_VECTORS:
        for chunk in prange(parts):
            for n in range(count * chunk // parts, count * (chunk + 1) // parts):
                factor_N[n] = _round(x_NI[n], order, rounded_NI[n], sums_NB[n])
    else:
        for n in range(count):
            factor_N[n] = _round(x_NI[n], order, rounded_NI[n], sums_NB[n])
    for chunk in prange(parts):
        y_VR = np.empty((TILE_VECTORS, PANEL), dtype=np.float32)
        y = y_VR.ctypes.data
        for first in range(0, count, CHUNK_VECTORS):
            end = min(first + CHUNK_VECTORS, count)
            for p in range(panels * chunk // parts, panels * (chunk + 1) // parts):
                w = codes.ctypes.data + p * codes.strides[0]
                s = scale.ctypes.data + p * scale.strides[0]
                b = offset.ctypes.data + p * offset.strides[0]
                rows = min(PANEL, outputs - p * PANEL)
                n = first
                while n < end:
                    x, sums = rounded_NI.ctypes.data + n * 2 * inputs, sums_NB.ctypes.data + n * 4 * blocks
                    vectors = TILE_VECTORS if end - n >= TILE_VECTORS else 1
                    if vectors == TILE_VECTORS:
                        panel_dots(codes, offset, w, s, b, blocks, x, 2 * inputs, sums, 4 * blocks, y, TILE_VECTORS)
                    else:
                        panel_dots(codes, offset, w, s, b, blocks, x, 2 * inputs, sums, 4 * blocks, y, 1)
                    for v in range(vectors):
                        _put(y_VR[v], factor_N[n + v], bias_O, p * PANEL, rows, y_NO[n + v], start)
                    n += vectors


@inline_kernel
def _put(y_R: Any, factor: Any, bias_O: Any, o: int, rows: int, y_O: Any, start: int) -> None:
    if bias_O.shape[0]:
        for r in range(rows):
            y_O[start + o + r] = y_R[r] * factor + bias_O[o + r]
    else:
        for r in range(rows):
            y_O[start + o + r] = y_R[r] * factor


@inline_kernel
def _round(x_I: Any, order: Any, rounded_I: Any, sums_B: Any) -> Any:
    """Activations as 16-bit integers in an order within blocks, and the sums of blocks; returns their scale."""
    bits_I = x_I.view(np.int32)
    # Without signs, floats are ordered as their bits are, and NaN is the largest.
    largest = np.int32(0)
    for i in range(x_I.shape[0]):
        largest = max(largest, np.int32(bits_I[i] & np.int32(0x7FFFFFFF)))
    factor = np.float32(1.0) if largest < _TINY else np.int32(largest).view(np.float32) / np.float32(_INT16_MAX)
    near_B = np.empty(BLOCK, dtype=np.int16)
    for block in range(sums_B.shape[0]):
        total = np.int32(0)
        for i in range(BLOCK):
            number = np.int16(np.int32(np.rint(x_I[block * BLOCK + i] / factor)))
            near_B[i] = number
            total += number
        sums_B[block] = np.float32(total)
        for i in range(BLOCK):
            rounded_I[block * BLOCK + i] = near_B[order[i]]
    return factor
