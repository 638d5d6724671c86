"""Linear layers with weights of 8 and 4 bits that are multiplied as they lie: what makes writing fast on a CPU.

While one text is written, each weight is read from memory once per token and that is what takes the time; a quarter or
an eighth of the bytes is nearly as much faster. Activations stay floating point. (`nn.quantized` is the other kind: it
saves memory in training and widens a matrix before it multiplies.)
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor, nn

_BAG = torch.ops.quantized.embedding_bag_byte_rowwise_offsets.default
_UNPACK = torch.ops.quantized.embedding_bag_byte_unpack.default
FEW = 8
"""Up to so many tokens at a time the packed weights are multiplied as they lie; above, they are widened first."""


class Int8Linear(nn.Module):
    """``x Wᵀ + b`` with W in 8 bits.

    The kernel is PyTorch's quantised embedding bag: a bag is a weighted sum of a table's rows, so with Wᵀ as the table
    and x as the weights it is a matrix–vector product. Of the 8-bit kernels in PyTorch's core it is the one that reads
    memory in long straight runs and takes float32 activations. The outputs are cut into blocks, a table each, so that
    all cores have work and a row's sums stay in registers; each row of a block (one input, some 200 outputs) has its
    own scale and offset.

    Args:
        linear: the layer to quantise; its bias is kept.
    """

    packed: Tensor
    bias: Tensor | None

    def __init__(self, linear: nn.Linear):
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.block = block_width(linear.out_features)
        self.blocks = -(-linear.out_features // self.block)
        weight_OI = linear.weight.detach().float()
        missing = self.blocks * self.block - self.out_features
        if missing:
            weight_OI = torch.cat((weight_OI, weight_OI.new_zeros(missing, self.in_features)))
        rows = weight_OI.view(self.blocks, self.block, -1).transpose(1, 2).reshape(-1, self.block)
        self.register_buffer("packed", _pack_rows(rows))
        self.register_buffer("bias", None if linear.bias is None else linear.bias.detach().float())

    def forward(self, x: Tensor) -> Tensor:
        count = x.numel() // self.in_features
        if count == 1:
            indices, offsets = _bags(self.blocks, self.in_features, 1)
            weights = x.float().expand(self.blocks, *x.shape).flatten()
            y = _BAG(self.packed, indices, offsets, False, 0, False, weights, None, False).view(1, -1)
        else:
            y = self._many(x.reshape(count, self.in_features).float(), count)
        if y.shape[1] != self.out_features:
            y = y[:, : self.out_features]
        if x.dim() != 2:
            y = y.reshape(*x.shape[:-1], self.out_features)
        if self.bias is not None:
            y = y + self.bias
        return y.to(x.dtype)

    def _many(self, x_NI: Tensor, count: int) -> Tensor:
        """Several tokens' products (N, padded outputs)."""
        if count <= FEW:
            indices, offsets = _bags(self.blocks, self.in_features, count)
            weights = x_NI.expand(self.blocks, count, -1).reshape(-1)
            y = _BAG(self.packed, indices, offsets, False, 0, False, weights, None, False)
        else:
            y = x_NI @ _UNPACK(self.packed).view(self.blocks, self.in_features, self.block)
        return y.view(self.blocks, count, self.block).transpose(0, 1).reshape(count, -1)

    def weight(self) -> Tensor:
        """The weight that the layer stands for, (out, in)."""
        wide = _UNPACK(self.packed).view(self.blocks, self.in_features, self.block)
        return wide.transpose(1, 2).reshape(-1, self.in_features)[: self.out_features]

    def extra_repr(self) -> str:
        return f"{self.in_features}, {self.out_features}, block={self.block}"


