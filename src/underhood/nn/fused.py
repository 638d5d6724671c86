"""Layers rebuilt for inference: fewer and larger steps per token.

While a single text is written, every matrix is read from memory for one vector. Nothing can be saved there, but each
kernel call costs microseconds of its own, and a short matrix never gets the memory to full speed. So query, key and
value are one product, gate and up another; the weights of a norm go into the matrix behind it; the rotation of all
heads by one angle is a product too; and a single token takes a way through the block without any needless step.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from underhood.nn.attention import Attention
from underhood.nn.block import Block
from underhood.nn.centred import CentredRMSNorm
from underhood.nn.feedforward import ACTIVATIONS, Gated, Plain
from underhood.nn.norm import RMSNorm
from underhood.nn.position import RotarySpec, rotate
from underhood.nn.reading import Reading


def fuse(model: nn.Module) -> list[str]:
    """Puts fused layers in the place of all that can be fused, one at a time; returns their names.

    The model is for inference afterwards. Layers whose products are not plain (quantised, with adapters) stay.
    """
    names = []
    for name, module in list(model.named_modules()):
        new: nn.Module
        if type(module) is Attention and _plain(module.query, module.key, module.value):
            new = FusedAttention(module)
        elif type(module) is Gated and _plain(module.gate, module.up):
            new = FusedGated(module)
        else:
            continue
        _replace(model, name, new)
        names.append(name)
    for name, module in list(model.named_modules()):
        if type(module) is Block and isinstance(module.mixer, FusedAttention):
            _fold_norm(module, "mixer_norm", module.mixer.qkv)
            if isinstance(module.feedforward, FusedGated):
                _fold_norm(module, "feedforward_norm", module.feedforward.gate_up)
            if isinstance(module.feedforward, (FusedGated, Plain)):
                _replace(model, name, FusedBlock(module))
                names.append(name)
    final: Any = getattr(model, "norm", None)
    scale = _scale_of(final)
    if scale is not None and final.weight.dtype == torch.float32:
        model.norm = FinalRMSNorm(scale, final.spec.eps)
        names.append("norm")
    return names


def _replace(model: nn.Module, name: str, new: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, new)


def _plain(*layers: nn.Module) -> bool:
    """Whether all are plain linear layers: a quantised or adapted one does more than a product."""
    return all(type(layer) is nn.Linear for layer in layers)


def _joined(*layers: nn.Linear) -> nn.Linear:
    """One linear layer with the outputs of all, one after the other."""
    first = layers[0]
    outputs = sum(layer.out_features for layer in layers)
    whole = nn.Linear(first.in_features, outputs, bias=first.bias is not None, device="meta")
    whole.weight = nn.Parameter(torch.cat([layer.weight.detach() for layer in layers]), requires_grad=False)
    if first.bias is not None:
        whole.bias = nn.Parameter(torch.cat([layer.bias.detach() for layer in layers]), requires_grad=False)
    return whole


def _fold_norm(block: Block, name: str, behind: nn.Linear) -> None:
    """Moves what an RMS norm multiplies by into the matrix behind it: ``W (n · x) = (W n) x``."""
    norm = getattr(block, name)
    scale = _scale_of(norm)
    if scale is not None and behind.weight.dtype == torch.float32:
        behind.weight.data.mul_(scale)
        setattr(block, name, UnitRMSNorm(norm.spec.eps))


def _scale_of(norm: nn.Module | None) -> Tensor | None:
    """What an RMS norm multiplies by; None for other norms."""
    if isinstance(norm, RMSNorm):
        return norm.weight.detach().float()
    return 1 + norm.weight.detach().float() if isinstance(norm, CentredRMSNorm) else None


def unit_rms(x: Tensor, eps: float) -> Tensor:
    """``x / sqrt(mean(x²) + eps)`` over the last dimension.

    PyTorch makes it of half a dozen passes over memory on a CPU; this takes three, also where vectors are columns.
    """
    if x.device.type != "cpu" or x.dtype != torch.float32:
        return F.rms_norm(x, x.shape[-1:], None, eps)
    return x * x.square().mean(dim=-1, keepdim=True).add_(eps).rsqrt_()


class FinalRMSNorm(nn.Module):
    """`RMSNorm` for inference, where the matrix behind it may be shared and takes no weight."""

    scale: Tensor

    def __init__(self, scale: Tensor, eps: float):
        super().__init__()
        self.eps = eps
        self.register_buffer("scale", scale)

    def forward(self, x: Tensor) -> Tensor:
        return unit_rms(x, self.eps) * self.scale


class UnitRMSNorm(nn.Module):
    """``x / sqrt(mean(x²) + eps)``, no weight."""

    def __init__(self, eps: float):
        super().__init__()
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return unit_rms(x, self.eps)

    def extra_repr(self) -> str:
        return f"eps={self.eps}"


class FusedBlock(Block):
    """`Block` with a short way for the single token of a pass."""

    mixer: FusedAttention

    def __init__(self, block: Block):
        nn.Module.__init__(self)
        self.spec = block.spec
        for name, part in block.named_children():
            setattr(self, name, part)
        self.mixer_post_norm, self.feedforward_post_norm = block.mixer_post_norm, block.feedforward_post_norm

    def forward(self, x_BTD: Tensor, reading: Reading, rows: Tensor | slice | None = None) -> Tensor:
        width = x_BTD.shape[-1]
        if x_BTD.numel() != width:
            return super().forward(x_BTD, reading, rows)
        x_1D = x_BTD.view(1, width)
        mixed_1D = self.mixer.one(_normed(self.mixer_norm, x_1D), reading)
        x_1D = x_1D + (mixed_1D if self.mixer_post_norm is None else self.mixer_post_norm(mixed_1D))
        fed_1D = self.feedforward(_normed(self.feedforward_norm, x_1D), reading)
        x_1D = x_1D + (fed_1D if self.feedforward_post_norm is None else self.feedforward_post_norm(fed_1D))
        return x_1D.view(1, 1, width)


def _normed(norm: nn.Module, x_1D: Tensor) -> Tensor:
    """One token's norm. RMSNorm has no kernel of its own on CPUs: its one number is had directly."""
    if type(norm) is not UnitRMSNorm:
        return norm(x_1D)
    x_D = x_1D.view(-1)
    return x_1D * (float(x_D.dot(x_D)) / len(x_D) + norm.eps) ** -0.5


