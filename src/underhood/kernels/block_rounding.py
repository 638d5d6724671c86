"""Rounding to block-quantised weights: 8 bits (Q8_0) and 4 bits with an offset (Q4_1) per block of 32."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from underhood.kernels.block_linear import BlockKind
from underhood.kernels.block_simd import BLOCK

SHRINKS = (1.0, 0.95, 0.9, 0.85, 0.8, 0.75)
"""Parts of a block's range that 4 bits may cover: its outermost weights are cut, all others get finer steps."""


def to_blocks(weight_OI: Tensor, kind: BlockKind) -> NDArray[np.uint8]:
    """The stored bytes of each row, for `BlockLinear.from_blocks`.

    Codes are chosen for scales and offsets that are rounded already, unlike llama.cpp's.

    Raises:
        ValueError: the length of a row is not a multiple of the block, or nothing here rounds to this kind.
    """
    if weight_OI.shape[1] % BLOCK:
        raise ValueError(f"rows must be a multiple of {BLOCK} long, got {weight_OI.shape[1]}")
    blocks_OBI = weight_OI.detach().float().reshape(len(weight_OI), -1, BLOCK)
    if kind == "q8_0":
        bytes_OBX = _to_q8_0(blocks_OBI)
    elif kind == "q4_1":
        bytes_OBX = _to_q4_1(blocks_OBI)
    else:
        raise ValueError(f"expected q8_0 or q4_1, got {kind}")
    return bytes_OBX.flatten(1).numpy()


def _to_q8_0(blocks_OBI: Tensor) -> Tensor:
    scale_OB1 = (blocks_OBI.abs().amax(dim=-1, keepdim=True) / 127).half()
    codes_OBI = (blocks_OBI / scale_OB1.float().clamp(min=1e-8)).round_().clamp_(-127, 127)
    return torch.cat((scale_OB1.view(torch.uint8), codes_OBI.to(torch.int8).view(torch.uint8)), dim=-1)


def _to_q4_1(blocks_OBI: Tensor) -> Tensor:
    low_OB1, high_OB1 = blocks_OBI.amin(dim=-1, keepdim=True), blocks_OBI.amax(dim=-1, keepdim=True)
    best_OB1 = torch.full_like(low_OB1, torch.inf)
    codes_OBI, scale_OB1, offset_OB1 = torch.zeros_like(blocks_OBI), low_OB1.half(), low_OB1.half()
    for shrink in SHRINKS:
        scale = ((high_OB1 - low_OB1) * (shrink / 15)).half()
        offset = ((high_OB1 + low_OB1) / 2 - 7.5 * scale.float()).half()
        codes = ((blocks_OBI - offset.float()) / scale.float().clamp(min=1e-8)).round_().clamp_(0, 15)
        error_OB1 = (codes * scale.float() + offset.float() - blocks_OBI).square_().sum(dim=-1, keepdim=True)
        better = error_OB1 < best_OB1
        best_OB1 = torch.where(better, error_OB1, best_OB1)
        codes_OBI, scale_OB1, offset_OB1 = (
            torch.where(better, new, old) for new, old in ((codes, codes_OBI), (scale, scale_OB1), (offset, offset_OB1))
        )
    low_codes, high_codes = codes_OBI.to(torch.uint8).chunk(2, dim=-1)
    heads = [tensor.contiguous().view(torch.uint8) for tensor in (scale_OB1, offset_OB1)]
    return torch.cat((*heads, low_codes | (high_codes << 4)), dim=-1)
