"""Elementwise kernels between the matrix products of a decode pass: norms, rotation, activations, residual additions.

While a text is generated, every product streams its weights through the processor's caches. What comes between two
products is little arithmetic, but as calls of a tensor library it is much code, which has to be fetched again each
time: beside 22 ms for reading the weights of a model of 134 million parameters that was 7 ms. As compiled loops over
memory that stays in the cache it is less than one.

All kernels take NumPy arrays and write into the last of them. Numbers are float32; a uint16 array holds bfloat16
bits, because NumPy has no bfloat16.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from underhood.kernels.jit import inline_kernel, kernel, overload, parallel_kernel, prange, types

SIGMOID, ERROR, RELU, RELU2 = range(4)
"""Kinds of activations: ``x · sigmoid(a x + b x³)``, ``x · Φ(x)``, ``max(x, 0)`` and the square of that."""

TILE = 16
"""Rows per step when rows become columns or columns rows: a cache line of float32."""

_SLOPE = 2 * math.sqrt(2 / math.pi)
ACTIVATIONS = {
    "silu": (SIGMOID, np.float32(1.0), np.float32(0.0)),
    "gelu_tanh": (SIGMOID, np.float32(_SLOPE), np.float32(_SLOPE * 0.044715)),
    "gelu": (ERROR, np.float32(0.0), np.float32(0.0)),
    "relu": (RELU, np.float32(0.0), np.float32(0.0)),
    "relu2": (RELU2, np.float32(0.0), np.float32(0.0)),
}
"""The activations of `nn.feedforward` as (kind, a, b)."""


def array(x: Tensor) -> np.ndarray:
    """A tensor's memory as a NumPy array; bfloat16 as uint16."""
    return x.view(torch.uint16).numpy() if x.dtype == torch.bfloat16 else x.numpy()


def value(x: Any) -> Any:
    """A stored number as float32."""
    raise NotImplementedError("only for compiled code")


@overload(value, strict=False)
def _value(x: Any) -> Any:
    if x == types.uint16:
        return lambda x: np.uint32(np.uint32(x) << np.uint32(16)).view(np.float32)
    return lambda x: np.float32(x)


def stored(like: Any, x: Any) -> Any:
    """A float32 in an array's own number format."""
    raise NotImplementedError("only for compiled code")


@overload(stored, strict=False)
def _stored(like: Any, x: Any) -> Any:
    return (lambda like, x: _bfloat16(np.float32(x))) if like.dtype == types.uint16 else (lambda like, x: np.float32(x))


@inline_kernel
def _bfloat16(x: Any) -> Any:
    """bfloat16 bits of a float32: the upper half, rounded to nearest, ties to even."""
    if x != x:
        return np.uint16(0x7FC0)
    bits = np.float32(x).view(np.uint32)
    odd = (bits >> np.uint32(16)) & np.uint32(1)
    return np.uint16((bits + np.uint32(0x7FFF) + odd) >> np.uint32(16))


@inline_kernel
def exp(x: Any) -> Any:
    """``eˣ`` in float32, in a form that vectorises: 2ⁿ by its bits, the rest by the polynomial of Cephes' `expf`."""
    x = np.float32(-87.0) if x < np.float32(-87.0) else x
    x = np.float32(88.0) if x > np.float32(88.0) else x
    n = np.floor(x * np.float32(1.44269504) + np.float32(0.5))
    r = x - n * np.float32(0.693359375) + n * np.float32(2.12194440e-4)
    p = np.float32(1.9875691500e-4)
    p = p * r + np.float32(1.3981999507e-3)
    p = p * r + np.float32(8.3334519073e-3)
    p = p * r + np.float32(4.1665795894e-2)
    p = p * r + np.float32(1.6666665459e-1)
    p = p * r + np.float32(5.0000001201e-1)
    power = np.int32((np.int32(n) + np.int32(127)) << np.int32(23)).view(np.float32)
    return (p * r * r + r + np.float32(1.0)) * power


@kernel
def gather_rows(table_VD: Any, ids_N: Any, scale: Any, x_ND: Any) -> None:
    """``x = scale · table[ids]``."""
    for n in range(len(ids_N)):
        for i in range(x_ND.shape[1]):
            x_ND[n, i] = scale * table_VD[ids_N[n], i]