class FusedAttention(Attention):
    """`Attention` with one product for query, key and value, and one norm and one rotation for all their heads."""

    head_scale: Tensor | None

    def __init__(self, attention: Attention):
        nn.Module.__init__(self)
        self.spec, self.layer, self.head_width = attention.spec, attention.layer, attention.head_width
        self.qkv = _joined(attention.query, attention.key, attention.value)
        self.output = attention.output
        self.query_norm, self.key_norm = attention.query_norm, attention.key_norm
        self.inner, self.turned = (
            attention.query.out_features,
            attention.query.out_features + attention.key.out_features,
        )
        self.register_buffer(
            "head_scale", None if self.spec.qk_norm_whole else _head_scale(attention), persistent=False
        )
        self.head_eps: float = getattr(self.spec.qk_norm, "eps", 0.0)

    def project(self, x_BTD: Tensor, reading: Reading) -> tuple[Tensor, Tensor, Tensor]:
        """See `Attention.project`."""
        # In rows, where the product gave columns (see `fewrows`): all that follows goes head by head.
        qkv_BTX = self.qkv(x_BTD).contiguous()
        v_BGTK = self._heads(qkv_BTX[..., self.turned :], None)
        if self.query_norm is not None and self.head_scale is None:
            q_BHTK = self._heads(qkv_BTX[..., : self.inner], self.query_norm)
            qk_BNTK = torch.cat((q_BHTK, self._heads(qkv_BTX[..., self.inner : self.turned], self.key_norm)), dim=1)
        else:
            qk_BTNK = qkv_BTX[..., : self.turned].unflatten(-1, (-1, self.head_width))
            qk_BNTK = self._normed_heads(qk_BTNK).transpose(1, 2)
        if self.spec.rotary is not None:
            qk_BNTK = rotate(qk_BNTK, self.spec.rotary.tables(reading, self.head_width, qk_BNTK.dtype))
        q_BHTK, k_BGTK = qk_BNTK.split((self.spec.heads, self.spec.groups), dim=1)
        return q_BHTK, k_BGTK, v_BGTK

    def one(self, x_1D: Tensor, reading: Reading) -> Tensor:
        """`forward` for the single token (1, D) of a pass."""
        if x_1D.dtype != torch.float32 or (self.query_norm is not None and self.head_scale is None):
            return self.forward(x_1D[None], reading)[0]
        heads, groups, width = self.spec.heads, self.spec.groups, self.head_width
        # One step each: at a single token a view costs as much as a sum.
        qkv_1X = self.qkv(x_1D)
        qk_NK = self._normed_heads(qkv_1X.as_strided((heads + groups, width), (width, 1)))
        if self.spec.rotary is not None:
            rotary = self.spec.rotary
            qk_NK = qk_NK @ reading.once(("turn", rotary, width), lambda: _rotation(rotary, reading, width))
        strides, start = (width, width, width, 1), qk_NK.storage_offset()
        q_BHTK = qk_NK.as_strided((1, heads, 1, width), strides)
        k_BGTK = qk_NK.as_strided((1, groups, 1, width), strides, start + heads * width)
        v_BGTK = qkv_1X.as_strided((1, groups, 1, width), strides, qkv_1X.storage_offset() + self.turned)
        y_BHTK = self.look_back(q_BHTK, k_BGTK, v_BGTK, reading)
        return self.output(y_BHTK.reshape(1, -1))

    def _normed_heads(self, x: Tensor) -> Tensor:
        """Query and key heads (…, H + G, K), normalised if this attention does that."""
        if self.head_scale is None:
            return x
        wide = torch.promote_types(x.dtype, torch.float32)
        return (unit_rms(x.to(wide), self.head_eps) * self.head_scale).to(x.dtype)


