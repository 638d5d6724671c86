"""Optimisers: Muon (Jordan et al. 2024) beside PyTorch's AdamW, each for its own parameters of one model.

Everything here is a `torch.optim.Optimizer`, so schedulers, `state_dict` and FSDP's sharded parameters work as usual.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from underhood.core.errors import UserError

QUINTIC = (3.4445, -4.7750, 2.0315)
"""Jordan's coefficients: each step maps a singular value s to a·s + b·s³ + c·s⁵, driving (0, 1] to near 1."""


def orthogonalize(g: Tensor, steps: int = 5, dtype: torch.dtype | None = None) -> Tensor:
    """Replaces the singular values of each matrix by (about) one, without an SVD.

    A Newton–Schulz iteration with a quintic that trades exactness for speed: after 5 steps the singular values lie in
    about 0.7–1.2 (Jordan et al. 2024). Works on stacks of matrices, shape (…, rows, columns).

    Args:
        dtype: of the iteration; None keeps the gradient's. bfloat16 is enough (Jordan et al. 2024) and three times as
            fast where the processor multiplies it natively (AMX, tensor cores); elsewhere it may be slower.
    """
    a, b, c = QUINTIC
    tall = g.shape[-2] > g.shape[-1]
    x = g.mT if tall else g
    x = (x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-7)).to(dtype or g.dtype)
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x.mT if tall else x).to(g.dtype)


class Muon(Optimizer):
    """SGD with momentum whose update is orthogonalised: every direction of a matrix moves equally far.

    ``B ← μ B + (1 − μ) g``, update ``orthogonalize(Nesterov(B)) · √max(1, rows / columns)`` (Jordan et al. 2024).
    `torch.optim.Muon` computes the same, but always in bfloat16, which processors without matrix units multiply
    slowly, one matrix at a time, and not for sharded parameters. Here matrices of one shape share one batched
    iteration, and sharded ones (DTensor) are gathered for it.

    Args:
        params: matrices, or stacks of matrices (…, rows, columns), each of which is orthogonalised by itself.
        lr: learning rate, in units of spectral norm per step.
        dtype: of the orthogonalisation; see `orthogonalize`.
    """

    def __init__(
        self,
        params: Any,
        *,
        lr: float,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
        steps: int = 5,
        dtype: torch.dtype | None = None,
    ):
        self.steps, self.dtype = steps, dtype
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        assert closure is None, "Muon evaluates no closure"
        for group in self.param_groups:
            updates: dict[tuple[int, ...], list[tuple[nn.Parameter, Tensor]]] = {}
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                if not state:
                    state["momentum_buffer"] = torch.zeros_like(p)
                momentum = state["momentum_buffer"]
                momentum.lerp_(p.grad, 1 - group["momentum"])
                nesterov = p.grad.lerp(momentum, group["momentum"])
                updates.setdefault(tuple(p.shape), []).append((p, _whole(nesterov)))
            for (*_, rows, columns), members in updates.items():
                stacked_Nrc = orthogonalize(torch.stack([update for _, update in members]), self.steps, self.dtype)
                for (p, _), update in zip(members, stacked_Nrc, strict=True):
                    p.mul_(1 - group["lr"] * group["weight_decay"])
                    p.add_(_like(update, p), alpha=-group["lr"] * max(1.0, rows / columns) ** 0.5)


def _whole(tensor: Tensor) -> Tensor:
    """All of a sharded tensor (DTensor; its module is slow to import), or the tensor itself."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor  # type: ignore[attr-defined]


def _like(whole: Tensor, p: Any) -> Tensor:
    """This process's shard of a tensor that every process has whole, or the tensor itself where nothing is sharded."""
    if not hasattr(p, "full_tensor"):
        return whole
    from torch.distributed.tensor import DTensor, Replicate

    mesh = p.device_mesh
    return DTensor.from_local(whole, mesh, [Replicate()] * mesh.ndim, run_check=False).redistribute(mesh, p.placements)