@kernel
def add_rows(more_ND: Any, x_ND: Any) -> None:
    """``x += more``."""
    for n in range(x_ND.shape[0]):
        for i in range(x_ND.shape[1]):
            x_ND[n, i] += value(more_ND[n, i])


@kernel
def copy(x_ND: Any, y_ND: Any) -> None:
    """``y = x``, with conversion between number formats."""
    for n in range(x_ND.shape[0]):
        for i in range(x_ND.shape[1]):
            y_ND[n, i] = stored(y_ND, value(x_ND[n, i]))


@kernel
def normalize(x_ND: Any, centre: bool, scale_D: Any, shift_D: Any, eps: Any, y_ND: Any) -> None:
    """LayerNorm if `centre`, else RMSNorm: ``y = scale · (x − m) / sqrt(mean((x − m)²) + eps) + shift``.

    m is the mean of x, or 0 for RMSNorm. An empty `scale_D` means ones, an empty `shift_D` zeros.
    """
    width = x_ND.shape[1]
    for n in range(x_ND.shape[0]):
        middle = np.float32(0.0)
        if centre:
            for i in range(width):
                middle += value(x_ND[n, i])
            middle /= np.float32(width)
        total = np.float32(0.0)
        for i in range(width):
            off = value(x_ND[n, i]) - middle
            total += off * off
        factor = np.float32(1.0) / np.sqrt(total / np.float32(width) + eps)
        if scale_D.shape[0] == 0:
            for i in range(width):
                y_ND[n, i] = stored(y_ND, (value(x_ND[n, i]) - middle) * factor)
        elif shift_D.shape[0] == 0:
            for i in range(width):
                y_ND[n, i] = stored(y_ND, (value(x_ND[n, i]) - middle) * factor * scale_D[i])
        else:
            for i in range(width):
                y_ND[n, i] = stored(y_ND, (value(x_ND[n, i]) - middle) * factor * scale_D[i] + shift_D[i])


@kernel
def activate(x_NX: Any, gated: bool, kind: int, a: Any, b: Any, y_NF: Any) -> None:
    """``y = activation(x)``; if `gated`, x holds gate and up, and ``y = activation(gate) · up``."""
    for n in range(x_NX.shape[0]):
        _activate(0, y_NF.shape[1], x_NX[n], gated, kind, a, b, y_NF[n])


