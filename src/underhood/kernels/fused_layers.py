"""Fused layers for inference: fewer and larger kernels per token.

While a single text is written, every matrix is read from memory for one vector. Nothing can be saved there, but each
kernel call costs microseconds of its own, and a short matrix never gets the memory to full speed. So query, key and
value are one product, gate and up another, and the weights of a norm go into the matrix behind it.
"""

from __future__ import annotations

from typing import Any, NamedTuple, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from underhood.kernels import elementwise, jit
from underhood.kernels.block_linear import BlockLinear, stacked
from underhood.nn.attention import Attention
from underhood.nn.block import Block
from underhood.nn.feedforward import ACTIVATIONS, GatedMLP
from underhood.nn.forward_context import ForwardContext
from underhood.nn.norm import RMSNorm
from underhood.nn.rope import rotate
from underhood.nn.zero_centered_norm import ZeroCenteredRMSNorm


def fuse(model: nn.Module) -> list[str]:
    """Puts fused layers in the place of all that can be fused, one at a time; returns their names.

    The model is for inference afterwards. Layers that are neither plain nor block-quantised (with adapters, for
    instance) stay.
    """
    names = []
    for name, module in list(model.named_modules()):
        new: nn.Module
        if type(module) is Attention and module.fusable and _can_join(module.query, module.key, module.value):
            new = FusedAttention(module)
        elif type(module) is GatedMLP and _can_join(module.gate, module.up):
            new = FusedGatedMLP(module)
        else:
            continue
        _replace(model, name, new)
        names.append(name)
    for module in list(model.modules()):
        if type(module) is Block and isinstance(module.mixer, FusedAttention):
            _fold_norm(module, "mixer_norm", module.mixer.qkv)
            if isinstance(module.feedforward, FusedGatedMLP):
                _fold_norm(module, "feedforward_norm", module.feedforward.gate_up)
    final: Any = getattr(model, "norm", None)
    scale = scale_of(final)
    if scale is not None and final.weight.dtype == torch.float32:
        model.norm = FinalRMSNorm(scale, final.spec.eps)
        names.append("norm")
    return names


def _replace(model: nn.Module, name: str, new: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, new)


def _can_join(*layers: nn.Module) -> bool:
    """Whether all are plain linear layers, or all in blocks: an adapted layer does more than a product."""
    return any(all(type(layer) is kind for layer in layers) for kind in (nn.Linear, BlockLinear))


def _joined(*layers: nn.Module) -> nn.Module:
    """One linear layer with the outputs of all, one after the other."""
    if isinstance(layers[0], BlockLinear):
        return stacked(cast("tuple[BlockLinear, ...]", layers))
    return _joined_plain(*cast("tuple[nn.Linear, ...]", layers))


def _joined_plain(*layers: nn.Linear) -> nn.Linear:
    first = layers[0]
    outputs = sum(layer.out_features for layer in layers)
    whole = nn.Linear(first.in_features, outputs, bias=first.bias is not None, device="meta")
    whole.weight = nn.Parameter(torch.cat([layer.weight.detach() for layer in layers]), requires_grad=False)
    if first.bias is not None:
        whole.bias = nn.Parameter(torch.cat([layer.bias.detach() for layer in layers]), requires_grad=False)
    return whole


def _fold_norm(block: Block, name: str, behind: nn.Module) -> None:
    """Moves what an RMS norm multiplies by into the matrix behind it, if it is plain: ``W (n · x) = (W n) x``."""
    norm = getattr(block, name)
    scale = scale_of(norm)
    if scale is not None and isinstance(behind, nn.Linear) and behind.weight.dtype == torch.float32:
        behind.weight.data.mul_(scale)
        setattr(block, name, UnitRMSNorm(norm.spec.eps))


def scale_of(norm: nn.Module | None) -> Tensor | None:
    """What an RMS norm multiplies by; None for other norms."""
    if isinstance(norm, RMSNorm):
        return norm.weight.detach().float()
    return 1 + norm.weight.detach().float() if isinstance(norm, ZeroCenteredRMSNorm) else None


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


class HeadNorm(NamedTuple):
    """For `elementwise.norm_and_rotate`: scale of each head (H + G, K) or nothing, epsilon, one norm for all heads."""

    scale_HK: np.ndarray
    eps: np.float32
    whole: bool