def _head_scale(attention: Attention) -> Tensor | None:
    """What the query and key norms multiply each head by, (H + G, K); None where they are no RMS norms."""
    scales = [_scale_of(attention.query_norm), _scale_of(attention.key_norm)]
    heads = (attention.spec.heads, attention.spec.groups)
    whole = [scale.expand(count, -1) for scale, count in zip(scales, heads, strict=True) if scale is not None]
    return torch.cat(whole) if len(whole) == 2 else None


def _rotation(rotary: RotarySpec, reading: Reading, width: int) -> Tensor:
    """The matrix (K, K) that turns a head, a row vector, to the position of a pass's only token."""
    cos, sin = rotary.tables(reading, width, torch.float32)
    turn = cos.flatten().diag() + sin.flatten().diag().roll(cos.shape[-1] // 2, dims=0)
    rest = width - turn.shape[0]
    return turn if rest == 0 else torch.block_diag(turn, torch.eye(rest, device=turn.device))


class FusedGated(nn.Module):
    """`Gated` with one product for gate and up."""

    def __init__(self, gated: Gated):
        super().__init__()
        self.spec = gated.spec
        self.gate_up = _joined(gated.gate, gated.up)
        self.down = gated.down

    def forward(self, x_BTD: Tensor, reading: Reading) -> Tensor:
        gate_BTF, up_BTF = self.gate_up(x_BTD).chunk(2, dim=-1)
        return self.down(ACTIVATIONS[self.spec.activation](gate_BTF).mul_(up_BTF))
