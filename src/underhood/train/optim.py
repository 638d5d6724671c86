"""Optimisers: AdamW (Loshchilov & Hutter 2019) and Muon (Jordan et al. 2024), and the mixture that we train with.

An optimiser here is a list of `Rule`s, each owning some parameters. Its whole state is a flat dictionary of named
tensors, so that a checkpoint holds it as safetensors and a resumed run continues bit for bit.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor, nn

from underhood.core.errors import UserError

Named = list[tuple[str, nn.Parameter]]


class Rule(Protocol):
    """Updates its parameters from their gradients; `rate` multiplies the learning rate (the schedule's factor)."""

    def step(self, rate: float) -> None: ...

    def state(self) -> dict[str, Tensor]:
        """The live state tensors by name (not copies)."""
        ...


class AdamW:
    """``p ← p − lr · (m̂ / (√v̂ + ε) + λ p)``, with bias-corrected running means m of g and v of g².

    Source: Kingma & Ba 2015, algorithm 1, with the decay decoupled as in Loshchilov & Hutter 2019, algorithm 2.
    """

    def __init__(
        self, named: Named, *, lr: float, betas: tuple[float, float], eps: float = 1e-8, weight_decay: float = 0.0
    ):
        self.named, self.lr, self.betas, self.eps, self.weight_decay = named, lr, betas, eps, weight_decay
        self.mean = [torch.zeros_like(p) for _, p in named]
        self.square = [torch.zeros_like(p) for _, p in named]
        self.count = torch.zeros((), dtype=torch.int64)

    @torch.no_grad()
    def step(self, rate: float) -> None:
        beta1, beta2 = self.betas
        self.count += 1
        count = int(self.count)
        lr = self.lr * rate
        correct1, correct2 = 1 - beta1**count, 1 - beta2**count
        for (_, p), m, v in zip(self.named, self.mean, self.square, strict=True):
            if p.grad is None:
                continue
            m.lerp_(p.grad, 1 - beta1)
            v.mul_(beta2).addcmul_(p.grad, p.grad, value=1 - beta2)
            if self.weight_decay:
                p.mul_(1 - lr * self.weight_decay)
            p.addcdiv_(m, (v / correct2).sqrt_().add_(self.eps), value=-lr / correct1)

    def state(self) -> dict[str, Tensor]:
        state = {f"adamw.count.{self.named[0][0]}": self.count}
        for (name, _), m, v in zip(self.named, self.mean, self.square, strict=True):
            state[f"adamw.mean.{name}"], state[f"adamw.square.{name}"] = m, v
        return state


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


class Muon:
    """Momentum whose update is orthogonalised: every direction of a matrix moves equally far.

    ``B ← μ B + (1 − μ) g``, update ``orthogonalize(Nesterov(B)) · √max(1, rows / columns)`` (Jordan et al. 2024).
    Matrices of one shape are stacked and go through a single batched iteration.
    """

    def __init__(
        self,
        named: Named,
        *,
        lr: float,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
        steps: int = 5,
        dtype: torch.dtype | None = None,
    ):
        self.lr, self.momentum, self.weight_decay, self.steps = lr, momentum, weight_decay, steps
        self.dtype = dtype
        shapes: dict[tuple[int, ...], Named] = {}
        for name, p in named:
            shapes.setdefault(tuple(p.shape), []).append((name, p))
        self.stacks = [(group, torch.stack([torch.zeros_like(p) for _, p in group])) for group in shapes.values()]

    @torch.no_grad()
    def step(self, rate: float) -> None:
        lr = self.lr * rate
        for group, momentum_Nrc in self.stacks:
            grads_Nrc = torch.stack([torch.zeros_like(p) if p.grad is None else p.grad for _, p in group])
            momentum_Nrc.lerp_(grads_Nrc, 1 - self.momentum)
            update_Nrc = orthogonalize(grads_Nrc.lerp_(momentum_Nrc, self.momentum), self.steps, self.dtype)
            rows, columns = update_Nrc.shape[-2:]
            scale = lr * max(1.0, rows / columns) ** 0.5
            for (_, p), update in zip(group, update_Nrc, strict=True):
                if self.weight_decay:
                    p.mul_(1 - lr * self.weight_decay)
                p.add_(update, alpha=-scale)

    def state(self) -> dict[str, Tensor]:
        return {
            f"muon.momentum.{name}": stacked[i] for group, stacked in self.stacks for i, (name, _) in enumerate(group)
        }


class Optimizer:
    """Several rules, each for its own parameters, stepping together."""

    def __init__(self, rules: Iterable[Rule]):
        self.rules = list(rules)

    def step(self, rate: float) -> None:
        for rule in self.rules:
            rule.step(rate)

    def state(self) -> dict[str, Tensor]:
        return {name: tensor for rule in self.rules for name, tensor in rule.state().items()}

    @torch.no_grad()
    def load_state(self, saved: Mapping[str, Tensor]) -> None:
        """Copies a saved state in.

        Raises:
            UserError: it belongs to another model or optimiser.
        """
        own = self.state()
        if own.keys() != saved.keys():
            odd = sorted(own.keys() ^ saved.keys())
            raise UserError("the saved optimiser state does not belong to this run", got=f"a difference at {odd[0]!r}")
        for name, tensor in own.items():
            tensor.copy_(saved[name])


class OptimizerSpec(Protocol):
    """A slot that takes any optimiser."""

    def build(self, model: nn.Module) -> Optimizer: ...


@dataclass(frozen=True, kw_only=True)
class AdamWSpec:
    """AdamW for everything; weight decay on matrices only, as nanoGPT and most since do.

    Attributes:
        rates: other rates for parameters whose name begins so; the first that fits counts.
    """

    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = 1e-8
    weight_decay: float = 0.1
    rates: tuple[tuple[str, float], ...] = ()

    def build(self, model: nn.Module) -> Optimizer:
        groups: dict[tuple[float, float], Named] = {}
        named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        for name, p in sorted(named, key=lambda one: one[1].ndim < 2):  # matrices first
            decay = self.weight_decay if p.ndim >= 2 else 0.0
            rate = next((rate for start, rate in self.rates if name.startswith(start)), self.lr)
            groups.setdefault((rate, decay), []).append((name, p))
        return Optimizer(
            AdamW(group, lr=rate, betas=self.betas, eps=self.eps, weight_decay=decay)
            for (rate, decay), group in groups.items()
        )


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
        named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        matrices = [(name, p) for name, p in named if p.ndim == 2 and "blocks." in name]
        unembed = [(name, p) for name, p in named if name.startswith("unembed.") and p.ndim == 2]
        taken = {name for name, _ in matrices + unembed}
        rest = [(name, p) for name, p in named if name not in taken]
        rules: list[Rule] = []
        if matrices:
            rules.append(
                Muon(
                    matrices,
                    lr=self.matrix_lr,
                    momentum=self.momentum,
                    weight_decay=self.weight_decay,
                    steps=self.newton_schulz_steps,
                    dtype=torch.bfloat16 if self.newton_schulz_dtype == "bfloat16" else None,
                )
            )
        for group, lr in ((rest, self.lr), (unembed, self.unembed_lr or self.lr)):
            if group:
                rules.append(AdamW(group, lr=lr, betas=self.betas, eps=self.eps))
        return Optimizer(rules)