class FusedAttention(Attention):
    """`Attention` with one product for query, key and value, and one norm and one rotation for all their heads."""

    head_scale: Tensor | None

    def __init__(self, attention: Attention):
        nn.Module.__init__(self)
        self.spec, self.layer, self.head_dim = attention.spec, attention.layer, attention.head_dim
        self.qkv = _joined(attention.query, attention.key, attention.value)
        self.output = attention.output
        self.query_norm, self.key_norm = attention.query_norm, attention.key_norm
        self.weights = attention.weights
        self.inner, self.turned = (
            attention.query.out_features,
            attention.query.out_features + attention.key.out_features,
        )
        self.register_buffer("head_scale", _head_scale(attention), persistent=False)
        self.head_eps: float = getattr(self.spec.qk_norm, "eps", 0.0)

    def head_norm(self) -> HeadNorm | None:
        """The norm of query and key heads for `elementwise.norm_and_rotate`; None for one that it does not know."""
        if self.query_norm is None:
            return HeadNorm(np.empty((0, 0), dtype=np.float32), np.float32(0.0), False)
        if self.head_scale is None:
            return None
        return HeadNorm(self.head_scale.numpy(), np.float32(self.head_eps), self.spec.qk_norm_whole)

    def project(self, x_BTD: Tensor, ctx: ForwardContext) -> tuple[Tensor, Tensor, Tensor]:
        """See `Attention.project`."""
        qkv_BTX = self.qkv(x_BTD)
        norm = self.head_norm() if len(qkv_BTX) == 1 and jit.runs_compiled(qkv_BTX) else None
        if norm is not None:
            return self._turned(qkv_BTX[0], norm, ctx)
        # In rows, where the product gave columns (see `SmallBatchLinear`): all that follows goes head by head.
        qkv_BTX = qkv_BTX.contiguous()
        v_BGTK = self._heads(qkv_BTX[..., self.turned :], None)
        if self.query_norm is not None and (self.head_scale is None or self.spec.qk_norm_whole):
            q_BHTK = self._heads(qkv_BTX[..., : self.inner], self.query_norm)
            qk_BNTK = torch.cat((q_BHTK, self._heads(qkv_BTX[..., self.inner : self.turned], self.key_norm)), dim=1)
        else:
            qk_BTNK = qkv_BTX[..., : self.turned].unflatten(-1, (-1, self.head_dim))
            qk_BNTK = self._normed_heads(qk_BTNK).transpose(1, 2)
        if self.spec.rotary is not None:
            qk_BNTK = rotate(qk_BNTK, self.spec.rotary.tables(ctx, self.head_dim, qk_BNTK.dtype))
        q_BHTK, k_BGTK = qk_BNTK.split((self.spec.heads, self.spec.groups), dim=1)
        return q_BHTK, k_BGTK, v_BGTK

    def _turned(self, qkv_TX: Tensor, norm: HeadNorm, ctx: ForwardContext) -> tuple[Tensor, Tensor, Tensor]:
        """`project` in one loop over the tokens of a text, be they rows or columns in memory."""
        (count, size), width = qkv_TX.shape, self.head_dim
        cos_TR = sin_TR = np.empty((count, 0), dtype=np.float32)
        if self.spec.rotary is not None:
            # Both tables hold each angle twice, the first time with the sines' minus.
            cos_TR, sin_TR = (
                table.view(count, -1).chunk(2, dim=-1)[1].numpy()
                for table in self.spec.rotary.tables(ctx, width, torch.float32)
            )
        y_TX = torch.empty(count, size)
        heads, groups = self.spec.heads, self.spec.groups
        arguments = (qkv_TX.numpy(), heads, groups, width, *norm, cos_TR, sin_TR, y_TX.numpy())
        jit.run_parallel(elementwise.norm_and_rotate_parallel, count, *arguments)
        q_HTK, k_GTK, v_GTK = y_TX.view(count, -1, width).transpose(0, 1).split((heads, groups, groups))
        return q_HTK[None], k_GTK[None], v_GTK[None]

    def _normed_heads(self, x: Tensor) -> Tensor:
        """Query and key heads (…, H + G, K), normalised if this attention does that."""
        if self.head_scale is None:
            return x
        wide = torch.promote_types(x.dtype, torch.float32)
        return (unit_rms(x.to(wide), self.head_eps) * self.head_scale).to(x.dtype)


def _head_scale(attention: Attention) -> Tensor | None:
    """What the query and key norms multiply each head by, (H + G, K); None where they are not RMS norms."""
    scales = [scale_of(attention.query_norm), scale_of(attention.key_norm)]
    heads = (attention.spec.heads, attention.spec.groups)
    rows = [
        scale.reshape(count, -1) if attention.spec.qk_norm_whole else scale.expand(count, -1)
        for scale, count in zip(scales, heads, strict=True)
        if scale is not None
    ]
    return torch.cat(rows) if len(rows) == 2 else None


class FusedGatedMLP(nn.Module):
    """`GatedMLP` with one product for gate and up."""

    def __init__(self, gated: GatedMLP):
        super().__init__()
        self.spec = gated.spec
        self.gate_up = _joined(gated.gate, gated.up)
        self.down = gated.down

    def forward(self, x_BTD: Tensor, ctx: ForwardContext) -> Tensor:
        both_BTX = self.gate_up(x_BTD)
        if len(both_BTX) == 1 and both_BTX[0].t().is_contiguous() and jit.runs_compiled(both_BTX):
            both_XT = both_BTX[0].t()
            hidden_FT = torch.empty(self.down.in_features, both_XT.shape[1])
            activation = elementwise.ACTIVATIONS[self.spec.activation]
            jit.run_parallel(elementwise.activate_columns, both_XT.numpy(), True, *activation, hidden_FT.numpy())
            return self.down(hidden_FT.t()[None])
        gate_BTF, up_BTF = both_BTX.chunk(2, dim=-1)
        return self.down(ACTIVATIONS[self.spec.activation](gate_BTF).mul_(up_BTF))
