"""Low-rank adaptation: fine-tuning by a small matrix product beside each frozen layer (Hu et al. 2021).

A layer ``W x`` becomes ``W x + (α / r) B A x`` (equation 3) with A of r rows and B of r columns. Only A and B learn; B
starts at zero, so the model begins as it was. Afterwards the product can be added into W, and costs nothing more.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from underhood.core.errors import UserError
from underhood.nn.qlora_linear import QuantizedLinear
from underhood.nn.surgery import find_modules, replace_modules


@dataclass(frozen=True, kw_only=True)
class LoRASpec:
    """LoRA settings: the layers that get low-rank companions, and of what kind.

    Attributes:
        rank: r.
        alpha: α; the product is multiplied by α / r.
        dropout: share of the inputs that the companion (not the layer) does without while training.
        targets: names of linear layers, as patterns (see `nn.surgery.name_matches`); all in the blocks by default,
            as QLoRA found to matter more than the rank (Dettmers et al. 2023, section 4).
        rslora: multiplies by α / √r instead, which keeps high ranks learning (Kalajdzievski 2023).
    """

    rank: int = 16
    alpha: float = 32.0
    dropout: float = 0.0
    targets: tuple[str, ...] = ("blocks.*",)
    rslora: bool = False

    def __post_init__(self):
        if self.rank < 1:
            raise ValueError(f"rank must be at least 1, got {self.rank}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout is a share from 0 up to 1, got {self.dropout}")
        if not self.targets:
            raise ValueError("targets must name at least one layer")

    @property
    def scale(self) -> float:
        return self.alpha / (math.sqrt(self.rank) if self.rslora else self.rank)

    def apply(self, model: nn.Module, *, seed: int = 0) -> list[str]:
        """Freezes the model and gives every target its companion, in place; returns the targets' names.

        Targets may be plain or quantised linear layers.

        Raises:
            UserError: a target fits no linear layer, the model has companions already, or a target's weight is shared
                with another layer (a tied unembedding), which merging would change too.
        """
        if any(True for _ in lora_layers(model)):
            raise UserError("the model has LoRA layers already", fix="Fold them into the weights first")
        owners: dict[int, list[str]] = {}
        for name, parameter in model.named_parameters(remove_duplicate=False):
            owners.setdefault(id(parameter), []).append(name.rpartition(".")[0])
        for name, layer in find_modules(model, self.targets, nn.Linear):
            if others := [other for other in owners[id(layer.weight)] if other != name]:
                raise UserError(
                    f"the layer {name} shares its weight with {others[0]}", fix="Choose LoRA targets that leave it out"
                )
        generator = torch.Generator().manual_seed(seed)
        names = replace_modules(model, self.targets, lambda _, layer: LoRALinear(layer, self, generator), _LINEARS)
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name.endswith((".lora_A", ".lora_B")))
        return names


_LINEARS: Any = (nn.Linear, QuantizedLinear)
"""What `isinstance` accepts as a layer to adapt."""


class LoRALinear(nn.Module):
    """A frozen linear layer and its low-rank companion.

    Attributes:
        base: the layer, untouched.
        lora_A: (r, in), uniform as a linear layer starts; lora_B: (out, r), zero.
        merged: the layer with the product added in, while merged; else None.
        adapting: False passes by the companion (see `adapters_off`).
    """

    def __init__(self, base: nn.Linear | QuantizedLinear, spec: LoRASpec, generator: torch.Generator):
        super().__init__()
        self.spec, self.scale = spec, spec.scale
        self.base = base
        here = (base.packed if isinstance(base, QuantizedLinear) else base.weight).device
        dtype = base.dtype if isinstance(base, QuantizedLinear) else base.weight.dtype
        bound = 1 / math.sqrt(base.in_features)
        start_RI = torch.empty(spec.rank, base.in_features).uniform_(-bound, bound, generator=generator)
        self.lora_A = nn.Parameter(start_RI.to(here, dtype))
        self.lora_B = nn.Parameter(torch.zeros(base.out_features, spec.rank, device=here, dtype=dtype))
        self.merged: nn.Linear | None = None
        self.adapting = True

    @property
    def in_features(self) -> int:
        return self.base.in_features

    @property
    def out_features(self) -> int:
        return self.base.out_features

    def forward(self, x: Tensor) -> Tensor:
        if not self.adapting:
            return self.base(x)
        if self.merged is not None:
            return self.merged(x)
        dropping = self.training and self.spec.dropout > 0
        base = self.base
        if isinstance(base, nn.Linear) and not base.weight.requires_grad and not dropping:
            parts: tuple[Tensor | None, ...] = (x, base.weight, base.bias, self.lora_A, self.lora_B)
            if torch.is_autocast_enabled(x.device.type):  # which does not look into a function of ours
                dtype = torch.get_autocast_dtype(x.device.type)
                parts = tuple(None if tensor is None else tensor.to(dtype) for tensor in parts)
            y: Tensor = _Adapted.apply(*parts, self.scale)  # type: ignore[assignment]
            return y
        seen = F.dropout(x, self.spec.dropout) if dropping else x
        return self.base(x) + F.linear(F.linear(seen, self.lora_A), self.lora_B) * self.scale

    @torch.no_grad()
    def difference(self) -> Tensor:
        """What the companion adds to the weight: ``scale · B A``, (out, in)."""
        return (self.lora_B @ self.lora_A) * self.scale

    @torch.no_grad()
    def merge(self) -> nn.Linear:
        """Uses one plain layer instead of the two from now on; the base is kept, so `unmerge` is exact."""
        if self.merged is None:
            if isinstance(self.base, QuantizedLinear):
                plain = self.base.widened()
            else:
                plain = nn.Linear(self.in_features, self.out_features, bias=self.base.bias is not None, device="meta")
                plain.weight = nn.Parameter(self.base.weight.detach().clone(), requires_grad=False)
                plain.bias = self.base.bias
            plain.weight += self.difference()
            self.merged = plain
        return self.merged

    def unmerge(self) -> None:
        """Back to the two layers, bit for bit as they were."""
        self.merged = None

    def extra_repr(self) -> str:
        return f"rank={self.spec.rank}, scale={self.scale:g}"


class _Adapted(torch.autograd.Function):
    """``x Wᵀ + b + s (x Aᵀ) Bᵀ`` for a frozen W: the small products are added in place, forward and backward.

    Written with ordinary operations, the sum and the scaling would each make and read another array as large as the
    output, in both directions.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight_OI: Tensor, bias_O: Tensor | None, a_RI: Tensor, b_OR: Tensor, scale: float
    ) -> Tensor:
        x_NI = x.flatten(0, -2)
        y_NO = x_NI @ weight_OI.T
        low_NR = x_NI @ a_RI.T
        if bias_O is None:
            y_NO.addmm_(low_NR, b_OR.T, alpha=scale)
        else:  # the bias rides along as one more column: added by itself, it would be a pass over the output
            scaled_NR1 = F.pad(low_NR * scale, (0, 1), value=1.0)
            y_NO.addmm_(scaled_NR1, torch.cat((b_OR, bias_O[:, None]), dim=1).T)
        ctx.save_for_backward(x, weight_OI, a_RI, b_OR, low_NR)
        ctx.scale = scale
        return y_NO.view(*x.shape[:-1], -1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        x, weight_OI, a_RI, b_OR, low_NR = ctx.saved_tensors
        needs_x, needs_w, needs_bias, needs_a, needs_b, _ = ctx.needs_input_grad
        assert not needs_w, "forward chose this path for a frozen base only"
        x_NI, grad_NO = x.flatten(0, -2), grad.flatten(0, -2)
        grad_NR = grad_NO @ b_OR * ctx.scale
        grad_x = None
        if needs_x:
            grad_x = torch.mm(grad_NO, weight_OI).addmm_(grad_NR, a_RI).view(x.shape)
        grad_a = grad_NR.T @ x_NI if needs_a else None
        grad_b = (low_NR.T @ grad_NO).mul_(ctx.scale).T.contiguous() if needs_b else None
        return grad_x, None, grad_NO.sum(0) if needs_bias else None, grad_a, grad_b, None


def lora_layers(model: nn.Module) -> Iterator[tuple[str, LoRALinear]]:
    """The adapted layers by name, in the model's order."""
    for name, module in model.named_modules():
        if isinstance(module, LoRALinear):
            yield name, module


def merge(model: nn.Module) -> None:
    """Merges every adapted layer; `unmerge` takes it back exactly."""
    for _, layer in lora_layers(model):
        layer.merge()


def unmerge(model: nn.Module) -> None:
    """Every adapted layer as two again; the bases are bit for bit what they were."""
    for _, layer in lora_layers(model):
        layer.unmerge()


@contextmanager
def adapters_merged(model: nn.Module) -> Iterator[None]:
    """The model with every adapter merged while the block runs: as fast as without, for sampling."""
    merge(model)
    try:
        yield
    finally:
        unmerge(model)


@contextmanager
def adapters_off(model: nn.Module) -> Iterator[None]:
    """The model as it was before `LoRASpec.apply`, bit for bit, while the block runs.

    It is the reference of preference alignment and reinforcement learning, at no cost in memory.
    """
    layers = [layer for _, layer in lora_layers(model)]
    before = [layer.adapting for layer in layers]
    for layer in layers:
        layer.adapting = False
    try:
        yield
    finally:
        for layer, adapting in zip(layers, before, strict=True):
            layer.adapting = adapting


def fold(model: nn.Module) -> list[str]:
    """Ends the surgery: every adapted layer becomes one plain layer with the sum of both; returns their names.

    The model is then of the same make as before `LoRASpec.apply` (a quantised base is widened), and can be saved so.
    """
    names = [name for name, _ in lora_layers(model)]
    for name in names:
        parent, _, child = name.rpartition(".")
        layer = model.get_submodule(name)
        assert isinstance(layer, LoRALinear)
        setattr(model.get_submodule(parent), child, layer.merge())
    return names
