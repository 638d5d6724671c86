"""Branches of a Transformer block as single compiled calls: norm, products, attention or activation, residual addition.

A decode pass is a dozen kernels per layer. Called from Python one by one, each costs microseconds to unpack its
arguments: for SmolLM2 (30 layers) a third of the time that reading its weights takes. Here those calls are compiled
as well. Compiled together, a sum may run in another order, and its last bit can turn the rounding of an activation to
16 bits: results differ by less than that rounding does.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from underhood.kernels.block_matmul import BlockWeights, multiply_panels, pair_order
from underhood.kernels.elementwise import activate, add_rows, norm_and_rotate, normalize
from underhood.kernels.jit import inline_kernel, kernel, overload
from underhood.kernels.matmul import DOT_BATCH_MAX, ROWS, Weights, floats_by_rows, floats_by_tiles
from underhood.kernels.paged_attention import attend, attend_in_parts

_NO_BIAS = np.empty(0, dtype=np.float32)


class Operands(NamedTuple):
    """A linear layer, for `product`; kernels take it as a plain tuple, which is unpacked faster.

    Attributes:
        outputs: rows of the weight matrix.
        bias_O: empty for none.
        codes, scale, offset: see `matmul.Weights`, or `block_matmul.BlockWeights` if the codes have three dimensions.
        order: of blocks, see `block_matmul.pair_order`; empty for other weights.
    """

    outputs: int
    bias_O: np.ndarray
    codes: np.ndarray
    scale: np.ndarray
    offset: np.ndarray
    order: np.ndarray


def operands(weights: Weights | BlockWeights, bias_O: np.ndarray | None) -> tuple[Any, ...]:
    """The `Operands` of a layer, as a tuple."""
    bias_O = _NO_BIAS if bias_O is None else bias_O
    if isinstance(weights, BlockWeights):
        order = pair_order(weights.codes_PBX.dtype == np.uint8)
        arrays = weights.codes_PBX, weights.scale_PBR, weights.offset_PBR
        return tuple(Operands(weights.outputs, bias_O, *arrays, order))
    return tuple(Operands(len(weights.codes), bias_O, *weights, np.empty(0, dtype=np.int64)))


@kernel
def attention_branch(
    parts: int,
    x_ND: Any,
    norm: Any,
    qkv: Any,
    sizes: Any,
    head_norm: Any,
    angles: Any,
    memories: Any,
    block_table: Any,
    scores: Any,
    alone: bool,
    output: Any,
    post_norm: Any,
) -> None:
    """``x += post_norm(output(attention(norm(x))))``; the new keys and values are stored.

    Args:
        norm, post_norm: see `normalized`.
        qkv, output: see `Operands`.
        sizes: query heads, key-value heads, and the width of a head.
        head_norm: see `fused_layers.HeadNorm`.
        angles: cosines and sines (N, R).
        memories: data and scales of the keys, data and scales of the values.
        block_table: see `paged_attention.BlockTable`.
        scores: what attention scores are multiplied by, and their softcap (0 for none).
        alone: one thread computes the attention.
    """
    count = x_ND.shape[0]
    (heads, groups, width), (scale_HK, eps, whole), (cos_NR, sin_NR) = sizes, head_norm, angles
    qkv_NX = np.empty((count, qkv[0]), dtype=np.float32)
    product(parts, qkv, normalized(x_ND, norm), qkv_NX)
    rotated_NX = np.empty_like(qkv_NX)
    norm_and_rotate(0, count, qkv_NX, heads, groups, width, scale_HK, eps, whole, cos_NR, sin_NR, rotated_NX)
    heads_NHK = rotated_NX.reshape((count, heads + 2 * groups, width))
    q_NHK, k_NGK = heads_NHK[:, :heads], heads_NHK[:, heads : heads + groups]
    v_NGK = heads_NHK[:, heads + groups :]
    attended_NI = np.empty((count, heads * width), dtype=np.float32)
    y_NHK = attended_NI.reshape((count, heads, width))
    if alone:
        attend(0, groups, y_NHK, q_NHK, k_NGK, v_NGK, *memories, *block_table, *scores)
    else:
        attend_in_parts(parts, groups, y_NHK, q_NHK, k_NGK, v_NGK, *memories, *block_table, *scores)
    _add_product(parts, output, attended_NI, post_norm, x_ND)


@kernel
def mlp_branch(parts: int, x_ND: Any, norm: Any, up: Any, activation: Any, down: Any, post_norm: Any) -> None:
    """``x += post_norm(down(activation(up(norm(x)))))``.

    Args:
        norm, post_norm: see `normalized`.
        up, down: see `Operands`; if the MLP is gated, the first half of `up` is the gate.
        activation: whether it is gated, then the activation as in `elementwise.ACTIVATIONS`.
    """
    count, (gated, kind, a, b) = x_ND.shape[0], activation
    raised_NX = np.empty((count, up[0]), dtype=np.float32)
    product(parts, up, normalized(x_ND, norm), raised_NX)
    hidden_NF = np.empty((count, up[0] // 2 if gated else up[0]), dtype=np.float32)
    activate(raised_NX, gated, kind, a, b, hidden_NF)
    _add_product(parts, down, hidden_NF, post_norm, x_ND)


@inline_kernel
def normalized(x_ND: Any, norm: Any) -> Any:
    """x after a norm: whether there is none, then the arguments of `elementwise.normalize`."""
    idle, centre, scale_D, shift_D, eps = norm
    if idle:
        return x_ND
    y_ND = np.empty_like(x_ND)
    normalize(x_ND, centre, scale_D, shift_D, eps, y_ND)
    return y_ND


@inline_kernel
def _add_product(parts: int, layer: Any, hidden_NI: Any, post_norm: Any, x_ND: Any) -> None:
    branch_ND = np.empty_like(x_ND)
    product(parts, layer, hidden_NI, branch_ND)
    add_rows(normalized(branch_ND, post_norm), x_ND)


def product(parts: int, layer: Any, x_NI: Any, y_NO: Any) -> None:
    """``y = x Wᵀ + b`` with a layer's `Operands`."""
    raise NotImplementedError("only for compiled code")


@overload(product, strict=False)
def _product(parts: int, layer: Any, x_NI: Any, y_NO: Any) -> Any:
    return _of_blocks if layer.types[2].ndim == 3 else _of_floats


def _of_blocks(parts: int, layer: Any, x_NI: Any, y_NO: Any) -> None:
    outputs, bias_O, codes, scale, offset, order = layer
    multiply_panels(parts, codes, scale, offset, outputs, x_NI, order, bias_O, y_NO, 0)


def _of_floats(parts: int, layer: Any, x_NI: Any, y_NO: Any) -> None:
    outputs, bias_O, codes, scale, offset, _ = layer
    if x_NI.shape[0] <= DOT_BATCH_MAX or outputs < ROWS:
        floats_by_rows(parts, codes, scale, offset, x_NI, bias_O, y_NO)
    else:
        floats_by_tiles(parts, codes, scale, offset, x_NI, bias_O, y_NO)