class CombinedOptimizer(Optimizer):
    """Several optimisers as one: each steps its own parameters; groups and state are shared with them."""

    def __init__(self, optimizers: Sequence[Optimizer]):
        self.optimizers = list(optimizers)
        groups = [group for optimizer in self.optimizers for group in optimizer.param_groups]
        super().__init__(groups, {})
        self._share()

    def _share(self) -> None:
        groups = iter(self.param_groups)
        for optimizer in self.optimizers:
            optimizer.state = self.state
            optimizer.param_groups = [next(groups) for _ in optimizer.param_groups]

    def __setstate__(self, state: dict[str, Any]) -> None:  # where `load_state_dict` puts new groups and a new state
        super().__setstate__(state)
        self._share()

    def step(self, closure: Callable[[], float] | None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        assert closure is None, "a combined optimizer evaluates no closure"
        for optimizer in self.optimizers:
            optimizer.step()


def scale_lr(optimizer: Optimizer, lr_factor: float) -> None:
    """Sets every group's learning rate to `lr_factor` times the one that it was built with (``initial_lr``)."""
    for group in optimizer.param_groups:
        group["lr"] = group.setdefault("initial_lr", group["lr"]) * lr_factor


def optimizer_tensors(model: nn.Module, optimizer: Optimizer) -> dict[str, Tensor]:
    """The optimiser's state by parameter name and key, e.g. ``blocks.0.mixer.query.weight.exp_avg``."""
    names: dict[Tensor, str] = {parameter: name for name, parameter in model.named_parameters()}
    # Merging shards (torch 2.13) loses tensors without dimensions, so a step count is stored as one element.
    return {
        f"{names[p]}.{key}": tensor if tensor.ndim else tensor.reshape(1)
        for p, state in optimizer.state.items()
        for key, tensor in state.items()
    }


def load_optimizer_tensors(model: nn.Module, optimizer: Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Puts back what `optimizer_tensors` gave.

    Raises:
        UserError: it belongs to another model.
    """
    names = {parameter: name for name, parameter in model.named_parameters()}
    trained = [names[p] for group in optimizer.param_groups for p in group["params"]]
    by_name: dict[str, dict[str, Tensor]] = {}
    for full_name, tensor in tensors.items():
        name, key = full_name.rsplit(".", 1)
        by_name.setdefault(name, {})[key] = tensor.reshape(()) if key == "step" else tensor
    state = {number: by_name.pop(name) for number, name in enumerate(trained) if name in by_name}
    try:
        optimizer.load_state_dict(optimizer.state_dict() | {"state": state})
    except KeyError as missing:  # the state of another kind of optimiser
        by_name.setdefault(str(missing.args[0]), {})
    if by_name:
        odd = min(by_name)
        raise UserError("the saved optimiser state does not belong to this run", got=f"a difference at {odd!r}")


class OptimizerSpec(Protocol):
    """A slot that takes any optimiser."""

    def build(self, model: nn.Module) -> Optimizer: ...


@dataclass(frozen=True, kw_only=True)
class AdamWSpec:
    """PyTorch's AdamW for everything; weight decay on matrices only, as nanoGPT and most since do.

    Attributes:
        rates: other learning rates for parameters whose name begins so; the first that fits counts.
    """

    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = 1e-8
    weight_decay: float = 0.1
    rates: tuple[tuple[str, float], ...] = ()

    def build(self, model: nn.Module) -> Optimizer:
        groups: dict[tuple[float, float], list[nn.Parameter]] = {}
        named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        for name, p in sorted(named, key=lambda item: item[1].ndim < 2):  # matrices first
            decay = self.weight_decay if p.ndim >= 2 else 0.0
            lr = next((lr for prefix, lr in self.rates if name.startswith(prefix)), self.lr)
            groups.setdefault((lr, decay), []).append(p)
        settings = [{"params": group, "lr": lr, "weight_decay": decay} for (lr, decay), group in groups.items()]
        return AdamW(settings, betas=self.betas, eps=self.eps, fused=True)


@dataclass(frozen=True, kw_only=True)
class MuonAdamWSpec:
    """Muon for the matrices inside the blocks, AdamW for embeddings, unembedding, norms and biases.

    Attributes:
        matrix_lr: Muon's learning rate, in units of spectral norm per step.
        lr: AdamW's learning rate.
        unembed_lr: AdamW's rate for an untied unembedding; None means `lr`.
        newton_schulz_dtype: in which the orthogonalisation computes; see `orthogonalize`.
    """

    matrix_lr: float = 0.03
    lr: float = 5e-3
    unembed_lr: float | None = None
    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = 1e-10
    momentum: float = 0.95
    weight_decay: float = 0.0
    newton_schulz_steps: int = 5
    newton_schulz_dtype: Literal["float32", "bfloat16"] = "float32"

    def build(self, model: nn.Module) -> Optimizer:
        matrices, unembed, rest = list[nn.Parameter](), list[nn.Parameter](), list[nn.Parameter]()
        for name, p in model.named_parameters():
            if p.requires_grad and p.ndim == 2 and "blocks." in name:
                matrices.append(p)
            elif p.requires_grad:
                (unembed if name.startswith("unembed.") and p.ndim == 2 else rest).append(p)
        optimizers: list[Optimizer] = []
        if matrices:
            dtype = torch.bfloat16 if self.newton_schulz_dtype == "bfloat16" else None
            optimizers.append(
                Muon(
                    matrices,
                    lr=self.matrix_lr,
                    momentum=self.momentum,
                    weight_decay=self.weight_decay,
                    steps=self.newton_schulz_steps,
                    dtype=dtype,
                )
            )
        groups = [
            {"params": group, "lr": lr}
            for group, lr in ((rest, self.lr), (unembed, self.unembed_lr or self.lr))
            if group
        ]
        if groups:
            optimizers.append(AdamW(groups, betas=self.betas, eps=self.eps, weight_decay=0.0, fused=True))
        return CombinedOptimizer(optimizers)