def block_width(outputs: int) -> int:
    """Outputs per block: near 200, a multiple of 16, for an even number of blocks and little padding."""

    def waste(width: int) -> tuple[float, int]:
        blocks = -(-outputs // width)
        blocks += blocks % 2 if blocks < 32 else 0  # two cores share them
        return blocks * width * (1 + 16 / width), -width

    return min(range(64, 257, 16), key=waste) if outputs > 64 else 16 * -(-outputs // 16)


def _pack_rows(rows_RW: Tensor) -> Tensor:
    """Rows of 8-bit codes, each followed by its float32 scale and offset: ``w ≈ code · scale + offset``."""
    low_R1, high_R1 = rows_RW.amin(dim=1, keepdim=True), rows_RW.amax(dim=1, keepdim=True)
    scale_R1 = ((high_R1 - low_R1) / 255).clamp_(min=1e-12)
    codes_RW = ((rows_RW - low_R1) / scale_R1).round_().clamp_(0, 255).to(torch.uint8)
    tail_R8 = torch.cat((scale_R1, low_R1), dim=1).contiguous().view(torch.uint8)
    return torch.cat((codes_RW, tail_R8), dim=1)


@lru_cache(maxsize=64)
def _bags(blocks: int, inputs: int, count: int) -> tuple[Tensor, Tensor]:
    """Which rows each bag sums: block by block, so that a block is fetched once for all tokens."""
    with torch.inference_mode(False):
        rows = torch.arange(blocks * inputs, dtype=torch.int32).view(blocks, 1, inputs)
        return (
            rows.expand(blocks, count, inputs).reshape(-1),
            torch.arange(blocks * count, dtype=torch.int32) * inputs,
        )


class Int4Linear(nn.Module):
    """``x Wᵀ + b`` with W in 4 bits, a scale and an offset (both bfloat16) per group of neighbouring inputs.

    The kernel is PyTorch's ``_weight_int4pack_mm_for_cpu``, which takes bfloat16 activations.

    Args:
        linear: the layer to quantise; its bias is kept.
        group: inputs that share a scale; the number of inputs must be a multiple of it.

    Attributes:
        narrow: gives bfloat16 whatever it is given, for a reader that takes it and saves a step.
        takes: the activations that need no step before the product.
    """

    takes = torch.bfloat16

    packed: Tensor
    scale: Tensor
    bias: Tensor | None

    def __init__(self, linear: nn.Linear, *, group: int = 64):
        super().__init__()
        self.in_features, self.out_features, self.group = linear.in_features, linear.out_features, group
        self.narrow = False
        if not fits_int4(linear, group):
            raise ValueError(f"inputs must be a multiple of the group ({group}), got {linear.in_features}")
        weight_OI = linear.weight.detach().float()
        missing = -self.out_features % _COLUMNS
        if missing:
            weight_OI = torch.cat((weight_OI, weight_OI.new_zeros(missing, self.in_features)))
        codes_OI, scale_OG, offset_OG = round_to_int4(weight_OI, group)
        self.register_buffer("packed", torch.ops.aten._convert_weight_to_int4pack_for_cpu(codes_OI, 1))
        self.register_buffer("scale", torch.stack((scale_OG, offset_OG), dim=-1).transpose(0, 1).contiguous())
        self.register_buffer("bias", None if linear.bias is None else linear.bias.detach().float())

    def forward(self, x: Tensor) -> Tensor:
        # A single token comes as one row, and each step that is not needed counts there.
        x_NI = x if x.dim() == 2 else x.reshape(-1, self.in_features)
        y = self.product(x_NI.bfloat16())
        if x.dim() != 2:
            y = y.reshape(*x.shape[:-1], self.out_features)
        if self.bias is not None:
            y = y + self.bias
        return y if self.narrow else y.to(x.dtype)

    def product(self, x_NI: Tensor) -> Tensor:
        """``x Wᵀ`` of bfloat16 rows, in bfloat16."""
        y = _INT4(x_NI, self.packed, self.group, self.scale)
        return y if y.shape[1] == self.out_features else y[:, : self.out_features]

    def weight(self) -> Tensor:
        """The weight that the layer stands for, (out, in), as the kernel itself spells it: in bfloat16."""
        each_II = torch.eye(self.in_features, dtype=torch.bfloat16)
        return _INT4(each_II, self.packed, self.group, self.scale)[:, : self.out_features].T.float()

    def extra_repr(self) -> str:
        return f"{self.in_features}, {self.out_features}, group={self.group}"


_INT4 = torch.ops.aten._weight_int4pack_mm_for_cpu.default
_COLUMNS = 64
"""The kernel's blocks of outputs."""


def fits_int4(linear: nn.Linear, group: int) -> bool:
    return group in (32, 64, 128, 256) and linear.in_features % group == 0


def round_to_int4(weight_OI: Tensor, group: int) -> tuple[Tensor, Tensor, Tensor]:
    """Codes 0 to 15 (int32) with ``w ≈ (code − 8) · scale + offset``, scale and offset (O, groups) in bfloat16.

    The range of a group is narrowed a little where that brings the sum of squared errors down: its outermost weights
    are cut, all others get finer steps. Codes are chosen for scales and offsets that are rounded already.
    """
    grouped_OGI = weight_OI.view(weight_OI.shape[0], -1, group)
    low_OG1, high_OG1 = grouped_OGI.amin(dim=-1, keepdim=True), grouped_OGI.amax(dim=-1, keepdim=True)
    middle_OG1, half_OG1 = (high_OG1 + low_OG1) / 2, ((high_OG1 - low_OG1) / 2).clamp_(min=1e-6)
    best: tuple[Tensor, Tensor, Tensor, Tensor] | None = None
    for part in (1.0, 0.95, 0.9, 0.85, 0.8, 0.75):
        scale_OG1 = (half_OG1 * (part * 2 / 15)).bfloat16()
        offset_OG1 = (middle_OG1 + scale_OG1.float() / 2).bfloat16()  # codes − 8 run from −8 to 7
        codes_OGI = ((grouped_OGI - offset_OG1.float()) / scale_OG1.float()).round_().clamp_(-8, 7)
        error_OG1 = (codes_OGI * scale_OG1.float() + offset_OG1.float() - grouped_OGI).square_().sum(-1, keepdim=True)
        found = (error_OG1, codes_OGI, scale_OG1, offset_OG1)
        if best is None:
            best = found
        else:
            better = error_OG1 < best[0]
            best = tuple(torch.where(better, new, old) for new, old in zip(found, best, strict=True))  # type: ignore
    assert best is not None
    _, codes_OGI, scale_OG1, offset_OG1 = best
    return codes_OGI.add_(8).to(torch.int32).view_as(weight_OI), scale_OG1[..., 0], offset_OG1[..., 0]