@parallel_kernel
def activate_columns(parts: int, x_XN: Any, gated: bool, kind: int, a: Any, b: Any, y_FN: Any) -> None:
    """`activate` for column-major batches, which it treats as one long row."""
    x_X, y_F = x_XN.reshape(x_XN.size), y_FN.reshape(y_FN.size)
    for chunk in prange(parts):
        _activate(len(y_F) * chunk // parts, len(y_F) * (chunk + 1) // parts, x_X, gated, kind, a, b, y_F)


@inline_kernel
def _activate(first: int, end: int, x_X: Any, gated: bool, kind: int, a: Any, b: Any, y_F: Any) -> None:
    width = y_F.shape[0]
    if kind == SIGMOID:
        # Two loops, and no choice within one: only then LLVM vectorises them, which makes this five times as fast.
        up_F = x_X[width:]
        for i in range(first, end):
            x = x_X[i]
            y_F[i] = x / (np.float32(1.0) + exp(-(a + b * x * x) * x))
        if gated:
            for i in range(first, end):
                y_F[i] *= up_F[i]
    else:
        for i in range(first, end):
            x = x_X[i]
            up = x_X[width + i] if gated else np.float32(1.0)
            if kind == ERROR:
                x *= np.float32(0.5) * (np.float32(1.0) + np.float32(math.erf(x * np.float32(0.5**0.5))))
            else:
                x = np.float32(0.0) if x < np.float32(0.0) else x
                x = x if kind == RELU else x * x
            y_F[i] = x * up


@kernel
def norm_and_rotate(
    first: int,
    end: int,
    qkv_NX: Any,
    heads: int,
    groups: int,
    width: int,
    scale_HK: Any,
    eps: Any,
    whole: bool,
    cos_NR: Any,
    sin_NR: Any,
    y_NX: Any,
) -> None:
    """QK-norm and rotary embedding of query and key heads, of `width` each; value heads are copied.

    Args:
        first, end: range of rows.
        scale_HK: scale of each head's RMSNorm; empty for no norm.
        whole: one norm for all query heads and one for all key heads.
        cos_NR, sin_NR: cosine and sine of the angles of the R pairs (i, i + R) of a head; empty for no rotation.
    """
    half, size = cos_NR.shape[1], qkv_NX.shape[1]
    turned = (heads + groups) * width if half else 0
    x_MX = np.empty((min(TILE, end - first), size), dtype=np.float32)
    for start in range(first, end, TILE):
        count = min(TILE, end - start)
        if qkv_NX.strides[0] < qkv_NX.strides[1]:  # columns in memory
            for i in range(size):
                for m in range(count):
                    x_MX[m, i] = qkv_NX[start + m, i]
        else:
            for m in range(count):
                for i in range(size):
                    x_MX[m, i] = qkv_NX[start + m, i]
        for m in range(count):
            # Whole rows, not slices of them: only then LLVM vectorises this.
            x_X, y_X, cos_R, sin_R = x_MX[m], y_NX[start + m], cos_NR[start + m], sin_NR[start + m]
            if scale_HK.shape[0]:
                _norm_heads(x_X, heads, scale_HK, eps, whole)
            for at in range(0, turned, width):
                for i in range(half):
                    y_X[at + i] = x_X[at + i] * cos_R[i] - x_X[at + half + i] * sin_R[i]
                for i in range(half):
                    y_X[at + half + i] = x_X[at + half + i] * cos_R[i] + x_X[at + i] * sin_R[i]
                for i in range(2 * half, width):
                    y_X[at + i] = x_X[at + i]
            for i in range(turned, size):
                y_X[i] = x_X[i]


@parallel_kernel
def norm_and_rotate_parallel(parts: int, count: int, *arguments: Any) -> None:
    """`norm_and_rotate` of all `count` rows, with its other arguments."""
    for chunk in prange(parts):
        norm_and_rotate(count * chunk // parts, count * (chunk + 1) // parts, *arguments)


@inline_kernel
def _norm_heads(x_X: Any, heads: int, scale_HK: Any, eps: Any, whole: bool) -> None:
    count, width = scale_HK.shape
    factor_H = np.zeros(count, dtype=np.float32)
    for head in range(count):
        total = np.float32(0.0)
        for i in range(head * width, (head + 1) * width):
            total += x_X[i] * x_X[i]
        factor_H[head] = total
    if whole:
        factor_H[:heads] = factor_H[:heads].mean()
        factor_H[heads:] = factor_H[heads:].mean()
    for head in range(count):
        factor = np.float32(1.0) / np.sqrt(factor_H[head] / np.float32(width) + eps)
        for i in range(width):
            x_X[head * width + i] *= factor * scale_HK[head, i]


@parallel_kernel
def transpose(parts: int, x_NI: Any, y_IN: Any) -> None:
    """``y = xᵀ``."""
    count = x_NI.shape[0]
    for chunk in prange(parts):
        for start in range(count * chunk // parts, count * (chunk + 1) // parts, TILE):
            stop = min(start + TILE, count * (chunk + 1) // parts)
            for at in range(0, x_NI.shape[1], 2 * TILE):
                for i in range(at, min(at + 2 * TILE, x_NI.shape[1])):
                    for n in range(start, stop):
                        y_IN[i, n] = x_NI[n, i]


@parallel_kernel
def argmax_and_logsumexp(_: int, x_NV: Any, best_N: Any, log_sum_N: Any) -> None:
    """Argmax and log-sum-exp of each row."""
    for n in prange(x_NV.shape[0]):
        most = np.float32(-np.inf)
        for i in range(x_NV.shape[1]):
            most = x_NV[n, i] if x_NV[n, i] > most else most
        total, best = np.float32(0.0), 0
        for i in range(x_NV.shape[1]):
            total += exp(x_NV[n, i] - most)
        for i in range(x_NV.shape[1]):
            if x_NV[n, i] == most:
                best = i
                break
        best_N[n] = best
        log_sum_N[n] = most + np.log(total)
